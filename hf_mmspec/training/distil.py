"""Distillation: the target answers the training prompts itself, and its features are kept on the way.

Answers come in batches from stock `generate`; features are read off the same forwards, so nothing is computed twice.
Knows no drafter.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence

from hf_mmspec.generation.capture import capture
from hf_mmspec.generation.visual_spans import find_visual_spans

from .records import Record, load_records, read_answers, save_records


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


def distil(
    model,
    processor,
    prompts: Iterable[Prompt],
    folder: Path,
    how: Answering,
    known: Mapping[str, list[int]] | None = None,
) -> Iterator[list[Record]]:
    """Answer `prompts` and store a shard for each batch; shards that are there already are read, not made again.

    Args:
        model, processor: the target.
        prompts: in a fixed order, since shards are numbered.
        folder: where shards go.
        how: greedy or drawn, longest answer, batch size.
        known: answers of an earlier distillation by `answer_key`; batches with nothing else are not decoded again.

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
            answers = [(known or {}).get(answer_key({**p.source, "temperature": how.temperature})) for p in batch]
            if all(answers):
                records = replay_batch(model, processor, batch, cast(list[list[int]], answers), how.temperature)
            else:
                records = answer_batch(model, processor, batch, how, seed=number)
            insist_on_room(folder, sum(record_bytes(record) for record in records))
            save_records(file, records)
        yield list(load_records(file))


@torch.inference_mode()
def answer_batch(model, processor, prompts: Sequence[Prompt], how: Answering, seed: int = 0) -> list[Record]:
    """Answer one batch, left-padded, and read the features off the decoder."""
    inputs = _read_prompts(processor, prompts, "left").to(model.device, model.dtype)
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
        own = slice(padding[row], answer_end(ids[row], prompt_end, ends))
        length = prompt_end - padding[row]
        source = {**prompt.source, "temperature": how.temperature}
        records.append(_record(model, ids[row, own], length, features[row, own], embeds[row, own], source))
    return records


@torch.inference_mode()
def replay_batch(
    model, processor, prompts: Sequence[Prompt], answers: Sequence[list[int]], temperature: float = 0.0
) -> list[Record]:
    """The records of answers that are known: one forward instead of a decoding."""
    inputs = _read_prompts(processor, prompts, "right")
    lengths = inputs["attention_mask"].sum(1).tolist()
    rows = [
        torch.cat([ids[:length], torch.tensor(answer)])
        for ids, length, answer in zip(inputs["input_ids"], lengths, answers, strict=True)
    ]
    ids = pad_sequence(rows, batch_first=True)
    more = ids.shape[1] - inputs["input_ids"].shape[1]
    for name in [name for name in inputs if inputs[name].shape == inputs["input_ids"].shape]:
        inputs[name] = torch.nn.functional.pad(inputs[name], (0, more))
    inputs["attention_mask"] = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    inputs["input_ids"] = ids
    with capture(model.get_decoder(), None) as captured, captured.listening():
        model(**inputs.to(model.device, model.dtype), logits_to_keep=1)
        features, embeds = captured.features, captured.inputs_embeds
    return [
        _record(model, row, length, feature, embed, {**prompt.source, "temperature": temperature})
        for row, length, feature, embed, prompt in zip(rows, lengths, features, embeds, prompts, strict=True)
    ]


def _read_prompts(processor, prompts: Sequence[Prompt], padding_side: str):
    processor.tokenizer.padding_side = padding_side
    return processor.apply_chat_template(
        [prompt.messages for prompt in prompts],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        processor_kwargs={"padding": True, "return_tensors": "pt"},
    )


def _record(model, ids, prompt_length: int, features, embeds, source: dict) -> Record:
    """A record from a row of L ids, with the features and embeddings of at least its first L - 1 positions."""
    spans = find_visual_spans(ids, model.config)
    images = torch.cat([*(embeds[start:stop] for start, stop in spans), embeds[:0]])
    return Record(
        ids=ids.cpu(),
        features=features[: len(ids) - 1].to(device="cpu", dtype=torch.bfloat16),
        prompt_length=prompt_length,
        spans=spans,
        image_embeds=images.to(device="cpu", dtype=torch.bfloat16),
        source=source,
    )


def answer_key(source: dict[str, Any]) -> str:
    """Names an answer by its prompt and how it was made."""
    return json.dumps(source, sort_keys=True)


def known_answers(file: Path) -> dict[str, list[int]]:
    """The answers that `write_answers` kept, by `answer_key`."""
    rows = read_answers(file)
    return {answer_key({key: value for key, value in row.items() if key != "ids"}): row["ids"] for row in rows}


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
