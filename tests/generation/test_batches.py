"""Batches: what `generate` gives without a drafter, and what each row gives alone, whatever its neighbours do."""

from functools import cache
from itertools import product

import pytest
import torch
from transformers import DynamicCache, LogitsProcessorList, StoppingCriteriaList, TextStreamer
from transformers.generation.streamers import BaseStreamer

from hf_mmspec.modeling import FAMILIES
from tests.slow_parameters import others_slow

from . import tiny
from .batches import BatchOracle, answers_of, batch_of, generate, prompts
from .doubles import RandomDrafter
from .test_every_family import DRAFTERS, build
from .test_every_family import SHAPES as FAMILY_SHAPES
from .test_lossless_greedy import SHAPES, CountingProcessor, ParityCriterion, prefix_fn

ROWS = 4
TARGETS = {
    "llava": ("llava", tiny.llava),
    "llava, eager": ("llava", lambda: tiny.llava("eager")),
    "qwen": ("qwen", tiny.qwen),
    "windows": ("llava", lambda: tiny.sliding_llava(window=12)),
}


def by_row(batch_id, ids):
    """A grammar of its own for each row."""
    return [token for token in range(3, 116) if token % 3 == batch_id % 3]


REQUESTS = {
    "plain": lambda: {},
    "several_eos": lambda: dict(eos_token_id=[2, 49, 26, 97, 67, 44, 38, 27]),
    "no_eos": lambda: dict(eos_token_id=None),
    "repetition": lambda: dict(repetition_penalty=1.3, no_repeat_ngram_size=2),
    "prompts": lambda: dict(encoder_no_repeat_ngram_size=2, encoder_repetition_penalty=1.2, min_new_tokens=5),
    "grammar": lambda: dict(prefix_allowed_tokens_fn=prefix_fn),
    "grammar_by_row": lambda: dict(prefix_allowed_tokens_fn=by_row),
    "processor_with_memory": lambda: dict(logits_processor=LogitsProcessorList([CountingProcessor()])),
    "forced": lambda: dict(forced_eos_token_id=5, begin_suppress_tokens=[20, 63]),
}


@pytest.fixture(scope="module", params=TARGETS)
def target(request):
    family, make = TARGETS[request.param]
    return request.param, family, make()


def assert_rows(ours, plain, inputs, what):
    """Same ids; same scores and logits wherever a row has not ended."""
    assert ours.sequences.tolist() == plain.sequences.tolist(), what
    ends = [
        max([step + 1 for step, token in enumerate(row) if token > 0], default=0) for row in answers_of(plain, inputs)
    ]
    for name in ("scores", "logits"):
        steps = list(zip(getattr(ours, name), getattr(plain, name), strict=True))
        for step, (mine, theirs) in enumerate(steps):
            assert mine.shape == theirs.shape
            live = [row for row, end in enumerate(ends) if step < end]
            torch.testing.assert_close(mine[live], theirs[live], atol=1e-4, rtol=1e-4, msg=str(what))


ORACLE_SHAPES = ("narrow", "chain", "none")


@pytest.mark.parametrize("kind", REQUESTS)
def test_same_as_generate(target, kind):
    """With wrong drafts, and with right ones in one shape, another one for each kind and target in turn."""
    turn = list(REQUESTS).index(kind) + list(TARGETS).index(target[0])
    check_request(target, kind, [ORACLE_SHAPES[turn % len(ORACLE_SHAPES)]])


@pytest.mark.slow
@pytest.mark.parametrize("kind", REQUESTS)
def test_same_as_generate_in_every_shape(target, kind):
    check_request(target, kind, ORACLE_SHAPES)


def check_request(target, kind, oracle_shapes):
    _, family, model = target
    singles = prompts(family, ROWS)
    inputs = batch_of(singles)
    plain = generate(model, inputs, **REQUESTS[kind]())
    oracle = BatchOracle(model, singles, answers_of(plain, inputs))
    for drafter, shape in ((RandomDrafter(model), "wide"), *((oracle, shape) for shape in oracle_shapes)):
        ours = generate(model, inputs, assistant_model=drafter, **SHAPES[shape], **REQUESTS[kind]())
        assert_rows(ours, plain, inputs, (kind, shape))


