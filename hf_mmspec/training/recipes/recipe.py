"""A recipe: how a family of drafters is trained, as data. Read from YAML, checked before anything is loaded.

Knows names and ranges; trains nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError

from hf_mmspec.modeling import FAMILIES

from ..learning.losses import FEATURE_REGRESSION, LOSSES

ALIASES = {"eagle2": "eagle", "eagle-2": "eagle", "eagle-3": "eagle3"}
# transformers' names; its other schedules need options of their own
SCHEDULES = (
    "cosine_with_min_lr",
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
)
RECORDS = ("all", "text", "pictures", "curriculum")
KV_TARGETS = ("self", "target_layer")


class RecipeError(ValueError):
    """A recipe that cannot be; the message names the field."""


@strict
@dataclass
class OnPolicy:
    """Passes over the drafter's own proposals: the target judges what the drafter said, not only what it said itself.

    Args:
        share: how many of a batch's records get a proposal.
        depth: tokens of a proposal.
        temperature: that proposals are drawn at.
    """

    share: float = 0.25
    depth: int = 4
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.share <= 1 and self.depth >= 1 and self.temperature >= 0):
            raise RecipeError(
                "on_policy: share must be above 0 and at most 1, depth at least 1 and temperature at least 0, got "
                f"{self}"
            )


@strict
@dataclass
class Stage:
    """One stage of a training; the next begins with its best weights and a new optimiser.

    Args:
        name: in logs and checkpoints.
        epochs: passes over the records (a fraction is fine).
        records: which records: all, those without or with pictures, or `"curriculum"`, text first and pictures more
            and more (MSD).
        text_until: share of a curriculum that is text alone; then the share of pictures rises linearly to 1.
        pictures: whether pictures are seen; False cuts visual positions out.
        learning_rate, schedule, warmup, min_learning_rate: peak, transformers' name of the schedule, share of the
            steps for the linear warm-up, and what share of the peak a cosine ends at.
        batch_size: records in a step, over all processes and accumulation.
        unroll: passes in all; 1 is plain, 2 is ViSpec's shortcut mitigation, more train deeper drafts. FLASH: slots.
        unroll_decay: pass k weighs `unroll_decay ** k`.
        loss: weights of the terms by name (`losses.py`, `feature_regression`).
        kv_loss_weight: weight of the loss on the drafter's keys and values (`kv_loss.py`); 0 computes none.
        kv_loss_target: what they are compared with: `"self"`, the drafter's own on the target's features, or
            `"target_layer"`, those of the target's layer `kv_loss_layer` (counted from the end where negative).
        noise: width of the uniform noise on features, times 512 / length (EAGLE-1).
        own_token_rate: how often FLASH's refiner reads the drafter's own token, at the end; 0 up to
            `own_token_from` (share of the stage), then rising linearly.
        on_policy: see `OnPolicy`.
        weight_decay, betas, clip: of AdamW, and the largest norm of the gradient.
    """

    name: str
    epochs: float = 1.0
    records: str = "all"
    text_until: float = 0.5
    pictures: bool = True
    learning_rate: float = 5e-4
    schedule: str = "cosine_with_min_lr"
    warmup: float = 0.05
    min_learning_rate: float = 0.1
    batch_size: int = 16
    unroll: int = 1
    unroll_decay: float = 0.8
    loss: dict[str, float] = field(default_factory=lambda: {"soft_cross_entropy": 1.0})
    kv_loss_weight: float = 0.0
    kv_loss_target: str = "self"
    kv_loss_layer: int = -1
    noise: float = 0.0
    own_token_rate: float = 0.0
    own_token_from: float = 0.0
    on_policy: OnPolicy | None = None
    weight_decay: float = 0.0
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    clip: float = 1.0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.loss) - {*LOSSES, FEATURE_REGRESSION})
        if unknown or not any(self.loss.values()):
            known = ", ".join([*LOSSES, FEATURE_REGRESSION])
            raise RecipeError(f"stage {self.name!r}: loss {unknown or 'is empty'}: choose from {known}")
        if self.records not in RECORDS:
            raise RecipeError(f"stage {self.name!r}: records must be all, text, pictures or curriculum")
        if self.schedule not in SCHEDULES:
            raise RecipeError(f"stage {self.name!r}: schedule must be one of {', '.join(SCHEDULES)}")
        if self.kv_loss_target not in KV_TARGETS:
            raise RecipeError(f"stage {self.name!r}: kv_loss_target must be one of {', '.join(KV_TARGETS)}")
        least_of = {"epochs": 0, "learning_rate": 0, "batch_size": 1, "unroll": 1, "kv_loss_weight": 0}
        for name, least in least_of.items():
            if not getattr(self, name) >= least:
                raise RecipeError(f"stage {self.name!r}: {name} must be at least {least}, got {getattr(self, name)}")
        if len(self.betas) != 2:
            raise RecipeError(f"stage {self.name!r}: betas must be two numbers, got {self.betas}")

    @property
    def kv_layer(self) -> int | None:
        """The target's layer whose keys and values this stage compares with; None for none."""
        return self.kv_loss_layer if self.kv_loss_weight and self.kv_loss_target == "target_layer" else None

    def own_token_rate_at(self, progress: float) -> float:
        """Scheduled sampling at a share of the stage that is done."""
        if progress <= self.own_token_from:
            return 0.0
        return self.own_token_rate * (progress - self.own_token_from) / (1 - self.own_token_from)


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
    try:
        return kind(**values)
    except (StrictDataclassError, TypeError) as error:
        raise RecipeError(f"{name}: {error}") from error


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
