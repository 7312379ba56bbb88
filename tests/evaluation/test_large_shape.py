"""The large shape's command on a small one: every forward and every round is there, and their parts add up."""

import pytest
import torch

from hf_mmspec.evaluation import large_shape

SMALL = {
    **large_shape.SEVEN_B,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 400,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]},
}


@pytest.fixture(scope="module")
def target():
    torch.manual_seed(0)
    return large_shape.counting_target(SMALL, "cpu", torch.float32)


def test_forwards_and_rounds(target):
    found = large_shape.measure(target, prefix=40, tokens=16, repetitions=1)
    assert list(found["forward_ms"]) == list(large_shape.SIZES) and found["v"][1] == 1
    for family in large_shape.DRAFTERS:
        for done, budget in zip(found[family], large_shape.BUDGETS, strict=True):
            parts = done["ms_per_round"]
            assert done["budget"] == budget and done["rounds"] <= 15 and set(parts) == {"draft", "verify", "other"}
            assert done["loop_efficiency"] == pytest.approx(parts["verify"] / sum(parts.values()))


def test_a_forward_reads_what_is_cached(target):
    """As many rows as asked for, behind the same prefix each time: the cache is cut back after each."""
    seen = []
    hook = target.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["cache"].get_seq_length()), with_kwargs=True
    )
    large_shape.forward_times(target, 24, (2, 5), repetitions=2)
    hook.remove()
    assert seen == [0, 24, 24, 24, 24]


def test_four_drafts_are_accepted(target):
    """Six rounds for 30 tokens, or seven, by the id that counting begins with; random drafters are never right."""
    split = large_shape.round_split(target, large_shape.drafter_of("eagle", target), 24, 31, large_shape.CHAIN)
    assert split["rounds"] in (6, 7) and split["acceptance_length"] == 30 / split["rounds"]
    never = large_shape.round_split(target, large_shape.drafter_of("vispec", target), 24, 31, large_shape.CHAIN)
    assert never["acceptance_length"] < 1.5


def test_the_target_counts(target):
    ids = torch.tensor([[150, 170, 120]])
    said = target.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=4)
    assert said[0, 3:].tolist() == [121, 122, 123, 124]


def test_packed_weights_count_as_well(target):
    pytest.importorskip("bitsandbytes")
    model = large_shape.packed(target, "nf4")
    assert model.is_quantized
    split = large_shape.round_split(model, large_shape.drafter_of("eagle", model), 24, 31, large_shape.CHAIN)
    assert split["rounds"] in (6, 7)


def test_compiled_rounds(target):
    found = large_shape.measure_compiled(target, 24, 16, {"backend": "eager"})
    assert found["target"][0]["acceptance_length"] > 3 and found["both"][0]["acceptance_length"] > 3
