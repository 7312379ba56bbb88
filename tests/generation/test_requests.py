"""What may be asked: dispatch, wrappers, unusual inputs; and clear errors for what may not, before any work."""

import functools

import pytest
import torch
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    GenerationConfig,
    GenerationMixin,
    Llama4TextConfig,
    MllamaTextConfig,
    StoppingCriteria,
)
from transformers.generation.streamers import BaseStreamer

from hf_mmspec.generation import custom_generate, install_hook, speculative_decoding
from hf_mmspec.generation.candidates import ChainCandidateGenerator
from hf_mmspec.generation.tree_mask import LayerWindows
from hf_mmspec.modeling import FlashDrafter, ViSpecConfig, ViSpecDrafter
from hf_mmspec.modeling.binding import describe_target

from . import tiny
from .doubles import OracleDrafter, RandomDrafter
from .test_lossless_greedy import SHAPES, Recorder, assert_same, new_tokens, run


@pytest.fixture
def forbidden(monkeypatch):
    """A LLaVA on which any forward of decoder or vision tower fails the test."""
    model = tiny.llava()

    def refuse(*args, **kwargs):
        raise AssertionError("work was done before the error")

    monkeypatch.setattr(model.get_decoder(), "forward", refuse)
    monkeypatch.setattr(model.model.vision_tower, "forward", refuse)
    return model


def test_the_hook_is_idempotent_and_leaves_others_alone():
    before = GenerationMixin._assisted_decoding
    install_hook()
    assert GenerationMixin._assisted_decoding is before
    model, inputs = tiny.llama(), tiny.llava_prompt(0, images=0)
    plain = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    assisted = model.generate(**inputs, max_new_tokens=8, do_sample=False, assistant_model=tiny.llama(seed=1))
    assert assisted.tolist() == plain.tolist()


def test_a_compiled_drafter_is_a_drafter():
    model, inputs = tiny.llava(), tiny.llava_prompt(1)
    drafter = torch.compile(RandomDrafter(model))
    assert_same(run(model, inputs), run(model, inputs, assistant_model=drafter, **SHAPES["narrow"]), "compiled")


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_custom_generate_needs_no_hook(family, monkeypatch):
    monkeypatch.setattr(
        GenerationMixin, "_assisted_decoding", GenerationMixin._assisted_decoding.__mmspec_stock__, raising=True
    )
    model, inputs = tiny.FAMILIES[family](), tiny.PROMPTS[family](1, 2)
    plain = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    streamer = Recorder()
    ours = functools.partial(speculative_decoding, assistant_model=RandomDrafter(model), streamer=streamer)
    output = model.generate(**inputs, max_new_tokens=12, do_sample=False, **SHAPES["narrow"], custom_generate=ours)
    assert output.tolist() == plain.tolist()
    assert streamer.values == plain[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_chain_generator_inside_the_stock_loop(family):
    """`ChainCandidateGenerator` honours transformers' protocol for drafters that read the target's outputs."""
    model, inputs = tiny.FAMILIES[family](), tiny.PROMPTS[family](1, 2)
    plain, _ = run(model, inputs)
    drafter = OracleDrafter(model, new_tokens(plain, inputs))

    class WithOurChain(type(model)):
        def _get_candidate_generator(self, generation_config, **kwargs):
            return ChainCandidateGenerator(drafter, self, depth=4, max_length=generation_config.max_length)

    model.__class__ = WithOurChain
    calls = []
    model.get_decoder().register_forward_hook(lambda *_: calls.append(1))
    # Any other assistant leads to the stock loop; the overridden method then returns our generator.
    ours, _ = run(model, inputs, assistant_model=tiny.llama())
    assert ours.sequences.tolist() == plain.sequences.tolist()
    assert len(calls) <= 1 + -(-len(drafter.answer) // 4), "the drafts were not accepted"


def test_text_only_causal_lm():
    model, inputs = tiny.llama(), tiny.llava_prompt(0, images=0)
    expected = run(model, inputs)
    for shape in SHAPES.values():
        assert_same(expected, run(model, inputs, assistant_model=RandomDrafter(model), **shape), shape)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_inputs_embeds(family):
    """Plain `generate` takes embeddings and returns only new tokens; so do we."""
    model, inputs = tiny.FAMILIES[family](), tiny.PROMPTS[family](0, 0)
    embeds = {"inputs_embeds": model.get_input_embeddings()(inputs["input_ids"])}
    plain = model.generate(**embeds, max_new_tokens=9, do_sample=False)
    for shape in SHAPES.values():
        ours = model.generate(
            **embeds, max_new_tokens=9, do_sample=False, assistant_model=RandomDrafter(model), **shape
        )
        assert ours.tolist() == plain.tolist()


def test_chunked_prefill():
    model, inputs = tiny.llava(), tiny.llava_prompt(0, images=1)
    expected = run(model, inputs)
    drafter = OracleDrafter(model, new_tokens(expected[0], inputs))
    actual = run(model, inputs, prefill_chunk_size=7, assistant_model=drafter, **SHAPES["narrow"])
    assert_same(expected, actual, "chunks")
    assert drafter.prompts[0].features.shape[1] == inputs["input_ids"].shape[1]


def test_spans_of_adjacent_images_stay_apart():
    model, inputs = tiny.llava(), tiny.llava_prompt(1, images=2)
    drafter = RandomDrafter(model)
    run(model, inputs, assistant_model=drafter, **SHAPES["chain"])
    (a, b), (c, d) = drafter.prompts[0].visual_spans
    assert b == c and b - a == d - c == tiny.LLAVA_IMAGE_TOKENS


def test_statistics_count_what_happened():
    model, inputs = tiny.llava(), tiny.llava_prompt(1)
    plain, _ = run(model, inputs)
    answer = new_tokens(plain, inputs)
    output, _ = run(model, inputs, assistant_model=OracleDrafter(model, answer), **SHAPES["chain"])
    stats = output.speculation
    assert sum(stats.accepted) + stats.rounds + 1 == len(answer)
    assert stats.acceptance_length == pytest.approx((len(answer) - 1) / stats.rounds)
    assert set(stats.seconds) == {"prefill", "draft", "verify", "other"} and min(stats.seconds.values()) >= 0
    assert max(stats.drafted) == 4


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(num_beams=3), "num_beams=1"),
        (dict(use_cache=False), "use_cache"),
        (dict(draft_depth=-1), "depth"),
        (dict(draft_mode="forest"), "mode"),
        (dict(draft_dept=2), "draft_dept"),
        (dict(synced_gpus=True), "in step"),
    ],
)
def test_requests_that_cannot_be_served(forbidden, kwargs, message):
    with pytest.raises(ValueError, match=message):
        forbidden.generate(**tiny.llava_prompt(), max_new_tokens=4, assistant_model=RandomDrafter(forbidden), **kwargs)


