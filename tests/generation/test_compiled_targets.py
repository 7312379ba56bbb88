"""Compiled targets: the tokens and features of uncompiled ones, and few compiled graphs."""

import pytest
import torch
from torch._dynamo.utils import counters
from transformers import CompileConfig

from hf_mmspec.generation import compiled_target
from hf_mmspec.generation.capture import capture
from hf_mmspec.generation.controller import FixedPlan
from hf_mmspec.generation.fixed_cache import FixedTreeCache
from hf_mmspec.generation.uncompiled import hooks_outside, is_compiled, uncompiled
from hf_mmspec.modeling import Eagle3Drafter, ViSpecDrafter
from hf_mmspec.modeling.fixed_rows import round_up
from tests.families.windows import FAMILIES as WINDOWED
from tests.slow_parameters import others_slow, slow

from . import tiny
from .compiling import (
    EAGER,
    compile_decoder,
    compile_forward,
    compile_layers,
    forgetting_graphs,
    graphs,
    wrap_decoder,
)
from .doubles import OracleDrafter, RandomDrafter
from .test_lossless_greedy import SHAPES, assert_same, new_tokens, run


@pytest.fixture(autouse=True)
def fresh_dynamo():
    yield from forgetting_graphs()


def drafters_of(model):
    torch.manual_seed(0)
    vispec = ViSpecDrafter.from_target(model, initializer_range=0.3)
    eagle3 = [Eagle3Drafter.from_target(model, feature_layers=f, initializer_range=0.3) for f in ([0, 1], [1])]
    return vispec, *eagle3, vispec


# name -> family, how, options
TARGETS = {
    "forward": ("llava", compile_forward, {"fullgraph": True}),
    "model.compile": ("qwen", lambda model, **options: model.compile(**options), {}),
    "decoder.compile": ("qwen", compile_decoder, {"dynamic": False}),
    "wrapped decoder": ("llava", wrap_decoder, {}),
    "layers": ("llava", compile_layers, {}),
}
OTHERS = ("model.compile", "wrapped decoder")


@pytest.mark.parametrize("name", others_slow(TARGETS, [name for name in TARGETS if name not in OTHERS]))
def test_several_drafters_on_one_compiled_model(name):
    """pytorch #117758: ViSpec, EAGLE-3 with two sets of layers, ViSpec again."""
    check_drafters(name, count=4)


@pytest.mark.parametrize("name", OTHERS)
def test_a_drafter_on_a_model_compiled_in_another_way(name):
    check_drafters(name, count=1)


def check_drafters(name, count):
    """So many of them: each reads what it would read uncompiled, so it drafts the same. The first request leaves
    compiled graphs without any drafter."""
    family, how, options = TARGETS[name]
    plain, model = tiny.FAMILIES[family](), tiny.FAMILIES[family]()
    how(model, **EAGER, **options)
    run(model, tiny.PROMPTS[family](9), max_new_tokens=2)
    counters.clear()
    for index, drafter in enumerate(drafters_of(plain)[:count]):
        inputs = tiny.PROMPTS[family](index, index % 3)
        shape = SHAPES["chain" if index == 2 else "narrow"]
        expected = run(plain, inputs)
        uncompiled_run = run(plain, inputs, assistant_model=drafter, **shape)
        actual = run(model, inputs, assistant_model=drafter, **shape)
        assert_same(expected, actual, index)
        assert actual[0].speculation.accepted == uncompiled_run[0].speculation.accepted
        assert actual[0].speculation.drafted == uncompiled_run[0].speculation.drafted
    layers = 2 if how is compile_layers else 1
    assert 0 < graphs() <= 3 * layers  # 1, 8 and 16 nodes
    assert not counters["graph_break"]


def test_states_and_attentions_of_a_compiled_target():
    """What the caller asks for has the tree's rows only, and nobody gets states that were not asked for."""
    model, inputs = tiny.llava("eager"), tiny.llava_prompt(1)
    wanted = dict(output_hidden_states=True, output_attentions=True, eos_token_id=1)
    expected, bare = run(model, inputs, **wanted), run(model, inputs, eos_token_id=1)
    compile_forward(model, **EAGER)
    drafter = OracleDrafter(model, new_tokens(expected[0], inputs))
    output, _ = run(model, inputs, assistant_model=drafter, **wanted, **SHAPES["narrow"])
    for name in ("hidden_states", "attentions"):
        for ours, theirs in zip(getattr(output, name), getattr(expected[0], name), strict=True):
            for mine, other in zip(ours, theirs, strict=True):
                torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)
    output, _ = run(model, inputs, assistant_model=drafter, eos_token_id=1, **SHAPES["narrow"])
    assert output.hidden_states is None and output.sequences.tolist() == bare[0].sequences.tolist()


