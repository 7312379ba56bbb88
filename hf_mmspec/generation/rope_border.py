"""How deep a tree may be where the rotary frequencies of a forward depend on the largest position in it.

Beyond a border, "dynamic" frequencies change with every token, "longrope" changes once: nodes on two sides of a change
would not be computed as one by one. Knows the config's rotary parameters only.
"""

from collections.abc import Iterator

from transformers import PreTrainedConfig


def exact_levels(config: PreTrainedConfig, root_position: int, levels: int) -> int:
    """At most `levels`, so that no node passes a border that its root is in front of.

    Args:
        config: the text decoder's.
        root_position: largest rotary position of the root.
    """
    for kind, border in _borders(config):
        # transformers compares `position + 1` with the border
        if "dynamic" in kind or root_position < border:
            levels = min(levels, max(border - 1 - root_position, 0))
    return levels


def is_exact_for(config: PreTrainedConfig, position: int, tokens: int) -> bool:
    """Whether the frequencies stay the same from `position` on for so many tokens."""
    return exact_levels(config, position, tokens) == tokens


def _borders(config: PreTrainedConfig) -> Iterator[tuple[str, int]]:
    parameters = getattr(config, "rope_parameters", None) or {}
    for rope in [parameters] if "rope_type" in parameters else parameters.values():
        kind = rope.get("rope_type", "default") if isinstance(rope, dict) else "default"
        if kind == "longrope":
            yield kind, rope["original_max_position_embeddings"]
        elif "dynamic" in kind:
            yield kind, config.max_position_embeddings
