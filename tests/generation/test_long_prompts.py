"""A long prompt costs what it must: no logits but the last position's, and no hidden states that no drafter reads."""

import gc

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hf_mmspec.modeling import Eagle3Drafter, ViSpecDrafter

from . import tiny
from .doubles import RandomDrafter
from .test_lossless_greedy import SHAPES

LENGTH = 600


class Rows(TorchDispatchMode):
    """The most rows of logits that any operation gives."""

    def __init__(self):
        super().__init__()
        self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.is_floating_point() and result.shape[-1:] == (tiny.VOCAB,):
            self.most = max(self.most, result.numel() // tiny.VOCAB)
        return result


def test_no_logits_of_the_prompt():
    """Rows of logits stay those of a tree, with the full vocabulary in target and drafter."""
    model, inputs = tiny.llava(), tiny.llava_prompt(0, images=2, length=LENGTH)
    for drafter in (ViSpecDrafter.from_target(model), Eagle3Drafter.from_target(model, feature_layers=[0, 1])):
        with Rows() as rows:
            model.generate(**inputs, assistant_model=drafter, max_new_tokens=8, **SHAPES["narrow"])
        assert 0 < rows.most <= tiny.VOCAB  # embeddings of the whole vocabulary have their own width


@pytest.mark.parametrize("layers", [None, (0, 1)])
def test_only_what_is_read_stays(layers):
    """When the drafter reads the prompt, its embeddings and the features are all that is left of the forward."""
    model, inputs = tiny.llava(num_hidden_layers=6), tiny.llava_prompt(0, images=1, length=LENGTH)
    length, found = inputs["input_ids"].shape[1], []

    class Watching(RandomDrafter):
        feature_layers = layers

        def prefill(self, prompt, *args):
            gc.collect()
            alive = [each for each in gc.get_objects() if type(each) is torch.Tensor and each.shape[:2] == (1, length)]
            found.append({each.untyped_storage().data_ptr() for each in alive if each.is_floating_point()})
            return super().prefill(prompt, *args)

    model.generate(**inputs, assistant_model=Watching(model), max_new_tokens=4, **SHAPES["chain"])
    assert len(found[0]) <= 2
