"""A recipe: how a family of drafters is trained, as data. Read from YAML, checked before anything is loaded.

Knows names and ranges; trains nothing.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import (
    StrictDataclassClassValidationError,
    StrictDataclassError,
    StrictDataclassFieldValidationError,
)

from hf_mmspec.modeling import FAMILIES

from .stage import OnPolicy, RecipeError, Stage

ALIASES = {"eagle2": "eagle", "eagle-2": "eagle", "eagle-3": "eagle3"}


@strict
@dataclass
class Recipe:
    """How a drafter is made.

    Args:
        family: a `model_type` of `hf_mmspec.modeling.FAMILIES`.
        stages: one after the other.
        drafter: fields of the drafter's config; those of the target where nothing is said. `draft_vocab_size` picks
            the most frequent tokens of the answers; without it the family's own choice.
        closed_form_start: whether `fc` begins as a ridge regression (`warm_start.py`).
        evaluations: how often L is measured in each stage; the best checkpoint is kept.
        seed: of everything.
    """

    family: str
    stages: list[Stage]
    drafter: dict[str, Any] = field(default_factory=dict)
    closed_form_start: bool = False
    evaluations: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise RecipeError(f"unknown family {self.family!r}: choose from {', '.join(sorted(FAMILIES))}")
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) < len(names):
            raise RecipeError(f"a recipe needs stages with different names, got {names}")
        for stage in self.stages:
            if stage.own_token_rate and self.family != "flash":
                raise RecipeError(f"stage {stage.name!r}: own_token_rate is for flash, not for {self.family}")
            if stage.kv_loss_weight and self.family == "flash":
                raise RecipeError(
                    f"stage {stage.name!r}: kv_loss_weight is for drafters that feed on their own outputs; flash "
                    "drafts all slots from one row and writes no keys and values for drafted tokens: set it to 0"
                )
        self._check_drafter()
        slots, trained = self.drafter.get("num_slots"), max(stage.unroll for stage in self.stages)
        if self.family == "flash" and isinstance(slots, int) and slots > trained:
            raise RecipeError(
                f"drafter.num_slots is {slots}, but no stage trains more than {trained} slots, and all are drafted "
                f"from: set stages.*.unroll={slots}, or fewer slots"
            )
        if len({stage.kv_layer for stage in self.stages} - {None}) > 1:
            raise RecipeError("kv_loss_layer must be the same in all stages")
        if self.evaluations < 1:
            raise RecipeError(f"evaluations must be at least 1, got {self.evaluations}")

    def _check_drafter(self) -> None:
        """Names and types of its fields; sizes have to fit together with the target's (`drafters.py`)."""
        with suppress(StrictDataclassClassValidationError):
            try:
                FAMILIES[self.family][0](**self.drafter)
            except (StrictDataclassFieldValidationError, TypeError, ValueError) as error:
                raise RecipeError(f"drafter: {in_one_line(error)}") from error
        size = self.drafter.get("draft_vocab_size")
        if size is not None and size < 1:
            raise RecipeError(f"drafter.draft_vocab_size must be at least 1, got {size}: leave it out for all tokens")

    @property
    def kv_layer(self) -> int | None:
        """The target's layer whose keys and values are compared with; None where no stage needs any."""
        return next((stage.kv_layer for stage in self.stages if stage.kv_layer is not None), None)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for files."""
        return asdict(self)


def family_recipe(family: str) -> Path:
    """The recipe file of a family that comes with the package."""
    name = ALIASES.get(family.lower(), family.lower())
    file = Path(str(files(__package__))) / f"{name}.yaml"
    if not file.exists():
        raise RecipeError(f"unknown family {family!r}: choose from {', '.join(sorted(FAMILIES))}")
    return file


def read_recipe(file: Path, changes: Sequence[str] = ()) -> Recipe:
    """A recipe from a YAML file.

    Args:
        changes: `path=value` each, the path in dots (`drafter.draft_vocab_size=2048`, `stages.0.epochs=2`), the value
            as YAML. `stages.*.batch_size=4` changes all stages.

    Raises:
        RecipeError: no such file, no YAML, or a field that is unknown or has a value that cannot be.
    """
    try:
        data = yaml.safe_load(file.read_text())
    except FileNotFoundError:
        raise RecipeError(f"{file}: no such recipe") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file}: not a YAML file ({error})") from error
    if not isinstance(data, dict):
        raise RecipeError(f"{file}: a recipe is a mapping with family and stages")
    for change in changes:
        path, equals, value = change.partition("=")
        if not equals:
            raise RecipeError(f"{change!r}: write path=value, e.g. stages.0.epochs=2")
        try:
            _set(data, path.split("."), yaml.safe_load(value), change)
        except yaml.YAMLError as error:
            raise RecipeError(f"{change!r}: the value is not YAML ({error})") from error
    return make_recipe(data, str(file))


def make_recipe(data: Mapping[str, Any], name: str) -> Recipe:
    """A recipe from plain data; `name` is for messages."""
    family = str(data.get("family", ""))
    stages = data.get("stages")
    if not isinstance(stages, list):
        raise RecipeError(f"{name}: a recipe needs a list of stages")
    made = [_stage(stage, f"{name}, stage {index}") for index, stage in enumerate(stages)]
    return _build(Recipe, {**data, "family": ALIASES.get(family, family), "stages": made}, name)


def _stage(data: Any, name: str) -> Stage:
    if not isinstance(data, dict):
        raise RecipeError(f"{name}: a stage is a mapping, got {data!r}")
    on_policy = data.get("on_policy")
    if isinstance(on_policy, dict):
        data = {**data, "on_policy": _build(OnPolicy, on_policy, f"{name}, on_policy")}
    return _build(Stage, data, name)


def _build(kind: type, data: Mapping[str, Any], name: str) -> Any:
    types = {each.name: each.type for each in fields(kind)}
    unknown = sorted(set(data) - set(types))
    if unknown:
        raise RecipeError(f"{name}: unknown field(s) {', '.join(unknown)}; known: {', '.join(types)}")
    values = {key: _as_float(value) if types[key] in (float, "float") else value for key, value in data.items()}
    if isinstance(values.get("loss"), dict):
        values["loss"] = {key: _as_float(weight) for key, weight in values["loss"].items()}
    if isinstance(values.get("betas"), list):
        values["betas"] = [_as_float(beta) for beta in values["betas"]]
    try:
        return kind(**values)
    except (StrictDataclassError, TypeError) as error:
        raise RecipeError(f"{name}: {in_one_line(error)}") from error


def in_one_line(error: Exception) -> str:
    """Its message, for one of our own."""
    return " ".join(str(error).split())


def _as_float(value: Any) -> Any:
    """YAML 1.1 reads `5e-4` as text and `1` as an integer."""
    try:
        return value if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return value


def _set(data: Any, path: list[str], value: Any, change: str) -> None:
    key: Any = int(path[0]) if isinstance(data, list) and path[0].isdigit() else path[0]
    if isinstance(data, list) and key == "*":
        for index in range(len(data)):
            _set(data, [str(index), *path[1:]], value, change)
        return
    try:
        if len(path) == 1:
            data[key] = value
        else:
            _set(data.setdefault(key, {}) if isinstance(data, dict) else data[key], path[1:], value, change)
    except (TypeError, IndexError) as error:
        raise RecipeError(f"{change!r}: there is no {path[0]!r} to change ({error})") from error