def test_guidance_runs_the_target_for_each_row():
    """And keeps a cache of its own for each, from the row's own negative prompt."""
    model, singles = tiny.llava(), prompts("llava", 3)
    inputs, negative = batch_of(singles), torch.tensor([[5, 6], [7, 8], [9, 10]])
    guided = dict(guidance_scale=1.4, negative_prompt_ids=negative, max_new_tokens=10)
    plain = generate(model, inputs, **guided)
    oracle = BatchOracle(model, singles, answers_of(plain, inputs))
    ours = generate(model, inputs, assistant_model=oracle, **SHAPES["narrow"], **guided)
    assert_rows(ours, plain, inputs, "guidance")


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_second_turn_on_the_cache_of_the_first(family):
    model, inputs = tiny.FAMILIES[family](), batch_of(prompts(family, 3))
    drafter, texts = RandomDrafter(model), []
    for speculate in ({}, dict(assistant_model=drafter, **SHAPES["wide"])):
        cache = DynamicCache(config=model.config.get_text_config())
        first = generate(model, inputs, cache=cache, max_new_tokens=6, eos_token_id=1, **speculate)
        assert first.cache is cache and cache.get_seq_length() == first.sequences.shape[1] - 1
        ids = torch.cat([first.sequences, torch.tensor([[30, 31], [32, 33], [34, 35]])], dim=1)
        mask = torch.nn.functional.pad(inputs["attention_mask"], (0, 8), value=1)
        turn = {"input_ids": ids, "attention_mask": mask}
        texts.append(generate(model, turn, cache=cache, eos_token_id=1, **speculate).sequences.tolist())
    assert texts[0] == texts[1]
    assert [each.start_position for each in drafter.prompts[3:]] == (inputs["attention_mask"].sum(-1) + 5).tolist()


@cache
def answered(family):
    """A target, single prompts, a batch of them, and what `generate` answers to it; nothing changes them."""
    model, singles = tiny.FAMILIES[family](), prompts(family, ROWS)
    inputs = batch_of(singles)
    return model, singles, inputs, generate(model, inputs, eos_token_id=1)


# one of each way to draft; what else the families differ in does not depend on the target or the shape
DISTINCT = ("vispec", "msd", "flash", "eagle3", "eagle3_narrow", "vispec_reusing")


@pytest.mark.parametrize(
    "family, name, shape",
    others_slow(
        product(tiny.FAMILIES, DRAFTERS, FAMILY_SHAPES),
        [
            *product(["qwen"], DISTINCT, FAMILY_SHAPES),
            *product(["llava"], DRAFTERS, ["tree"]),
            *product(["llava"], (*DISTINCT, "eagle_fixed", "slots_adaptor"), ["chain"]),
        ],
    ),
)
def test_every_drafter_family(family, name, shape):
    """Also the acceptance of each row is that of the row alone: its drafts were the same."""
    model, singles, inputs, plain = answered(family)
    drafter = build(name, model, plain.sequences[:, inputs["input_ids"].shape[1] :].unique())
    ours = generate(model, inputs, eos_token_id=1, assistant_model=drafter, **FAMILY_SHAPES[shape])
    assert_rows(ours, plain, inputs, (family, name, shape))
    alone = [
        generate(model, each, eos_token_id=1, assistant_model=drafter, **FAMILY_SHAPES[shape]).speculation
        for each in singles
    ]
    assert sum(ours.speculation.accepted) > 0
    assert ours.speculation.acceptance_length_by_row == [each.acceptance_length for each in alone]


@pytest.mark.parametrize("rows", others_slow([1, 2, 3, 5, 8], [2, 5]))
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_row_is_as_if_it_were_alone(family, rows):
    """And permuting the rows permutes the answers."""
    model, singles = tiny.FAMILIES[family](), prompts(family, rows, seed=1)
    eos = [2, 49, 26, 97, 67]
    alone = [answers_of(generate(model, each, eos_token_id=eos), each)[0] for each in singles]
    for order in (range(rows), torch.randperm(rows, generator=torch.Generator().manual_seed(rows)).tolist()):
        own = [singles[row] for row in order]
        drafter = BatchOracle(model, singles, [answer + [7] * 18 for answer in alone])
        ours = generate(model, batch_of(own), eos_token_id=eos, assistant_model=drafter, **SHAPES["narrow"])
        longest = max(map(len, alone))
        assert answers_of(ours, batch_of(own)) == [alone[row] + [0] * (longest - len(alone[row])) for row in order]


