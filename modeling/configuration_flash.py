"""Configuration of the FLASH drafter (SpecFLASH, arXiv 2505.12728)."""

from huggingface_hub.dataclasses import strict

from .configuration_visual import VisualConfig


@strict
class FlashConfig(VisualConfig):
    """`VisualConfig` plus what FLASH adds.

    Args:
        num_slots: drafts per forward, k in the paper.
        refiner: whether slots after the first are refined by the tokens drafted before them (Hydra style).
        refiner_size: width of the refiner; 0 is filled in (an eighth of `hidden_size`).
        fc_bias: whether the gated fusion has biases.
        attention_bias: here of all four projections.
        dropout: after attention, MLP and refiner, in training.
        released_rows: lay out rows as the released code does in training and decoding, for weights that it trained:
            see `LatentPool`.
        reference_compat: also do as the released code does where its training and decoding contradict each other: the
            refiner's conditioning in training, the residual gate after images (see `FlashDrafter`). Sets
            `released_rows`.

    Raises:
        StrictDataclassError: `num_slots` is below 1 (and see `VisualConfig`).
        ValueError: `accepted_rows` is given.
    """

    model_type = "flash"

    visual: str = "latents"
    attention_bias: bool = True
    num_slots: int = 4
    refiner: bool = True
    refiner_size: int = 0
    fc_bias: bool = True
    dropout: float = 0.1
    released_rows: bool = False
    reference_compat: bool = False

    def __post_init__(self, **kwargs):
        if "accepted_rows" in kwargs:
            raise ValueError(
                "accepted_rows is for drafters that feed on their own outputs. FLASH drafts all slots from one row "
                "and writes none for the tokens that it drafts, so there is none to reuse: leave it out"
            )
        if not self.refiner_size:
            self.refiner_size = max(self.hidden_size // 8, 1)
        self.released_rows = self.released_rows or self.reference_compat
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        super().validate_architecture()
        if self.num_slots < 1:
            raise ValueError(f"num_slots must be at least 1, got {self.num_slots}")