def test_a_model_that_is_split_over_processes_needs_a_whole_budget(forbidden, monkeypatch):
    """Each process has a clock of its own, and all must verify the same trees."""
    model = forbidden
    monkeypatch.setattr(model, "_tp_size", 2, raising=False)
    with pytest.raises(ValueError, match="give draft_depth"):
        model.generate(**tiny.llava_prompt(0), assistant_model=RandomDrafter(model), draft_depth=2)


def test_stop_strings_of_the_model_beside_a_config_of_the_call(monkeypatch):
    """As the code in a drafter's repository is called; `generate` merges both configs."""
    model, inputs = tiny.llama(), tiny.llava_prompt(1, images=0)
    monkeypatch.setattr(model.generation_config, "stop_strings", ["x"])
    found = []

    class Finder(StoppingCriteria):
        def __init__(self, tokenizer, strings):
            found.append(strings)

        def __call__(self, input_ids, scores, **_):
            return torch.zeros(len(input_ids), dtype=torch.bool)

    monkeypatch.setattr(custom_generate, "StopStringCriteria", Finder)
    config = GenerationConfig(max_new_tokens=3, do_sample=False, eos_token_id=1)
    options = dict(generation_config=config, tokenizer=object(), draft_depth=2)
    out = custom_generate.generate(model, RandomDrafter(model), **inputs, **options)
    assert out.shape[1] == inputs["input_ids"].shape[1] + 3 and found == [["x"]]


class Reader(BaseStreamer):
    def __init__(self):
        self.ends = 0

    def put(self, value):
        pass

    def end(self):
        self.ends += 1


def test_a_streamer_ends_once_whatever_happens():
    """ms-swift #10133: its reader, in another thread, would wait for ever."""
    model, inputs = tiny.llava(), tiny.llava_prompt(1)
    drafter, fine, broken = RandomDrafter(model), Reader(), Reader()
    request = dict(**inputs, max_new_tokens=6, do_sample=False, assistant_model=drafter, **SHAPES["narrow"])
    model.generate(**request, streamer=fine)
    drafter.propose = lambda *_, **__: 1 / 0
    with pytest.raises(ZeroDivisionError):
        model.generate(**request, streamer=broken)
    assert fine.ends == broken.ends == 1


def test_an_image_placeholder_without_pixels(forbidden):
    inputs = tiny.llava_prompt()
    del inputs["pixel_values"]
    with pytest.raises(ValueError, match="no image was given"):
        forbidden.generate(**inputs, max_new_tokens=4, assistant_model=RandomDrafter(forbidden))


def test_attention_that_is_biased_by_distance_is_refused():
    sizes = dict(vocab_size=tiny.VOCAB, hidden_size=tiny.HIDDEN, num_hidden_layers=2, num_attention_heads=4)
    model = FalconForCausalLM(FalconConfig(**sizes, alibi=True)).eval()
    with pytest.raises(ValueError, match="alibi"):
        model.generate(input_ids=torch.tensor([[1, 5]]), max_new_tokens=2, assistant_model=RandomDrafter(model))


