"""Distillation: the target answers prompts itself, shard by shard, in one process or in several.

Knows no drafter. What is there is not made again, so a killed run goes on without loss or repeats.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hf_mmspec.data import Conversation, UnusableSample, model_inputs

from ..disk import full_disk_explained
from ..features.reading import Answered, Reader
from ..features.stored import to_columns
from ..processes import processes
from .answering import Answering, answer_batch, end_tokens
from .halves import in_halves
from .rows import to_row
from .screening import Screening, insist_on_few
from .store import AnswerStore

_BETWEEN_PARTS = 1_000_003  # seeds, more than there are shards


@dataclass(frozen=True)
class Progress:
    """What a shard added: answers, their tokens, and what was left out; and how many shards this process makes."""

    answers: int
    tokens: int
    skipped: int
    shards: int


@dataclass(frozen=True)
class Distillation:
    """What is asked, of whom, and where answers go.

    Args:
        model, processor: the target.
        conversations: indexable; an entry may raise `UnusableSample`.
        store: where shards go.
        how: greedy or drawn, the longest answer.
        screening: what is asked of a sample.
        shard_size: prompts in a shard, which are answered at once where memory is enough, else in halves.
        max_skipped: largest share of samples that may be left out.
        reader: reads hidden states to be kept; None keeps none.
        seed: of drawn answers, with the shard's number added. A shard that is answered in halves draws others.
    """

    model: Any
    processor: Any
    conversations: Sequence[Conversation]
    store: AnswerStore
    how: Answering
    screening: Screening
    shard_size: int = 32
    max_skipped: float = 0.2
    reader: Reader | None = None
    seed: int = 0

    def run(self, progress: Callable[[Progress], None] = lambda _: None) -> None:
        """Answer what is missing; processes of `accelerate launch` share the shards.

        Raises:
            TooManySkippedError: more than `max_skipped` of the samples cannot be used. What is answered stays.
            OSError: the disk is full.
        """
        state = processes()
        missing = self.missing()
        if state.is_main_process:
            self.store.clear_leftovers()
        state.wait_for_everyone()  # nobody writes before all have looked what is missing
        mine = missing[state.process_index :: state.num_processes]
        for number in mine:
            rows, skipped = self.make_shard(number)
            self.store.write(number, rows, skipped)
            tokens = sum(len(row["input_ids"]) - row["prompt_length"] for row in rows)
            progress(Progress(len(rows), tokens, skipped.total(), len(mine)))
            self._insist_on_few()
        state.wait_for_everyone()
        self._insist_on_few(least=1)
        if state.is_main_process:
            with full_disk_explained(self.store.folder):
                self.store.finish()
        state.wait_for_everyone()

    def missing(self) -> list[int]:
        """Numbers of the shards that are not there yet."""
        count = -(-len(self.conversations) // self.shard_size)
        return [number for number in range(count) if not self.store.has(number)]

    def make_shard(self, number: int) -> tuple[list[dict[str, Any]], Counter[str]]:
        """The rows of a shard, and the samples that were left out of it by reason."""
        skipped: Counter[str] = Counter()
        askable = list(self.askable(number, skipped))
        answered = self._answer(askable, number, skipped) if askable else []
        rows = [to_row(each, self.how.temperature) for each in answered]
        if self.reader is not None and answered:
            reader = self.reader
            records = in_halves(lambda some, _: reader.read(some), answered)
            rows = [{**row, **to_columns(record)} for row, record in zip(rows, records, strict=True)]
        return rows, skipped

    def askable(self, number: int, skipped: Counter[str]) -> Iterator[Conversation]:
        """The prompts of a shard that can be asked; the others are counted in `skipped`."""
        first = number * self.shard_size
        for index in range(first, min(first + self.shard_size, len(self.conversations))):
            try:
                conversation = self.conversations[index]
                reason = self.screening.of_prompt(conversation) or self._refusal(conversation)
            except UnusableSample as error:
                reason = error.reason
            if reason is None:
                yield conversation
            else:
                skipped[reason] += 1

    def _refusal(self, conversation: Conversation) -> str | None:
        """What the processor itself says: some refuse pictures of odd shapes."""
        try:
            length = model_inputs(self.processor, [conversation])["input_ids"].shape[1]
        except ValueError:
            return "the processor refuses it"
        return self.screening.of_length(length)

    def _answer(self, askable: list[Conversation], number: int, skipped: Counter[str]) -> list[Answered]:
        def answer(some: Sequence[Conversation], first: int) -> list[Answered]:
            # no two parts draw alike, nor as another shard; a processor reads 32 bits of a seed
            seed = self.seed + number + _BETWEEN_PARTS * first
            return answer_batch(self.model, self.processor, some, self.how, seed)

        ends, kept = end_tokens(self.model), []
        for answered in in_halves(answer, askable):
            said = list(answered.ids[answered.prompt_length :])
            reason = self.screening.of_answer(answered.prompt_length, said, ends)
            if reason is None:
                kept.append(answered)
            else:
                skipped[reason] += 1
        return kept

    def _insist_on_few(self, least: int = 20) -> None:
        skipped = self.store.skipped()
        counts = ", ".join(f"{count} x {reason}" for reason, count in skipped.most_common())
        insist_on_few(skipped.total(), self.store.answered() + skipped.total(), self.max_skipped, counts, least)
