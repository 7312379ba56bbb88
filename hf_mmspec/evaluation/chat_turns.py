"""What a turn of a chat waits for: time to first token at each turn, against stock `generate` with its own kept cache.

    python -m hf_mmspec.evaluation.chat_turns --json F [--model M --drafter D]

Six turns, pictures in the first, the third and the fifth. Contenders take the same turn of the same conversation one
after the other; after each turn all of them go on with the first one's answer. Knows no drafter family.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import torch
from transformers import DynamicCache, PreTrainedModel

from hf_mmspec.chat import Chat
from hf_mmspec.chat.prompt import render
from hf_mmspec.demo import samples
from hf_mmspec.modeling import Drafter
from hf_mmspec.whole_file import write_json

from .contenders import Clock
from .loading import default_drafter, load_drafter, load_target
from .machine import machine_facts

STOCK, SCRATCH, CHAT, DRAFTER = "stock_kept_cache", "stock_from_scratch", "chat", "chat_with_drafter"
FOLLOW_UP = "Say that again in other words."
TURNS = 6


@dataclass(frozen=True)
class Turn:
    """One answered turn.

    Args:
        seconds_to_first_token: from the question to the first token: template, pictures, prefill (the drafter's too).
        seconds: of the whole turn.
        read: positions that the target's prefill read.
        ids: of the answer.
        text: of the answer.
    """

    seconds_to_first_token: float
    seconds: float
    read: int
    ids: list[int]
    text: str


class Contender(Protocol):
    """One way to go through a conversation."""

    def take(self, history: Sequence[Mapping[str, Any]], text: str, images: Sequence[Any]) -> Turn:
        """Answer `text` after `history`, which begins with what was answered before."""
        ...


class StockTurns:
    """Stock `generate`; where it `keeps`, with a `DynamicCache` that is cropped to the common prefix of the ids, and
    the pixels of new pictures only."""

    def __init__(self, model: PreTrainedModel, processor: Any, max_new_tokens: int, keeps: bool):
        self._model, self._processor, self._max_new_tokens, self._keeps = model, processor, max_new_tokens, keeps
        self._cache = DynamicCache(config=model.config.get_text_config())
        self._ids: list[int] = []
        self._pictures = 0

    def take(self, history: Sequence[Mapping[str, Any]], text: str, images: Sequence[Any]) -> Turn:
        start = time.perf_counter()
        question = {"role": "user", "content": [*_parts(images), {"type": "text", "text": text}]}
        prompt = render(self._model, self._processor, [*history, question])
        ids = prompt.ids
        request = {**(prompt.request(self._pictures) or {}), **self._kept(ids)}
        read = len(ids) - (self._cache.get_seq_length() if self._keeps else 0)
        clock = Clock()
        sequences = self._model.generate(
            **request, do_sample=False, max_new_tokens=self._max_new_tokens, streamer=clock
        )
        seconds = time.perf_counter() - start
        answer = sequences[0, len(ids) :].tolist()
        if self._keeps:
            self._ids, self._pictures = sequences[0].tolist(), len(prompt.digests)
        said = self._processor.decode(answer, skip_special_tokens=True)
        return Turn(clock.stamps[0][0] - start, seconds, read, answer, said)

    def _kept(self, ids: Sequence[int]) -> dict[str, Any]:
        """The cache, cut to what `ids` begins with; the last token is always read."""
        if not self._keeps:
            return {}
        pairs = zip(self._ids, ids, strict=False)
        common = next((i for i, (ours, theirs) in enumerate(pairs) if ours != theirs), min(len(self._ids), len(ids)))
        surplus = self._cache.get_seq_length() - min(common, len(ids) - 1)
        if surplus > 0:
            self._cache.crop(-surplus)
        return {"cache": self._cache}


class ChatTurns:
    """A `Chat`, with or without a drafter."""

    def __init__(self, model: PreTrainedModel, processor: Any, max_new_tokens: int, drafter: Drafter | None = None):
        self._chat, self._max_new_tokens = Chat(model, processor, drafter), max_new_tokens

    def take(self, history: Sequence[Mapping[str, Any]], text: str, images: Sequence[Any]) -> Turn:
        self._chat.messages = [dict(message) for message in history]
        reply = self._chat.ask(text, images, do_sample=False, max_new_tokens=self._max_new_tokens)
        return Turn(reply.seconds_to_first_token, reply.seconds, reply.read, reply.ids, reply.text)


def measure(
    model: PreTrainedModel, processor: Any, drafter: Drafter, conversations: int, max_new_tokens: int
) -> list[dict[str, Any]]:
    """One row for each contender and turn. The first conversation only warms up.

    Returns:
        `contender`, `turn` (from 1), medians of `seconds_to_first_token`, `seconds` and `read` over `conversations`,
        and `identical`, the share of answers with the ids of a run from scratch.
    """
    taken: dict[tuple[str, int], list[tuple[Turn, bool]]] = {}
    drawn = list(samples("test", n=3 * (conversations + 1)))
    for number in range(conversations + 1):
        pictures = drawn[3 * number : 3 * number + 3]
        for turn, results in enumerate(_take_all(_contenders(model, processor, drafter, max_new_tokens), pictures)):
            for name, result in results.items() if number > 0 else ():
                is_same = result.ids == results[SCRATCH].ids
                taken.setdefault((name, turn + 1), []).append((result, is_same))
    return [
        {
            "contender": name,
            "turn": turn,
            "seconds_to_first_token": median(each.seconds_to_first_token for each, _ in results),
            "seconds": median(each.seconds for each, _ in results),
            "read": median(each.read for each, _ in results),
            "identical": sum(is_same for _, is_same in results) / len(results),
        }
        for (name, turn), results in taken.items()
    ]


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Time to first token at the last turn, of each contender over that of stock `generate` with a kept cache."""
    last = max(row["turn"] for row in rows)
    waits = {row["contender"]: row["seconds_to_first_token"] for row in rows if row["turn"] == last}
    return {name: wait / waits[STOCK] for name, wait in waits.items()}


def _contenders(model, processor, drafter, max_new_tokens) -> dict[str, Contender]:
    return {
        STOCK: StockTurns(model, processor, max_new_tokens, keeps=True),
        SCRATCH: StockTurns(model, processor, max_new_tokens, keeps=False),
        CHAT: ChatTurns(model, processor, max_new_tokens),
        DRAFTER: ChatTurns(model, processor, max_new_tokens, drafter),
    }


def _take_all(contenders: Mapping[str, Contender], pictures: Sequence[Mapping[str, Any]]) -> list[dict[str, Turn]]:
    """Each turn by every contender, beginning with another one each time."""
    history: list[dict[str, Any]] = []
    names, turns = list(contenders), []
    for turn in range(TURNS):
        sample = pictures[turn // 2]
        has_picture = turn % 2 == 0
        text = _question(sample) if has_picture else FOLLOW_UP
        images = [sample["image"]] if has_picture else []
        order = names[turn % len(names) :] + names[: turn % len(names)]
        results = {name: contenders[name].take(history, text, images) for name in order}
        turns.append(results)
        history += [
            {"role": "user", "content": [*_parts(images), {"type": "text", "text": text}]},
            {"role": "assistant", "content": [{"type": "text", "text": results[STOCK].text}]},
        ]
    return turns


def _parts(images: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"type": "image", "image": image} for image in images]


def _question(sample: Mapping[str, Any]) -> str:
    """The first thing that is asked about a sample's picture."""
    return next(part["text"] for part in sample["messages"][0]["content"] if part["type"] == "text")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--model", help="target (default: the embedded one)")
    parser.add_argument("--drafter", help="its drafter; needed with --model")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--conversations", type=int, default=9)
    parser.add_argument("--max-new-tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.model and not arguments.drafter:
        parser.error("a drafter is made for one target: give --drafter together with --model")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)  # before minutes of measuring
    torch.set_num_threads(arguments.threads)
    model, processor = load_target(arguments.model, arguments.dtype)
    drafter = load_drafter(arguments.drafter or default_drafter(), model)
    rows = measure(model, processor, drafter, arguments.conversations, arguments.max_new_tokens)
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()}
    report = {
        "machine": machine_facts(model.dtype, model.device),
        "settings": settings,
        "rows": rows,
        "first_token_ratio": summarise(rows),
    }
    for row in rows:
        print(json.dumps(row))
    print(json.dumps(report["first_token_ratio"]))
    if arguments.json:
        write_json(arguments.json, report)


if __name__ == "__main__":
    main()