@pytest.mark.parametrize("padded", [True, False], ids=["eos", "no eos"])
def test_criteria_see_one_row_and_one_prefix_at_a_time(padded):
    """Without an EOS criterion `generate` goes on in every row until the last one stops."""
    model, singles = tiny.llava(), prompts("llava", ROWS)
    inputs, eos = batch_of(singles), 1 if padded else None

    class ByRow(ParityCriterion):
        def __call__(self, input_ids, scores, **kwargs):
            if len(input_ids) == 1:  # ours, one row at a time
                return super().__call__(input_ids, scores)
            return input_ids[:, -6:].sum(-1) % 11 == 3

    plain = generate(model, inputs, eos_token_id=eos, stopping_criteria=StoppingCriteriaList([ByRow()]))
    lengths = {row.index(0) for row in answers_of(plain, inputs) if 0 in row}
    assert bool(lengths) == padded
    for drafter, shape in (
        (RandomDrafter(model), "wide"),
        (BatchOracle(model, singles, [row + [7] * 9 for row in answers_of(plain, inputs)]), "narrow"),
    ):
        speculate = dict(stopping_criteria=StoppingCriteriaList([ByRow()]), assistant_model=drafter, **SHAPES[shape])
        ours = generate(model, inputs, eos_token_id=eos, **speculate)
        assert ours.sequences.tolist() == plain.sequences.tolist(), shape
        assert len(ours.scores) == len(plain.scores)