@pytest.mark.parametrize("attention", ["sdpa", slow("eager")])
def test_windows_padding_and_a_cache_that_grows(attention, monkeypatch):
    """Masks as wide as the cache: sliding windows, left padding, and more rows than there was room for."""
    monkeypatch.setattr("hf_mmspec.generation.target._FIRST_GUESS_OF_NEW_TOKENS", 1)
    monkeypatch.setattr("hf_mmspec.generation.fixed_cache._SMALLEST", 8)
    plain, model = tiny.sliding_llava(attention, window=8), tiny.sliding_llava(attention, window=8)
    compile_forward(model, **EAGER)
    inputs = tiny.llava_prompt(5, 1)
    for name in ("input_ids", "attention_mask"):
        inputs[name] = torch.nn.functional.pad(inputs[name], (3, 0), value=0)
    expected = run(plain, inputs, max_new_tokens=40, eos_token_id=1)
    drafter = OracleDrafter(plain, new_tokens(expected[0], inputs))
    for shape in ("narrow", "wide"):
        request = dict(max_new_tokens=40, eos_token_id=1, assistant_model=drafter, **SHAPES[shape])
        assert_same(expected, run(model, inputs, **request), shape)


def test_what_generate_would_compile_is_compiled():
    """A static cache with a `compile_config`: transformers compiles the forward then, and so do we; without one, on a
    processor, nobody does."""
    model, inputs = tiny.llava(), tiny.llava_prompt(1)
    expected = run(model, inputs)
    config = CompileConfig(**EAGER, mode=None)
    config._compile_all_devices = True
    drafter = OracleDrafter(model, new_tokens(expected[0], inputs))
    for options, compiles in (({}, False), ({"prefill_chunk_size": 8}, False), ({"compile_config": config}, True)):
        kwargs = dict(cache_implementation="static", assistant_model=drafter, **options, **SHAPES["narrow"])
        output, _ = run(model, inputs, **kwargs)
        assert output.sequences.tolist() == expected[0].sequences.tolist()
        assert (graphs() > 0) is compiles


def test_rounds_that_compile_teach_no_costs(monkeypatch):
    """Their seconds would be kept, and drafting would seem to take a second a level from then on."""
    learned = []
    monkeypatch.setattr(FixedPlan, "learn", lambda plan, round_: learned.append(round_))
    model, inputs = tiny.llava(), tiny.llava_prompt(1)
    drafter = ViSpecDrafter.from_target(model)
    compile_forward(model, **EAGER)
    missing, made = [], []
    for _ in range(3):
        before, count = graphs(), len(learned)
        output, _ = run(model, inputs, assistant_model=drafter, **SHAPES["narrow"])
        missing.append(output.speculation.rounds - (len(learned) - count))
        made.append(graphs() - before)
    assert missing[0] > 0 and missing[-1] == 0
    assert [count > 0 for count in missing] == [count > 0 for count in made]


def test_measuring_costs_compiles_nothing():
    """The automatic budget: only rounds compile."""
    model, inputs = tiny.llava(), tiny.llava_prompt(1)
    expected = run(model, inputs)
    compile_decoder(model, **EAGER)
    drafter = ViSpecDrafter.from_target(tiny.llava(), initializer_range=0.3)
    assert_same(expected, run(model, inputs, assistant_model=drafter), "automatic budget")
    assert graphs() <= len(compiled_target.SIZES)


@pytest.mark.parametrize("how", [compile_forward, compile_decoder, wrap_decoder, compile_layers])
def test_an_uncompiled_view_shares_weights_and_no_hooks(how):
    model = tiny.llava()
    names = [name for name, _ in model.named_parameters()]
    pointers = [p.data_ptr() for p in model.parameters()]
    how(model, backend="eager")
    view = uncompiled(model)
    assert not any(is_compiled(module) for module in view.modules())
    assert [name for name, _ in view.named_parameters()] == names
    assert [p.data_ptr() for p in view.parameters()] == pointers
    assert any(is_compiled(module) for module in model.modules())
    with capture(view.get_decoder(), [0, 1]) as captured:
        assert not model.get_decoder()._forward_hooks and not model.get_decoder().layers[0]._forward_pre_hooks
        with captured.listening(), torch.no_grad():
            view(input_ids=torch.tensor([[1, 5, 7]]))
        assert captured.features.shape == (1, 3, 2 * tiny.HIDDEN)
    assert graphs() == 0


