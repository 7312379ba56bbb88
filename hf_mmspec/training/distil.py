"""Distillation: the target answers the training prompts itself, and its features are kept on the way.

Answers come in batches from stock `generate`; features are read off the same forwards, so nothing is computed twice.
Knows no drafter.
"""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from hf_mmspec.generation.capture import capture
from hf_mmspec.generation.visual_spans import find_visual_spans

from .records import Record, load_records, save_records


@dataclass(frozen=True)
class Prompt:
    """A conversation to be answered: chat `messages` (images in their content parts), and its `source`."""

    messages: list[dict[str, Any]]
    source: dict[str, Any]


@dataclass(frozen=True)
class Answering:
    """How answers are made: at `temperature` 0 greedily, else drawn; never longer than `max_new_tokens`."""

    temperature: float = 0.0
    max_new_tokens: int = 256
    batch_size: int = 32


def fill_image(messages: list[dict], image: Image.Image | None) -> list[dict]:
    """The same messages with `image` in their image parts."""

    def fill(part: dict) -> dict:
        return {**part, "image": image} if part["type"] == "image" else part

    return [{**message, "content": [fill(part) for part in message["content"]]} for message in messages]


def distil(model, processor, prompts: Iterable[Prompt], folder: Path, how: Answering) -> Iterator[list[Record]]:
    """Answer `prompts` and store a shard for each batch; shards that are there already are read, not made again.

    Args:
        model, processor: the target.
        prompts: in a fixed order, since shards are numbered.
        folder: where shards go.
        how: greedy or drawn, longest answer, batch size.

    Yields:
        The records of each batch.

    Raises:
        OSError: the disk has too little room for the next shard.
    """
    prompts = iter(prompts)
    for number in range(10**6):
        batch = list(islice(prompts, how.batch_size))
        if not batch:
            return
        file = folder / f"{number:05d}.safetensors"
        if not file.exists():
            records = answer_batch(model, processor, batch, how, seed=number)
            insist_on_room(folder, sum(record_bytes(record) for record in records))
            save_records(file, records)
        yield list(load_records(file))


@torch.inference_mode()
def answer_batch(model, processor, prompts: Sequence[Prompt], how: Answering, seed: int = 0) -> list[Record]:
    """Answer one batch, left-padded, and read the features off the decoder."""
    processor.tokenizer.padding_side = "left"
    inputs = processor.apply_chat_template(
        [prompt.messages for prompt in prompts],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        processor_kwargs={"padding": True, "return_tensors": "pt"},
    ).to(model.device, model.dtype)
    sampling = {"do_sample": True, "temperature": how.temperature} if how.temperature else {"do_sample": False}
    torch.manual_seed(seed)
    with capture(model.get_decoder(), None) as captured, captured.listening():
        ids = model.generate(**inputs, **sampling, max_new_tokens=how.max_new_tokens)
        features, embeds = captured.features, captured.inputs_embeds
    padding = (inputs["attention_mask"] == 0).sum(1).tolist()
    prompt_end = inputs["input_ids"].shape[1]
    ends = _eos_ids(model)
    records = []
    for row, prompt in enumerate(prompts):
        stop = answer_end(ids[row], prompt_end, ends)
        start = padding[row]
        own = slice(start, stop - 1)
        spans = find_visual_spans(ids[row, start:stop], model.config)
        source = {**prompt.source, "temperature": how.temperature}
        images = [embeds[row, start + a : start + b] for a, b in spans]
        records.append(
            Record(
                ids=ids[row, start:stop].cpu(),
                features=features[row, own].to(device="cpu", dtype=torch.bfloat16),
                prompt_length=prompt_end - start,
                spans=spans,
                image_embeds=torch.cat([*images, embeds[row, :0]]).to(device="cpu", dtype=torch.bfloat16),
                source=source,
            )
        )
    return records


def answer_end(ids: torch.Tensor, prompt_end: int, eos_ids: set[int]) -> int:
    """Where a row's answer ends: behind its first end token, or at the row's end."""
    for position, token in enumerate(ids[prompt_end:].tolist(), start=prompt_end):
        if token in eos_ids:
            return position + 1
    return len(ids)


def estimate_bytes(model, prompts: int, tokens_per_record: int) -> int:
    """Disk space that `distil` needs, to be shown before it starts: bf16 features and image embeddings, int64 ids."""
    hidden = model.config.get_text_config().hidden_size
    return prompts * tokens_per_record * (2 * hidden + 8)


def record_bytes(record: Record) -> int:
    """Size of a record on disk."""
    tensors = (record.ids, record.features, record.image_embeds)
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def insist_on_room(folder: Path, needed: int) -> None:
    """Stop while the disk still has room for this and as much again."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < 2 * needed:
        raise OSError(
            f"{folder}: {free / 1e9:.2f} GB free, but the next shard needs {needed / 1e9:.2f} GB and a reserve"
        )


def _eos_ids(model) -> set[int]:
    eos = model.generation_config.eos_token_id
    return set(eos if isinstance(eos, list) else [eos]) - {None}
