"""Configuration of the EAGLE-3 drafter (arXiv 2503.01840)."""

from dataclasses import field
from itertools import pairwise

from huggingface_hub.dataclasses import strict

from .configuration_autoregressive import AutoregressiveConfig


@strict
class Eagle3Config(AutoregressiveConfig):
    """`AutoregressiveConfig` plus what EAGLE-3 adds.

    Args:
        target_hidden_size: the target's hidden size where it is not the drafter's. Such a drafter has embeddings and
            head of its own, and images reach it through the features: a visual position is embedded as its
            placeholder's id.
        draft_vocab_size: rows of the drafter's own head, `vocab_size` for all tokens. None borrows the target's head,
            behind the drafter's own norm.
        feature_layers: indices of the target's decoder layers whose inputs (`hidden_states[i]` in transformers, before
            any final norm) are concatenated, in increasing order. The authors take three, `authors_taps(n)`; None does
            so for whatever target the drafter is bound to (published checkpoints do not say how many layers that has).
        fc_bias: whether the projection of the concatenated features has a bias; the authors' has none.
        norm_before_residual: whether the residual stream starts from the normed feature (speculators' variant)
            instead of the feature itself (the authors).

    Raises:
        StrictDataclassError: `feature_layers` is empty, not increasing, or negative; a drafter of another width than
            its target has no head of its own, or reads the target's embeddings of images (and see
            `AutoregressiveConfig`).
    """

    model_type = "eagle3"

    target_hidden_size: int | None = None
    feature_layers: list[int] | None = field(default_factory=lambda: Eagle3Config.authors_taps(32))
    fc_bias: bool = False
    norm_before_residual: bool = False

    def validate_architecture(self) -> None:
        super().validate_architecture()
        if self.owns_embeddings:
            self._check_other_width()
        taps = self.feature_layers
        if taps is None:
            return
        if not taps or taps[0] < 0 or any(low >= high for low, high in pairwise(taps)):
            raise ValueError(
                f"feature_layers must be layer indices in increasing order, each once and none below 0; got {taps}"
            )

    def _check_other_width(self) -> None:
        widths = f"a drafter of hidden size {self.hidden_size} for a target of {self.target_width}"
        if self.target_width < 1:
            raise ValueError(f"target_hidden_size must be at least 1, got {self.target_width}")
        if self.draft_vocab_size is None:
            raise ValueError(
                f"{widths} cannot borrow its head: set draft_vocab_size ({self.vocab_size}, vocab_size, for all)"
            )
        if self.visual in ("raw", "adaptor"):
            raise ValueError(
                f'{widths} cannot read its embeddings of images, as visual="{self.visual}" does: choose "none" or '
                '"latents", which read the projected features'
            )

    @property
    def target_width(self) -> int:
        return self.hidden_size if self.target_hidden_size is None else self.target_hidden_size

    @property
    def num_features(self) -> int:
        """How many layers are read."""
        return 3 if self.feature_layers is None else len(self.feature_layers)

    @staticmethod
    def authors_taps(num_layers: int) -> list[int]:
        """A low, a middle and a high layer of a target with `num_layers`: 2, n // 2 and n - 3.

        Raises:
            ValueError: the target has fewer than 7 layers, so that these would coincide or leave their order.
        """
        taps = [2, num_layers // 2, num_layers - 3]
        if not taps[0] < taps[1] < taps[2]:
            raise ValueError(
                f"a target of {num_layers} layers has no three layers 2 < n // 2 < n - 3: choose them yourself, e.g. "
                f"feature_layers={sorted({0, num_layers // 2, num_layers - 1})} (any number of different ones)."
            )
        return taps
