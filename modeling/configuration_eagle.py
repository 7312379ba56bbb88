"""Configuration of the EAGLE-1 and EAGLE-2 drafters (arXiv 2401.15077, 2406.16858)."""

from huggingface_hub.dataclasses import strict

from .configuration_autoregressive import AutoregressiveConfig
from .fixed_tree import check_choices


@strict
class EagleConfig(AutoregressiveConfig):
    """`AutoregressiveConfig` plus what EAGLE adds. EAGLE-1 and EAGLE-2 have the same weights and differ in the tree.

    Args:
        fc_bias: whether the layer that joins embedding and feature has a bias.
        input_norm: whether the first decoder layer normalises its input; EAGLE's does not.
        tree_choices: a tree of fixed shape (EAGLE-1), as paths of ranks, e.g. `fixed_tree.EAGLE1_TREE`, cut to the
            request's budget. None grows EAGLE-2's dynamic tree.

    Raises:
        StrictDataclassError: `tree_choices` is no tree (and see `AutoregressiveConfig`).
    """

    model_type = "eagle"

    fc_bias: bool = True
    input_norm: bool = False
    tree_choices: list[list[int]] | None = None

    def validate_architecture(self) -> None:
        super().validate_architecture()
        if self.tree_choices is not None:
            check_choices(self.tree_choices)
