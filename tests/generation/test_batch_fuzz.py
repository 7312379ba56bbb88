"""Batches put together at random, always compared with plain `generate` at the same batch."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .batches import BatchOracle, answers_of, batch_of, generate
from .doubles import RandomDrafter
from .test_batches import assert_rows
from .test_fuzz import BUDGETS, FAMILY_FIELDS, NEVER, PROCESSORS, SETTINGS, TARGETS, drafter, target

# Those whose outcome for a row does not depend on how many rows a call has.
PER_ROW = sorted(set(PROCESSORS) - {"criterion", "chunks"})

BATCHES = dict(
    name=st.sampled_from(sorted(TARGETS)),
    rows=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 3)), min_size=2, max_size=5, unique=True),
    limit=st.integers(1, 20),
    ends=st.sets(st.integers(0, 20), max_size=4),
    processors=st.sets(st.sampled_from(PER_ROW), max_size=3),
    repeated=st.booleans(),
    kind=st.sampled_from(["random", "oracle", *sorted(FAMILY_FIELDS)]),
    budget=BUDGETS,
)


def check(name, rows, limit, ends, processors, repeated, kind, budget):
    """`ends`: places in the rows' answers whose tokens are EOS. `repeated`: two returned sequences of each, drawn from
    the best token alone."""
    model = target(name)
    singles = [TARGETS[name][1](seed, images, length=1 + seed % 9) for seed, images in rows]
    inputs = batch_of(singles)
    sampling = dict(do_sample=True, top_k=1, num_return_sequences=2) if repeated else {}

    def request(eos, **kwargs):
        options = {key: value for each in sorted(processors) for key, value in PROCESSORS[each]().items()}
        if repeated:
            options.pop("output_hidden_states", None)
        return generate(model, inputs, max_new_tokens=limit, eos_token_id=eos, **options, **sampling, **kwargs)

    answers = answers_of(request(NEVER), inputs)[:: 2 if repeated else 1]
    eos = [NEVER, *{answers[place % len(answers)][min(place, limit - 1)] for place in ends}]
    doubles = {"random": RandomDrafter, "oracle": lambda target: BatchOracle(target, singles, answers)}
    ours = doubles[kind](model) if kind in doubles else drafter(kind, name)
    expected, actual = request(eos), request(eos, assistant_model=ours, **budget | dict(draft_mode="tree"))
    assert_rows(actual, expected, inputs, "this batch")
    if "states" in processors and not repeated:
        for step, other in zip(actual.hidden_states, expected.hidden_states, strict=True):
            assert [layer.shape for layer in step] == [layer.shape for layer in other]


@settings(max_examples=8, **SETTINGS)
@given(**BATCHES)
def test_any_batch(**case):
    check(**case)


@pytest.mark.slow
@settings(max_examples=20, **SETTINGS)
@given(**BATCHES)
def test_many_batches(**case):
    check(**case)