def test_what_an_ended_row_has_in_the_outputs():
    """Its ids are padding; its logits are those of a certain padding token, so that its transition scores are 0."""
    model, singles = tiny.llava("eager"), prompts("llava", 3)
    inputs, wanted = batch_of(singles), dict(output_hidden_states=True, output_attentions=True)
    first = answers_of(generate(model, inputs), inputs)[1][2]
    plain = generate(model, inputs, eos_token_id=[1, first], **wanted)
    ours = generate(
        model, inputs, eos_token_id=[1, first], assistant_model=RandomDrafter(model), **SHAPES["wide"], **wanted
    )
    assert ours.sequences.tolist() == plain.sequences.tolist()
    ended = answers_of(plain, inputs)[1].index(0)
    scores = model.compute_transition_scores(ours.sequences, ours.scores, normalize_logits=True)
    assert scores.shape[1] == len(ours.scores) and (scores[1, ended:] == 0).all()
    for name in ("hidden_states", "attentions"):
        for step, (mine, theirs) in enumerate(zip(getattr(ours, name), getattr(plain, name), strict=True)):
            live = [0, 1, 2] if step < ended else [0, 2]
            for a, b in zip(mine, theirs, strict=True):
                real = inputs["attention_mask"].bool() if step == 0 else torch.ones(3, a.shape[-2]).bool()
                assert a.shape == b.shape
                a, b = (a.transpose(1, -2).flatten(2), b.transpose(1, -2).flatten(2))
                torch.testing.assert_close(a[live][real[live]], b[live][real[live]], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_several_returned_sequences(family):
    """transformers #37900: rows with 2, 0 and 1 images, repeated. Sampling from the best token alone is greedy."""
    model = tiny.FAMILIES[family]()
    singles = [tiny.PROMPTS[family](seed, images, length=3 + seed) for seed, images in ((0, 2), (1, 0), (2, 1))]
    inputs, sampling = batch_of(singles), dict(do_sample=True, top_k=1, num_return_sequences=2)
    plain = generate(model, inputs, eos_token_id=[2, 49, 26, 97], **sampling)
    greedy = answers_of(generate(model, inputs, eos_token_id=1), inputs)
    for drafter in (RandomDrafter(model), BatchOracle(model, singles, greedy)):
        ours = generate(
            model, inputs, eos_token_id=[2, 49, 26, 97], **sampling, assistant_model=drafter, **SHAPES["narrow"]
        )
        assert ours.sequences.tolist() == plain.sequences.tolist()
        spans = [[stop - start for start, stop in prompt.visual_spans] for prompt in drafter.prompts]
        assert (
            spans[:6] == [spans[0], spans[0], [], [], spans[4], spans[4]] and len(spans[0]) == 2 and len(spans[4]) == 1
        )


class StepRecorder(BaseStreamer):
    """A streamer that takes steps of a whole batch."""

    def __init__(self):
        self.steps, self.ended = [], 0

    def put(self, value):
        assert not self.ended
        self.steps.append(value.tolist())

    def end(self):
        self.ended += 1


def test_streamers_get_the_steps_of_generate():
    model, singles = tiny.llava(), prompts("llava", ROWS)
    inputs = batch_of(singles)
    streamers, kwargs = [StepRecorder(), StepRecorder()], dict(eos_token_id=[2, 49, 26, 97, 44])
    plain = model.generate(**inputs, max_new_tokens=14, do_sample=False, streamer=streamers[0], **kwargs)
    answers = plain[:, inputs["input_ids"].shape[1] :].tolist()
    drafter = BatchOracle(model, singles, [row + [7] * 14 for row in answers])
    speculate = dict(assistant_model=drafter, **SHAPES["narrow"])
    model.generate(**inputs, max_new_tokens=14, do_sample=False, streamer=streamers[1], **kwargs, **speculate)
    assert streamers[0].steps == streamers[1].steps and streamers[1].ended == 1


def test_a_text_streamer_refuses_a_batch_as_without_a_drafter():
    model, inputs = tiny.llava(), batch_of(prompts("llava", 2))
    with pytest.raises(ValueError, match="batch size 1"):
        model.generate(**inputs, max_new_tokens=4, streamer=TextStreamer(None), assistant_model=RandomDrafter(model))


def test_a_processor_that_cannot_be_copied_says_so():
    class Locked(CountingProcessor):
        def __deepcopy__(self, memo):
            raise TypeError("a lock")

    model, inputs = tiny.llava(), batch_of(prompts("llava", 2))
    with pytest.raises(ValueError, match=r"Locked cannot be copied.*__deepcopy__"):
        generate(model, inputs, logits_processor=LogitsProcessorList([Locked()]), assistant_model=RandomDrafter(model))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_embeddings_instead_of_ids(family):
    model, inputs = tiny.FAMILIES[family](), batch_of([tiny.PROMPTS[family](seed, 0, 4) for seed in range(3)])
    embeds = {
        "inputs_embeds": model.get_input_embeddings()(inputs["input_ids"]),
        "attention_mask": inputs["attention_mask"],
    }
    plain = model.generate(**embeds, max_new_tokens=9, do_sample=False)
    for shape in SHAPES.values():
        ours = model.generate(
            **embeds, max_new_tokens=9, do_sample=False, assistant_model=RandomDrafter(model), **shape
        )
        assert ours.tolist() == plain.tolist()


def test_statistics_by_row():
    model, singles = tiny.llava(), prompts("llava", 3)
    inputs = batch_of(singles)
    answers = answers_of(generate(model, inputs, eos_token_id=1), inputs)
    answers[1] = [3] * 18  # an oracle that is never right about row 1
    ours = generate(
        model, inputs, eos_token_id=1, assistant_model=BatchOracle(model, singles, answers), **SHAPES["chain"]
    )
    stats = ours.speculation
    assert stats.batch == 3 and stats.rounds == stats.row_of.count(1) == 17
    assert stats.acceptance_length_by_row[1] == 1 and min(stats.acceptance_length_by_row[::2]) > 4
    assert stats.acceptance_length == pytest.approx((3 * 18 - 3) / len(stats.accepted))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_automatic_budget(family):
    model, singles = tiny.llava(), prompts("llava", 3)
    inputs = batch_of(singles)
    taps = {"feature_layers": [0, 1]} if family == "eagle3" else {}
    drafter = FAMILIES[family][1].from_target(model, **taps)
    assert (
        generate(model, inputs, assistant_model=drafter).sequences.tolist()
        == generate(model, inputs).sequences.tolist()
    )
