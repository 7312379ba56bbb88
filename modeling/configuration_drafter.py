"""Configuration that all drafters share: the decoder layer, what it was made for, what it was measured to do.

Knows no drafter family; each family adds its own fields in `configuration_<family>.py`.
"""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

# Keys that are no fields of a config but may stand in a config.json, or are consumed by `PreTrainedConfig` itself.
_FOREIGN_KEYS = {
    "attn_implementation",
    "auto_map",
    "experts_implementation",
    "model_type",
    "name_or_path",
    "output_attentions",
    "per_layer_config",
    "quantization_config",
    "rope_scaling",
    "rope_theta",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}


@strict
class DrafterConfig(PreTrainedConfig):
    """Fields common to all drafters. Sizes are the drafter's own unless a field says "the target's".

    Args:
        hidden_size: width of the drafter, equal to the target's except where a family says otherwise.
        intermediate_size, num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim, hidden_act,
            rms_norm_eps, attention_bias, mlp_bias, attention_dropout, max_position_embeddings, initializer_range:
            the decoder layer, as in `LlamaConfig`, except that `attention_bias` means query, key and value only.
            `num_key_value_heads` and `head_dim` of 0 are filled in (no grouping; hidden size / heads).
        rope_parameters: transformers' own spelling, e.g. `{"rope_type": "default", "rope_theta": 10000.0}`.
        vocab_size: the *target's* (padded) vocabulary; `generate` compares it.
        real_vocab_size: the target's number of real tokens, when known. With it, targets that only differ in padding
            are accepted.
        draft_vocab_size: rows of the drafter's own head; None borrows the target's head.
        target_model_type: `model_type` of the target's config, checked by `bind`.
        target_fingerprint: what `binding.fingerprint` gave for the target of the training; a mismatch warns.
        image_token_id: the target's image placeholder, for reference.
        acceptance_by_depth: measured share of first choices at depth 1, 2, ... that the target took, given that the
            path so far was accepted, on validation prompts. The automatic draft budget reads it.
        acceptance_by_rank: `[depth - 1][rank - 1]`: measured probability that the target's token is the drafter's
            child of that rank, given that the path so far was accepted. Preferred over the former.

    Raises:
        ValueError: on a field that this version does not know (naming it), or sizes that do not fit together.
    """

    model_type = "mmspec_drafter"
    # Drafters' positions are 1-D; the sections of a converted checkpoint are kept, as a record.
    ignore_keys_at_rope_validation = {"mrope_section", "mrope_interleaved"}

    vocab_size: int = 32000
    real_vocab_size: int | None = None
    draft_vocab_size: int | None = None
    hidden_size: int = 512
    intermediate_size: int = 1536
    num_hidden_layers: int = 1
    num_attention_heads: int = 8
    num_key_value_heads: int = 0
    head_dim: int = 0
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    attention_bias: bool = False
    attention_dropout: int | float = 0.0
    mlp_bias: bool = False
    max_position_embeddings: int = 8192
    initializer_range: float = 0.02
    rope_parameters: dict | None = None
    tie_word_embeddings: bool = False
    target_model_type: str | None = None
    target_fingerprint: dict[str, list[float]] | None = None
    image_token_id: int | None = None
    acceptance_by_depth: list[float] | None = None
    acceptance_by_rank: list[list[float]] | None = None

    def __post_init__(self, **kwargs):
        unknown = sorted(key for key in set(kwargs) - _FOREIGN_KEYS if not key.startswith("_"))
        if unknown:
            raise ValueError(
                f"{type(self).__name__} does not know the field(s) {', '.join(unknown)}: the drafter was saved by a "
                "newer version (upgrade hf_mmspec), by another program (use `mmspec convert`), or they are misspelt."
            )
        kwargs.pop("use_cache", None)
        if not self.num_key_value_heads:
            self.num_key_value_heads = self.num_attention_heads
        if not self.head_dim:
            self.head_dim = self.hidden_size // self.num_attention_heads
        super().__post_init__(**kwargs)

    @property
    def target_width(self) -> int:
        """Hidden size of the target."""
        return self.hidden_size

    @property
    def owns_embeddings(self) -> bool:
        """Whether the drafter has embeddings of its own, because the target's are of another width."""
        return self.target_width != self.hidden_size

    def validate_architecture(self) -> None:
        """Called by `@strict` after the fields' types are checked."""
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of num_key_value_heads "
                f"({self.num_key_value_heads})"
            )
        if self.draft_vocab_size is not None and not 0 < self.draft_vocab_size <= self.vocab_size:
            raise ValueError(
                f"draft_vocab_size ({self.draft_vocab_size}) must be between 1 and vocab_size ({self.vocab_size})"
            )
