"""One stage of a recipe, as data: what is seen, how often, and what is learned from it.

Knows names and ranges; trains nothing.
"""

from dataclasses import dataclass, field

from huggingface_hub.dataclasses import strict

from ..learning.losses import FEATURE_REGRESSION, LOSSES

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
NOT_NEGATIVE = ("epochs", "learning_rate", "kv_loss_weight", "weight_decay", "warmup", "noise", "clip")


class RecipeError(ValueError):
    """A recipe that cannot be; the message names the field."""


@strict
@dataclass
class OnPolicy:
    """Passes over the drafter's own proposals: the target judges what the drafter said, not only what it said itself.
    It reads them with their pictures, in the text of a curriculum too.

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
        if self.on_policy is not None and not self.pictures:
            raise RecipeError(
                f"stage {self.name!r}: on_policy needs pictures, since the target reads proposals with them: set "
                "pictures to true, or on_policy in another stage"
            )
        least_of = {"batch_size": 1, "unroll": 1, **dict.fromkeys(NOT_NEGATIVE, 0)}
        for name, least in least_of.items():
            if not getattr(self, name) >= least:
                raise RecipeError(f"stage {self.name!r}: {name} must be at least {least}, got {getattr(self, name)}")
        if not self.warmup <= 1:
            raise RecipeError(f"stage {self.name!r}: warmup is a share of the steps, at most 1, got {self.warmup}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise RecipeError(
                f"stage {self.name!r}: betas must be two numbers, at least 0 and below 1, got {self.betas}"
            )

    @property
    def kv_layer(self) -> int | None:
        """The target's layer whose keys and values this stage compares with; None for none."""
        return self.kv_loss_layer if self.kv_loss_weight and self.kv_loss_target == "target_layer" else None

    def own_token_rate_at(self, progress: float) -> float:
        """Scheduled sampling at a share of the stage that is done."""
        if progress <= self.own_token_from:
            return 0.0
        return self.own_token_rate * (progress - self.own_token_from) / (1 - self.own_token_from)
