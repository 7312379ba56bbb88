"""`AutoDrafter`: picks the drafter's class from a folder's or repository's config.json.

Knows the families only through the table in `hf_mmspec.modeling`, and published checkpoints through `hub/`.
"""

from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from .hub import ConversionError, load_published
from .modeling import FAMILIES, Drafter, DrafterLoadError
from .modeling.strict_loading import HUB_OPTIONS


class AutoDrafter:
    """Not instantiated: `AutoDrafter.from_pretrained(path_or_repo)` returns the right `Drafter`."""

    @staticmethod
    def from_pretrained(
        path_or_repo: str | Path, family: str | None = None, layer_ids: str | None = None, **kwargs: Any
    ) -> Drafter:
        """Load any drafter, strictly (see `Drafter.from_pretrained`), or an authors' checkpoint as it is published.

        Args:
            path_or_repo: a local folder or a Hub repository.
            family, layer_ids: settle doubts about an authors' checkpoint, see `hf_mmspec.hub.convert`.
            kwargs: as `PreTrainedModel.from_pretrained`; `token`, `revision`, `cache_dir`, `local_files_only`,
                `force_download`, `proxies` and `subfolder` reach every file that is fetched.

        Raises:
            DrafterLoadError: config.json is missing, corrupt or neither a drafter's nor a published checkpoint's, or
                the weights are incomplete.
            ValueError: config.json has unknown fields.
        """
        path, options = str(path_or_repo), {k: kwargs[k] for k in HUB_OPTIONS if k in kwargs}
        model_type = read_config(path, options).get("model_type")
        if model_type in FAMILIES:
            return FAMILIES[model_type][1].from_pretrained(path, **kwargs)
        try:
            return load_published(path, family, layer_ids, **kwargs)
        except ConversionError as error:
            raise DrafterLoadError(
                f'{path}: config.json says model_type "{model_type}", which is no drafter family (known: '
                f"{', '.join(sorted(FAMILIES))}), and no published checkpoint that can be read as one: {error}"
            ) from error


def read_config(path: str, options: dict[str, Any]) -> dict[str, Any]:
    """config.json of a folder or repository: cheap, so a wrong path can be noticed before anything large is loaded.

    Args:
        path: a local folder or a Hub repository.
        options: those of `HUB_OPTIONS` that are given.

    Raises:
        DrafterLoadError: config.json is missing, no valid JSON or no object, or its model_type is no name.
    """
    try:
        config: Any = PreTrainedConfig.get_config_dict(path, **options)[0]
    except TypeError:  # transformers looks for keys in it, whatever it is
        config = None
    except OSError as error:
        raise DrafterLoadError(
            f"{path}: config.json is missing or no valid JSON. Give the folder or repository that `save_pretrained` "
            f"wrote, or download it again. ({error})"
        ) from error
    if not isinstance(config, dict):
        raise DrafterLoadError(
            f"{path}: config.json holds no JSON object ({{...}}), so it is no config. Download or save it again."
        )
    if not isinstance(config.get("model_type"), str | None):
        raise DrafterLoadError(f"{path}: config.json has a model_type that is no name: {config['model_type']!r}")
    return config