def test_attention_in_chunks_is_refused():
    text = dict(num_hidden_layers=2, layer_types=["chunked_attention", "full_attention"], attention_chunk_size=8)
    with pytest.raises(ValueError, match="chunked_attention"):
        LayerWindows.of(Llama4TextConfig(**text))


def test_layers_that_attend_to_images_are_refused():
    with pytest.raises(ValueError, match="Mllama"):
        LayerWindows.of(MllamaTextConfig(num_hidden_layers=2, cross_attention_layers=[1]))


@pytest.mark.parametrize("own_head", [False, True], ids=["target's head", "own head"])
@pytest.mark.parametrize("shape", ["narrow", "chain"])
@pytest.mark.parametrize("sampled", [False, True], ids=["greedy", "sampled"])
def test_a_drafter_of_another_padding(own_head, shape, sampled):
    """transformers #45307: only the padded sizes differ. Rows of padding are never drafted, whatever their logits."""
    target, inputs = tiny.llava(), tiny.llava_prompt(1)
    size = target.config.get_text_config().vocab_size
    fields = {"vocab_size": size + 8, "real_vocab_size": size - 2}
    if own_head:
        fields["draft_vocab_size"] = size + 8
    drafter = ViSpecDrafter(ViSpecConfig(**{**describe_target(target), **fields})).eval()
    if own_head:
        torch.nn.init.normal_(drafter.lm_head.weight)
        drafter.lm_head.weight.data[size - 2 :] *= 100  # these would always be drafted
    options = {"max_new_tokens": 12, "do_sample": sampled}
    drafted, propose = [], drafter.propose

    def note(*arguments, **named):
        tree = propose(*arguments, **named)
        drafted.extend(tree.tokens[1:].tolist())
        return tree

    drafter.propose = note
    torch.manual_seed(0)
    plain = target.generate(**inputs, **options)
    torch.manual_seed(0)
    ours = target.generate(**inputs, **options, assistant_model=drafter, **SHAPES[shape])
    assert drafted and max(drafted) < size - 2
    if not (sampled and shape == "chain"):  # which draws other random numbers
        assert torch.equal(ours, plain)


def test_an_empty_prompt(forbidden):
    empty = {"input_ids": torch.zeros(1, 0, dtype=torch.long), "attention_mask": torch.zeros(1, 0, dtype=torch.long)}
    with pytest.raises(ValueError):
        forbidden.generate(**empty, max_new_tokens=4, assistant_model=RandomDrafter(forbidden))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (lambda mask: torch.cat([mask, mask], dim=1), "columns for a prompt of"),
        (lambda mask: mask[:, 1:], "columns for a prompt of"),
        (lambda mask: mask * 0, "hides all tokens of a row"),
    ],
)
def test_a_mask_that_does_not_fit(mask, message):
    model, inputs = tiny.llava(), tiny.llava_prompt(1)
    inputs["attention_mask"] = mask(inputs["attention_mask"])
    with pytest.raises(ValueError, match=message):
        model.generate(**inputs, max_new_tokens=4, assistant_model=RandomDrafter(model))


def test_a_drafter_whose_weights_were_not_loaded(forbidden):
    drafter = ViSpecDrafter.from_target(tiny.llava()).to("meta")
    without_hook = functools.partial(speculative_decoding, assistant_model=drafter)
    # `generate` hands over to a custom function only when pictures are encoded
    for images, way in ((1, {"assistant_model": drafter}), (0, {"custom_generate": without_hook})):
        with pytest.raises(ValueError, match="meta device"):
            forbidden.generate(**tiny.llava_prompt(1, images=images), max_new_tokens=4, **way)


def test_dropout_takes_no_random_numbers_of_a_drawn_answer(forbidden):
    drafter = FlashDrafter.from_target(tiny.llava()).train()
    with pytest.raises(ValueError, match=r"drafter.eval\(\)"):
        forbidden.generate(**tiny.llava_prompt(1), max_new_tokens=4, do_sample=True, assistant_model=drafter)


def test_what_processors_and_criteria_return_is_checked():
    model, inputs = tiny.llava(), tiny.llava_prompt(1)
    arguments = dict(**inputs, max_new_tokens=4, assistant_model=RandomDrafter(model))
    with pytest.raises(TypeError, match="processor returned None"):
        model.generate(**arguments, logits_processor=[lambda ids, scores: None])
    with pytest.raises(ValueError, match="one bool for each row"):
        model.generate(**arguments, stopping_criteria=[lambda ids, scores: torch.zeros(3, dtype=torch.bool)])


def test_a_drafter_without_any_weights_has_an_automatic_budget():
    """Which is kept by what decides speed, as far as there is any of it."""
    model, inputs = tiny.llava(), tiny.llava_prompt(1)
    assert_same(run(model, inputs), run(model, inputs, assistant_model=RandomDrafter(model)), "automatic")