def test_a_view_with_hooks_outside_runs_what_is_compiled():
    model = tiny.llava()
    compile_layers(model, backend="eager")
    ids = torch.tensor([[1, 5, 7]])
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        compiled_once = graphs()
        view = hooks_outside(model)
        with capture(view.get_decoder(), [1]) as captured, captured.listening():
            logits = view(input_ids=ids).logits
            assert captured.features.shape == (1, 3, tiny.HIDDEN)
    torch.testing.assert_close(logits, expected)
    assert graphs() == compiled_once > 0


@pytest.mark.parametrize("how", [compile_forward, compile_layers])
def test_a_family_that_takes_one_mask_for_layers_of_several_kinds(how):
    """PaliGemma 2 builds its decoder's masks itself: compiled, nobody could hand it those of a tree."""
    family = WINDOWED["PaliGemma 2"]
    plain, model = family.model(), family.model()
    how(model, **EAGER)
    inputs = family.prompts(plain)[0]
    expected = run(plain, inputs, max_new_tokens=30, eos_token_id=1)
    drafter = OracleDrafter(plain, new_tokens(expected[0], inputs))
    actual = run(model, inputs, max_new_tokens=30, eos_token_id=1, assistant_model=drafter, **SHAPES["narrow"])
    assert_same(expected, actual, "PaliGemma 2")
    assert actual[0].speculation.acceptance_length > 2


def test_a_compiled_vision_tower_alone_changes_nothing():
    model, inputs = tiny.llava(), tiny.llava_prompt(1)
    expected = run(model, inputs)
    model.model.vision_tower.compile(**EAGER)
    assert_same(expected, run(model, inputs, assistant_model=RandomDrafter(model), **SHAPES["wide"]), "vision")


def test_a_decoder_that_hides_from_its_hooks_is_refused():
    with capture(tiny.llama().get_decoder(), None) as captured, pytest.raises(ValueError, match="without its hooks"):
        captured.features  # noqa: B018


def test_sizes():
    sizes = [round_up(n, compiled_target.SIZES) for n in (1, 2, 8, 9, 30, 64, 65, 129)]
    assert sizes == [1, 8, 8, 16, 32, 64, 128, 192]


def test_a_fixed_cache_writes_where_it_is_told_and_holds_no_garbage():
    cache, generator = FixedTreeCache(num_layers=2, capacity=200), torch.Generator().manual_seed(0)
    rows = torch.randn(1, 2, 250, 4, generator=generator)
    for layer in range(2):
        cache.update(rows, -rows, layer)
    assert cache.capacity == 256 and cache.get_seq_length() == 250
    cache.open_at(250, 8)  # two rows too many
    assert cache.capacity == 512
    more = torch.randn(1, 2, 8, 4, generator=generator)
    for layer in range(2):
        keys, values = cache.update(more, -more, layer)
    assert keys.shape[2] == 512 and int(cache.get_seq_length()) == 250
    torch.testing.assert_close(keys[:, :, :258], torch.cat([rows, more], dim=2))
    assert not values[:, :, 258:].any()
    cache.keep([250], [[0, 3]])
    assert cache.layers[0].length == 252
    torch.testing.assert_close(cache.layers[1].keys[:, :, 250:252], more[:, :, [0, 3]])


@pytest.mark.slow
def test_inductor_with_changing_draft_lengths():
    """vllm #53366: another number of drafts must not meet the graph of an earlier one."""
    model, inputs = tiny.llava(), tiny.llava_prompt(1)
    expected = run(model, inputs)
    drafter = OracleDrafter(model, new_tokens(expected[0], inputs))
    compile_forward(model)
    for depth in (3, 5, 7, 9):
        budget = dict(draft_mode="chain", draft_depth=depth, draft_top_k=1, draft_total_tokens=depth + 1)
        output, _ = run(model, inputs, assistant_model=drafter, **budget)
        assert output.sequences.tolist() == expected[0].sequences.tolist()
    vispec = ViSpecDrafter.from_target(tiny.llava(), initializer_range=0.3)
    vispec.compile()
    output, _ = run(model, inputs, assistant_model=vispec, **SHAPES["narrow"])
    assert output.sequences.tolist() == expected[0].sequences.tolist()
