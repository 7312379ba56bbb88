"""Training records: one answer of the target with the features that belong to it, in files that survive a crash.

Knows nothing about who made them or how they are learned from.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file


@dataclass
class Record:
    """One prompt with the target's own answer: L token ids, of which the last was emitted but never read.

    Args:
        ids: `int64 (L,)`, visual tokens expanded.
        features: `bfloat16 (L - 1, F)` of all positions but the last.
        prompt_length: tokens before the answer.
        spans: half-open image spans.
        image_embeds: `bfloat16 (visual tokens, H)`, the merged embeddings at those spans.
        source: where it comes from (`task`, `seed`, `temperature`, ...), enough to make the prompt again.
    """

    ids: torch.Tensor
    features: torch.Tensor
    prompt_length: int
    spans: list[tuple[int, int]]
    image_embeds: torch.Tensor
    source: dict

    @property
    def answer(self) -> list[int]:
        """The target's own tokens."""
        return self.ids[self.prompt_length :].tolist()

    def without_images(self) -> "Record":
        """The text of it: visual positions cut out (stage 1 trains on that)."""
        keep = torch.ones(len(self.ids), dtype=torch.bool)
        for start, stop in self.spans:
            keep[start:stop] = False
        return replace(
            self,
            ids=self.ids[keep],
            features=self.features[keep[:-1]],
            prompt_length=int(keep[: self.prompt_length].sum()),
            spans=[],
            image_embeds=self.image_embeds[:0],
        )


def save_records(file: Path, records: list[Record]) -> None:
    """Write one shard atomically: the file is whole or not there."""
    tensors = {
        "ids": torch.cat([record.ids for record in records]),
        "features": torch.cat([record.features for record in records]),
        "image_embeds": torch.cat([record.image_embeds for record in records]),
    }
    rows = [
        {
            "length": len(record.ids),
            "prompt_length": record.prompt_length,
            "spans": record.spans,
            "source": record.source,
        }
        for record in records
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    save_file(tensors, partial, metadata={"rows": json.dumps(rows)})
    os.replace(partial, file)


def load_records(file: Path) -> Iterator[Record]:
    """The records of one shard."""
    with safe_open(file, framework="pt") as shard:
        rows = json.loads(shard.metadata()["rows"])
        ids, features, images = (shard.get_tensor(name) for name in ("ids", "features", "image_embeds"))
    at = image_at = 0
    for index, row in enumerate(rows):
        spans = [(start, stop) for start, stop in row["spans"]]
        visual = sum(stop - start for start, stop in spans)
        length = row["length"]
        yield Record(
            ids=ids[at : at + length],
            features=features[at - index : at - index + length - 1],  # each record before has one feature less
            prompt_length=row["prompt_length"],
            spans=spans,
            image_embeds=images[image_at : image_at + visual],
            source=row["source"],
        )
        at, image_at = at + length, image_at + visual


def load_folder(folder: Path) -> list[Record]:
    """All records of a folder of shards, in order.

    Raises:
        FileNotFoundError: there are none.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{folder}: no records (*.safetensors) in there; run the distillation first")
    return [record for file in files for record in load_records(file)]


def write_answers(file: Path, records: list[Record]) -> None:
    """The answers alone as JSON lines, a few MB: what a later training needs instead of a second decoding."""
    lines = [json.dumps({**record.source, "ids": record.answer}, separators=(",", ":")) for record in records]
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text("\n".join(lines) + "\n")
    os.replace(partial, file)


def read_answers(file: Path) -> list[dict]:
    """What `write_answers` wrote."""
    return [json.loads(line) for line in file.read_text().splitlines()]
