"""`AutoDrafter`: picks the drafter's class from a folder's or repository's config.json.

Knows the families only through the table in `hf_mmspec.modeling`.
"""

from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from .modeling import FAMILIES, Drafter, DrafterLoadError
from .modeling.strict_loading import HUB_OPTIONS


class AutoDrafter:
    """Not instantiated: `AutoDrafter.from_pretrained(path_or_repo)` returns the right `Drafter`."""

    @staticmethod
    def from_pretrained(path_or_repo: str | Path, **kwargs: Any) -> Drafter:
        """Load any drafter, strictly (see `Drafter.from_pretrained`).

        Args:
            path_or_repo: a local folder or a Hub repository.
            kwargs: as `PreTrainedModel.from_pretrained`; `token`, `revision`, `cache_dir`, `local_files_only`,
                `force_download`, `proxies` and `subfolder` reach every file that is fetched.

        Raises:
            DrafterLoadError: config.json is missing, corrupt or not a drafter's, or the weights are incomplete.
            ValueError: config.json has unknown fields.
        """
        path, options = str(path_or_repo), {k: kwargs[k] for k in HUB_OPTIONS if k in kwargs}
        model_type = _read_config(path, options).get("model_type")
        if model_type not in FAMILIES:
            raise DrafterLoadError(
                f'{path}: config.json says model_type "{model_type}", which is no drafter family (known: '
                f"{', '.join(sorted(FAMILIES))}). For an authors' checkpoint use `mmspec convert`."
            )
        return FAMILIES[model_type][1].from_pretrained(path, **kwargs)


def _read_config(path: str, options: dict) -> dict:
    try:
        return PreTrainedConfig.get_config_dict(path, **options)[0]
    except OSError as error:
        raise DrafterLoadError(
            f"{path}: config.json is missing or no valid JSON. Give the folder or repository that `save_pretrained` "
            f"wrote, or download it again. ({error})"
        ) from error
