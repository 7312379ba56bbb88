"""What the drafter reads of the target: the request's own rows and nothing else, whoever runs the model meanwhile."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import torch

from hf_mmspec.generation.capture import capture
from hf_mmspec.modeling import Eagle3Drafter

from . import tiny
from .doubles import RandomDrafter
from .test_lossless_greedy import SHAPES, assert_same, run


class Reader(RandomDrafter):
    """Collects the features of the accepted rows."""

    def __init__(self, target):
        super().__init__(target)
        self.features = []

    def extend(self, state, features, next_tokens):
        super().extend(state, features, next_tokens)
        self.features.append(features)


def test_forwards_of_a_logits_processor_are_not_read():
    """Classifier-free guidance runs the target once more for every token."""
    model, inputs = tiny.llava(), tiny.llava_prompt(1)
    drafter, guided = Reader(model), dict(guidance_scale=1.5, eos_token_id=1)
    actual = run(model, inputs, assistant_model=drafter, **guided, **SHAPES["narrow"])
    assert_same(run(model, inputs, **guided), actual, "guidance")
    with torch.no_grad():
        states = model(
            **inputs | {"input_ids": actual[0].sequences, "attention_mask": None}, output_hidden_states=True
        )
    rows, first = torch.cat(drafter.features, dim=1), inputs["input_ids"].shape[1]
    torch.testing.assert_close(rows, states.hidden_states[-1][:, first : first + rows.shape[1]], atol=1e-4, rtol=1e-4)


def test_two_requests_at_once():
    """One model and one drafter in several threads: nobody reads or breaks the rows of the others."""
    model = tiny.llava()
    drafter = Eagle3Drafter.from_target(model, feature_layers=[0, 1], initializer_range=0.3)
    prompts = [tiny.llava_prompt(seed, seed % 3) for seed in range(4)]
    expected = [run(model, inputs, eos_token_id=1) for inputs in prompts]
    with ThreadPoolExecutor(4) as pool:
        speculate = dict(eos_token_id=1, assistant_model=drafter, **SHAPES["narrow"])
        futures = [pool.submit(run, model, inputs, **speculate) for inputs in prompts * 3]
    for future, alone in zip(futures, expected * 3, strict=True):
        assert_same(alone, future.result(), "threads")


@pytest.mark.parametrize("taps", [None, (0, 1)])
def test_hooks_that_go_while_another_thread_is_inside_the_model(taps):
    """torch calls a hook that was removed between two others without the arguments it was registered for."""
    model = tiny.llama()
    decoder, others = model.get_decoder(), ExitStack()
    first = decoder.register_forward_pre_hook(lambda *_: others.close())
    others.enter_context(capture(decoder, taps))
    try:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(model, input_ids=torch.tensor([[1, 5, 7]])).result()
    finally:
        first.remove()


def test_states_of_an_answer_do_not_keep_the_trees_alive():
    model, inputs = tiny.llava(), tiny.llava_prompt(1)
    wanted = dict(output_hidden_states=True, eos_token_id=1)
    output, _ = run(model, inputs, assistant_model=RandomDrafter(model), **wanted, **SHAPES["wide"])
    for step in output.hidden_states[1:]:
        assert all(layer.untyped_storage().nbytes() == layer.nbytes for layer in step)
