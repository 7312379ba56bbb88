"""Hidden states in the columns of an answer: raw bytes in the dtype they were read in, and back.

Arrow has no bfloat16, and lists of floats cost twice the room; bytes are exact and are read without a copy.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from .record import Record


@dataclass(frozen=True)
class StatesFormat:
    """What is kept for each token.

    Args:
        layers: what the drafter reads, see `Drafter.feature_layers`; None for the last state alone.
        dtype: by its torch name.
        hidden_size: the target's width.
    """

    layers: list[int] | None
    dtype: str
    hidden_size: int

    @classmethod
    def of(cls, layers: tuple[int, ...] | None, dtype: torch.dtype, hidden_size: int) -> "StatesFormat":
        """From torch's own types."""
        return cls(None if layers is None else list(layers), str(dtype).removeprefix("torch."), hidden_size)

    def as_dict(self) -> dict[str, Any]:
        """For a manifest."""
        return asdict(self)

    @property
    def torch_dtype(self) -> torch.dtype:
        """As torch has it."""
        return getattr(torch, self.dtype)

    @property
    def bytes_per_token(self) -> int:
        """Of hidden states: the drafter's features and, where they are others, the head's."""
        numbers = self.hidden_size * (1 if self.layers is None else len(self.layers) + 1)
        return numbers * self.torch_dtype.itemsize

    @property
    def bytes_per_embedding(self) -> int:
        """Of what a visual token has besides, its merged embedding."""
        return self.hidden_size * self.torch_dtype.itemsize

    @property
    def feature_size(self) -> int:
        """Width of the features."""
        return self.hidden_size * (1 if self.layers is None else len(self.layers))


def to_columns(record: Record) -> dict[str, Any]:
    """The columns of `answers.store.STATES`."""
    return {
        "features": _to_bytes(record.features),
        "states": None if record.states is None else _to_bytes(record.states),
        "image_embeds": _to_bytes(record.image_embeds),
        "spans": [list(span) for span in record.spans],
    }


def from_columns(row: Mapping[str, Any], kept: StatesFormat) -> Record:
    """A record from a row of an answer set that keeps states."""

    def tensor(name: str, width: int) -> torch.Tensor:
        data = row[name]
        flat = (
            torch.frombuffer(bytearray(data), dtype=kept.torch_dtype) if data else torch.empty(0).to(kept.torch_dtype)
        )
        return flat.view(-1, width)

    return Record(
        ids=torch.tensor(row["input_ids"]),
        prompt_length=row["prompt_length"],
        spans=[(start, stop) for start, stop in row["spans"]],
        features=tensor("features", kept.feature_size),
        states=None if row["states"] is None else tensor("states", kept.hidden_size),
        image_embeds=tensor("image_embeds", kept.hidden_size),
        task=row["task"],
    )


def _to_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
