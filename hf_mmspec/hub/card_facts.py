"""What a drafter's folder says about it: config, size of the weights, training, conversion, benchmarks.

Reads and checks; words and layout are `card_text.py`'s and `card_metadata.py`'s business.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from ..modeling import FAMILIES, DrafterConfig
from .card_bench import Measured, read_bench, read_measured
from .names import EMBEDDED_TARGET, is_hub_id
from .tensor_files import list_tensors


class CardError(ValueError):
    """A card that cannot be made; the message names the file and the fix."""


@dataclass(frozen=True)
class CardFacts:
    """All that a card is made of.

    Args:
        name: of the drafter, or its repository.
        config: its config.
        parameters: number of its weights; None where there are none in the folder.
        training: `training.json`, empty where there is none.
        conversion: `conversion.json`, the same.
        measured: its numbers from each bench.
    """

    name: str
    config: DrafterConfig
    parameters: int | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    conversion: Mapping[str, Any] = field(default_factory=dict)
    measured: Sequence[Measured] = ()

    @property
    def family(self) -> str:
        """`model_type`."""
        return self.config.model_type

    @property
    def target(self) -> str | None:
        """How its users name the target, a public name (see `names.py`); None where nobody said."""
        said = [self.training.get("target"), *(each.target for each in self.measured)]
        known = [name for name in said if name is not None]
        return next((name for name in known if is_hub_id(name) or name == EMBEDDED_TARGET), (known or [None])[0])

    @property
    def sees_pictures(self) -> bool:
        """Whether it is for a target that does, as far as its config tells."""
        visual = getattr(self.config, "visual", "none")
        return self.config.image_token_id is not None or visual not in ("none", "skipped")


def read_facts(folder: Path, reports: Sequence[Mapping[str, Any]] | None = None, name: str | None = None) -> CardFacts:
    """The facts of a drafter's folder.

    Args:
        reports: of `mmspec bench`; None for those that are kept in the folder.
        name: instead of the folder's own.

    Raises:
        CardError: it is no drafter's folder, or a file of it cannot be read.
    """
    config = read_drafter_config(folder)
    if reports is None:
        reports = [read_bench(file) for file in bench_files(folder)]
    return CardFacts(
        name=name or folder.resolve().name,
        config=config,
        parameters=_count_parameters(folder),
        training=_read_object(folder / "training.json"),
        conversion=_read_object(folder / "conversion.json"),
        measured=[read_measured(report, folder.resolve().name, config.model_type) for report in reports],
    )


def bench_files(folder: Path) -> list[Path]:
    """`bench.json`, `bench-2.json`, ..., `bench-10.json` of a folder, in this order."""
    return sorted(folder.glob("bench*.json"), key=lambda file: (len(file.name), file.name))


def read_drafter_config(folder: Path) -> DrafterConfig:
    """The config of one of our own drafters.

    Raises:
        CardError: it is not there, or another model's.
    """
    found = _read_object(folder / "config.json")
    family = found.get("model_type")
    if family not in FAMILIES:
        raise CardError(
            f"{folder} is no folder of a drafter: its config.json is missing or names none of {', '.join(FAMILIES)} "
            "as model_type. Give what `mmspec train` or `mmspec convert` wrote."
        )
    try:
        return FAMILIES[family][0].from_dict(found)
    except StrictDataclassError as error:
        raise CardError(f"{folder}/config.json has a value that cannot be: {error}") from error


def _count_parameters(folder: Path) -> int | None:
    tensors = [info for file in folder.glob("*.safetensors") for info in list_tensors(file).values()]
    counts = [info.nbytes // info.dtype.itemsize for info in tensors if info.dtype and info.dtype.is_floating_point]
    return sum(counts) if counts else None


def _read_object(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CardError(f"{file} is no valid JSON: get or make it again. ({error})") from error
    if not isinstance(content, dict):
        raise CardError(f"{file} holds no JSON object: get or make it again")
    return content
