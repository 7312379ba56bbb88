"""Rotary positions as a checkpoint was trained with: transformers 4's fields or 5's, to 5's.

Nothing is taken from a target: a drafter keeps what its training used, whatever the target does.
"""

from typing import Any

from .errors import ConversionError

AUTHORS_THETA = 10000.0  # of every family, where the config says nothing


def rope_parameters(config: dict[str, Any]) -> dict[str, Any]:
    """transformers 5's `rope_parameters` from `rope_theta` and `rope_scaling`, or from `rope_parameters` itself.

    Sections of M-RoPE are kept as a record: with the 1-D positions of a drafter it is plain rotary embedding.

    Raises:
        ConversionError: the two spellings contradict each other, or the type is none that is known.
    """
    scaling, theta = config.get("rope_scaling"), config.get("rope_theta")
    new = config.get("rope_parameters")
    _check_agreement(new, theta)
    found = {**(scaling or {}), **(new or {})}
    if any(isinstance(value, dict) for value in found.values()):
        raise ConversionError("rope_parameters differ by layer type, which no drafter here has: not converted")
    rope_type = found.pop("type", None)
    rope_type = found.pop("rope_type", None) or rope_type or "default"
    found["rope_type"] = "default" if rope_type == "mrope" else rope_type
    found.setdefault("rope_theta", AUTHORS_THETA if theta is None else theta)
    found["rope_theta"] = float(found["rope_theta"])
    if config.get("partial_rotary_factor") not in (None, 1, 1.0):
        raise ConversionError("partial_rotary_factor: drafters here rotate whole heads, so this one is not converted")
    return found


def uses_mrope(parameters: dict[str, Any]) -> bool:
    """Whether the training may have used three-dimensional positions."""
    return "mrope_section" in parameters


def _check_agreement(new: dict[str, Any] | None, theta: float | None) -> None:
    if new and theta is not None and new.get("rope_theta", theta) != theta:
        raise ConversionError(
            f"config.json says rope_theta {theta} and rope_parameters.rope_theta {new['rope_theta']}: remove the one "
            "that the training did not use"
        )
