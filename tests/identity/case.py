"""One request in words and numbers, and its check: `generate` with a drafter gives what it gives without one.

A case prints as the Python that makes it, so a failing one can be run by itself.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, StaticCache, StoppingCriteria, StoppingCriteriaList, set_seed

from tests.families import rows
from tests.families.test_families import WORKING
from tests.generation import batches
from tests.generation.spelling import UNSPELLABLE
from tests.generation.test_batches import assert_rows
from tests.generation.test_caches import assert_same_static
from tests.generation.test_fuzz import NEVER, PROCESSORS, WARPERS
from tests.generation.test_lossless_greedy import assert_same, run

from .models import Models

CACHES = ("none", "dynamic", "bare", "static", "own static", "second turn")
_STATIC = ("static", "own static")
_SNIPPET = """\
# from the root of the repository: python failing_case.py
from tests.identity.case import Case
from tests.identity.models import Models

case = {case!r}
case.check(Models())
"""


class SumCriterion(StoppingCriteria):
    """Ends each row by itself, where a property of its prefix holds."""

    def __call__(self, input_ids, scores, **kwargs):
        return input_ids[:, -5:].sum(-1) % 13 == 4


@dataclass(frozen=True)
class Case:
    """A request.

    Args:
        family: of targets, a name of docs/families.md.
        drafter: a name of `test_every_family.DRAFTERS`, "random", "oracle" or "scripted".
        rows: seed, pictures and tokens of text of each row.
        own_tokens: the drafter's vocabulary are the tokens of the answers.
        seed: of sampling.
        limit: new tokens.
        ends: places in the rows' answers whose tokens are EOS.
        stop_at: where in the first row's answer a stop string ends.
        criterion: whether rows end by `SumCriterion`, too.
        total_length: whether `max_length` says the limit.
        processors: names of `test_fuzz.PROCESSORS`.
        warper: how tokens are drawn, a name of `test_fuzz.WARPERS`; None for greedy.
        repeated: two sequences for each row, drawn from the best token alone.
        cache: one of `CACHES`. "second turn" compares the answer to what goes on from a first one's cache.
        mode: "tree", "chain", or "automatic", which takes no `budget`.
        budget: depth, children of a node and nodes.
        scores: whether scores and logits, for a single sequence also the stream and the cache, are compared, too.
    """

    family: str
    drafter: str = "vispec"
    rows: tuple[tuple[int, int, int], ...] = ((0, 0, 6),)
    own_tokens: bool = False
    seed: int = 0
    limit: int = 12
    ends: tuple[int, ...] = ()
    stop_at: int | None = None
    criterion: bool = False
    total_length: bool = False
    processors: tuple[str, ...] = ()
    warper: str | None = None
    repeated: bool = False
    cache: str = "none"
    mode: str = "tree"
    budget: tuple[int, int, int] = (4, 4, 16)
    scores: bool = False

    @property
    def snippet(self) -> str:
        return _SNIPPET.format(case=self)

    @property
    def is_single(self) -> bool:
        return len(self.rows) == 1 and not self.repeated

    def check(self, models: Models) -> Any:
        """Returns the statistics of the drafting where there are some.

        Raises:
            AssertionError: the answers differ.
        """
        singles = models.prompts(self.family, self.rows)
        inputs = rows.batch(WORKING[self.family], singles)
        model = models.target(self.family)
        request = _Request(self, model, inputs, models.tokenizer)
        answers = request.answers()
        eos, stop = self._eos(answers), self._stop_string(answers[0], models.tokenizer)
        expected = request.run(eos, stop, self.scores)
        drafter = models.drafter(self.drafter, self.family, request.prompts(singles), answers, self.own_tokens)
        actual = request.run(eos, stop, self.scores, assistant_model=drafter, **self._budget())
        return self._compare(expected, actual, inputs)

    def _eos(self, answers: list[list[int]]) -> list[int]:
        places = [(answers[place % len(answers)], place) for place in self.ends]
        return [NEVER, *{answer[min(place, len(answer) - 1)] for answer, place in places}]

    def _stop_string(self, answer, tokenizer) -> str | None:
        if self.stop_at is None:
            return None
        end = min(self.stop_at, len(answer) - 1)
        return tokenizer.decode(answer[max(end - 1, 0) : end + 1])

    def _budget(self) -> dict[str, Any]:
        if self.mode == "automatic":
            return {}
        return dict(
            zip(("draft_depth", "draft_top_k", "draft_total_tokens"), self.budget, strict=True), draft_mode=self.mode
        )

    def _compare(self, expected, actual, inputs) -> Any:
        if not self.scores:
            assert actual.tolist() == expected.tolist(), f"{actual.tolist()} instead of {expected.tolist()}"
            return None
        if not self.is_single:
            assert_rows(actual, expected, inputs, "this batch")
            return actual.speculation
        if self.cache in _STATIC:
            assert_same_static(expected, actual)
        else:
            assert_same(expected, actual, "this request")
        if "states" in self.processors:
            for step, other in zip(actual[0].hidden_states, expected[0].hidden_states, strict=True):
                torch.testing.assert_close(step, other, atol=1e-4, rtol=1e-4)
        return actual[0].speculation


class _Request:
    """The calls of `generate` that a case makes."""

    def __init__(self, case: Case, model, inputs: dict[str, Any], tokenizer):
        self.case, self.model, self.inputs, self.tokenizer = case, model, inputs, tokenizer
        self.cached = None
        if case.cache == "second turn":
            self.inputs, self.cached = self._first_turn()

    def prompts(self, singles):
        """As a drafter sees them: what is not in the cache yet."""
        if self.cached is None:
            return singles
        return [{"input_ids": self.inputs["input_ids"][:, self.cached.get_seq_length() :]}]

    def answers(self) -> list[list[int]]:
        """New tokens of each prompt where no token ends it."""
        output = self.run([NEVER], None, False)
        return output[:, self.inputs["input_ids"].shape[1] :].tolist()[:: 2 if self.case.repeated else 1]

    def run(self, eos: list[int], stop: str | None, scores: bool, **drafting):
        """One call, which returns what `_compare` takes."""
        set_seed(self.case.seed)
        options = {**self._options(scores), **self._cache(), "eos_token_id": eos, **drafting}
        if stop is not None:
            options |= dict(stop_strings=[stop], tokenizer=self.tokenizer)
        if not scores:
            return self.model.generate(**self.inputs, **options)
        return (run if self.case.is_single else batches.generate)(self.model, self.inputs, **options)

    def _options(self, scores: bool) -> dict[str, Any]:
        """Made anew for each call, since processors and criteria keep state."""
        case = self.case
        options = {key: value for name in case.processors for key, value in PROCESSORS[name]().items()}
        if not scores:
            options.pop("output_hidden_states", None)
        if case.stop_at is not None:
            options["suppress_tokens"] = [*options.get("suppress_tokens", ()), *UNSPELLABLE]
        if case.criterion:
            own = StoppingCriteriaList([SumCriterion()])
            options["stopping_criteria"] = StoppingCriteriaList([*options.get("stopping_criteria", ()), *own])
        options |= dict(do_sample=case.warper is not None, pad_token_id=0, **self._length())
        options |= WARPERS.get(case.warper, {})
        return options | (dict(do_sample=True, top_k=1, num_return_sequences=2) if case.repeated else {})

    def _length(self) -> dict[str, Any]:
        if not self.case.total_length:
            return dict(max_new_tokens=self.case.limit)
        return dict(max_new_tokens=None, max_length=self.inputs["input_ids"].shape[1] + self.case.limit)

    def _cache(self) -> dict[str, Any]:
        text, kind = self.model.config.get_text_config(decoder=True), self.case.cache
        if kind == "dynamic":
            return dict(cache=DynamicCache(config=text))
        if kind == "bare":
            return dict(cache=DynamicCache())
        if kind == "static":
            return dict(cache_implementation="static")
        if kind == "own static":
            return dict(
                cache=StaticCache(config=text, max_cache_len=self.inputs["input_ids"].shape[1] + self.case.limit)
            )
        return {} if self.cached is None else dict(cache=copy.deepcopy(self.cached))

    def _first_turn(self):
        """A second prompt, and the cache that the first one left."""
        cache = DynamicCache(config=self.model.config.get_text_config(decoder=True))
        first = self.model.generate(**self.inputs, cache=cache, max_new_tokens=5, do_sample=False, eos_token_id=NEVER)
        ids = torch.cat([first, torch.tensor([[30, 31, 32, 33]])], dim=1)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, cache
