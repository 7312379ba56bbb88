"""What papers on multimodal drafters claim, as data: which trainings are compared, and what should come out.

Trains and measures nothing. An arm's changes are those of `read_recipe`, with sizes of the target in braces.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..recipes.recipe import Recipe, family_recipe, read_recipe

L, SPEED = "acceptance_length", "tokens_per_second"
# what may stand in braces: a quarter of the target's MLP, half its width, a ninth of a picture's visual tokens
SIZES = ("quarter_mlp", "half_width", "ninth_of_picture")


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Args:
        name: in tables.
        family: whose recipe.
        changes: to it.
    """

    name: str
    family: str
    changes: tuple[str, ...] = ()

    def written(self, sizes: Mapping[str, int]) -> list[str]:
        """The changes with the target's sizes."""
        return [change.format_map(sizes) for change in self.changes]

    def recipe(self, sizes: Mapping[str, int], more: Iterable[str] = ()) -> Recipe:
        """The whole recipe; `more` changes are stronger, but for the arm's own.

        Raises:
            RecipeError: it cannot be.
        """
        return read_recipe(family_recipe(self.family), [*more, *self.written(sizes)])


@dataclass(frozen=True)
class Claim:
    """What is said, and what it is tested with.

    Args:
        name: on the command line.
        source: paper and place in it.
        says: the claim, as it is tested.
        arms: names in `ARMS`; the first is the way that the claim recommends, the others are compared with it.
        by: the measure that decides, `L` or `SPEED`; both are reported.
    """

    name: str
    source: str
    says: str
    arms: tuple[str, ...]
    by: str = L


VISPEC, MSD = "ViSpec, arXiv 2509.15235", "MSD, arXiv 2505.14260"
FLASH, EAGLE3 = "FLASH, arXiv 2505.12728", "EAGLE-3, arXiv 2503.01840"

_NINE = "drafter.num_latents={ninth_of_picture}"  # FLASH's ratio: 576 to 64, 324 to 36


def _slots(count: int) -> tuple[str, ...]:
    return _NINE, f"drafter.num_slots={count}", f"stages.*.unroll={count}"


ARMS = {
    arm.name: arm
    for arm in (
        Arm("vispec", "vispec"),
        Arm("vispec, all visual tokens", "vispec", ("drafter.visual=none",)),
        Arm("vispec, no pictures", "vispec", ("drafter.visual=skipped",)),
        # one row for each picture with and without the global feature
        Arm("vispec, no global feature", "vispec", ("drafter.num_q=1", "drafter.global_feature=false")),
        Arm("vispec, global feature alone", "vispec", ("drafter.num_q=1",)),
        Arm("msd", "msd"),
        Arm("msd, coupled", "msd", ("drafter.visual=none",)),
        Arm("msd, no curriculum", "msd", ("stages.*.records=all",)),
        Arm("msd, neither", "msd", ("drafter.visual=none", "stages.*.records=all")),
        Arm("flash, k = 4", "flash", _slots(4)),
        Arm("flash, k = 1", "flash", _slots(1)),
        Arm("flash, k = 2", "flash", _slots(2)),
        Arm("flash, k = 8", "flash", _slots(8)),
        Arm("flash, all visual tokens", "flash", ("drafter.visual=none",)),
        Arm("eagle3", "eagle3"),
        Arm("eagle2", "eagle"),
        # the closed-form start is ours and EAGLE-3 has none
        Arm("eagle2, random start", "eagle", ("closed_form_start=false",)),
        Arm("vispec, narrow MLP", "vispec", ("drafter.intermediate_size={quarter_mlp}",)),
        Arm("eagle3, half width", "eagle3", ("drafter.hidden_size={half_width}",)),
    )
}
CLAIMS = {
    claim.name: claim
    for claim in (
        Claim(
            "vispec-adaptor",
            f"{VISPEC}, section 3.2",
            "a picture compressed to one row and a global feature is drafted from better than all its visual tokens",
            ("vispec", "vispec, all visual tokens", "vispec, no pictures"),
        ),
        Claim(
            "vispec-global",
            f"{VISPEC}, section 3.2",
            "a global feature of the picture, mixed into all later text, helps besides the compressed row",
            ("vispec", "vispec, no global feature", "vispec, global feature alone"),
        ),
        Claim(
            "msd-decoupling",
            f"{MSD}, abstract",
            "visual tokens that enter the layer as they are, apart from text, are better than fused ones",
            ("msd", "msd, coupled"),
        ),
        Claim(
            "msd-curriculum",
            f"{MSD}, abstract",
            "text first, then pictures more and more, is better than both from the start",
            ("msd", "msd, no curriculum", "msd, neither"),
        ),
        Claim(
            "flash-compression",
            f"{FLASH}, abstract",
            "pictures pooled to a ninth of their tokens draft faster and are accepted as often",
            ("flash, k = 4", "flash, all visual tokens"),
            SPEED,
        ),
        Claim(
            "flash-slots",
            f"{FLASH}, abstract",
            "several tokens from one forward of the drafter are faster than one",
            ("flash, k = 4", "flash, k = 1", "flash, k = 2", "flash, k = 8"),
            SPEED,
        ),
        Claim(
            "eagle3",
            f"{EAGLE3}, abstract",
            "three layers of the target and training on its own outputs beat EAGLE-2's regression of the last state",
            ("eagle3", "eagle2", "eagle2, random start"),
        ),
        Claim(
            "narrow-mlp",
            "ours",
            "a quarter of the MLP drafts faster than the full one",
            ("vispec, narrow MLP", "vispec"),
            SPEED,
        ),
        Claim(
            "narrow-eagle3",
            "ours",
            "half the width drafts faster than the target's own",
            ("eagle3, half width", "eagle3"),
            SPEED,
        ),
    )
}
