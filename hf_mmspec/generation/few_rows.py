"""A view of a float32 target that multiplies a few rows in the order that this machine's library does faster.

Verifying a tree multiplies every weight with 4 to 32 rows. On two threads MKL's float32 product takes up to twice as
long for `x W^T` as for `(W x^T)^T`, which is the same. Which is faster is measured on the target's own layers, once
per machine. Knows nothing of trees or drafters.
"""

import time
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel

from .cost_cache import Measured, fingerprints, remembered
from .steadiness import take_turns
from .uncompiled import is_compiled, with_classes

SIZES = (16, 8, 32, 4)  # rows that are timed, the important ones first
_LAYERS = 40  # of the target, so that weights come from memory as in a forward
_LEAST_WEIGHTS = 1_000_000  # of all layers; products of smaller ones are over before the order matters
_REPETITIONS = 3
_TIME_LIMIT = 0.5  # seconds; after these only what was not timed yet
_WORTH_IT = 0.9  # of the usual time


class FewRowsLinear(nn.Linear):
    """`nn.Linear` that multiplies as many rows as are in `few` the other way round."""

    few: range

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(..., in_features)` to `(..., out_features)`."""
        rows = x.numel() // self.in_features
        if rows not in self.few:
            return super().forward(x)
        return transposed_product(x, self.weight, self.bias)


def transposed_product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """`nn.functional.linear`, computed as `(weight x^T)^T`."""
    product = torch.mm(weight, x.reshape(-1, x.shape[-1]).t()).t().contiguous()
    product = product.view(*x.shape[:-1], len(weight))
    return product if bias is None else product + bias


def fast_for_few_rows(model: PreTrainedModel) -> PreTrainedModel:
    """A view of `model` that shares its weights and multiplies `rows_to_turn` the other way round; the model itself
    where these are none."""
    few = rows_to_turn(model)
    if not few:
        return model
    layers = _layers_of(model)
    view = with_classes(model, dict.fromkeys(layers, FewRowsLinear))
    for layer in view.modules():
        if isinstance(layer, FewRowsLinear):
            layer.__dict__["few"] = few
    return view


def rows_to_turn(model: PreTrainedModel) -> range:
    """For how many rows the transposed product is faster: none on an accelerator, in half precision, with layers that
    are small, packed, compiled or patched, or where this machine was measured to do as well without."""
    if model.device.type != "cpu" or model.dtype != torch.float32:
        return range(0)
    # A forward of a module's own (accelerate's hooks, a user's patch) holds on to modules that no view replaces.
    if any("forward" in each.__dict__ or is_compiled(each) for each in model.modules()):
        return range(0)
    layers = _layers_of(model)
    if sum(layer.weight.numel() for layer in layers) < _LEAST_WEIGHTS:
        return range(0)
    shares = remembered(fingerprints(model)[0] + "-rows", partial(_measure, layers[:_LAYERS]), SIZES).numbers
    faster = [size for size in SIZES if shares[size] < _WORTH_IT]
    return range(min(faster), max(faster) + 1) if faster else range(0)


def _layers_of(model: PreTrainedModel) -> list[nn.Linear]:
    """The plain float32 linear layers of the text decoder, and the head."""
    modules = [*model.get_decoder().modules(), model.get_output_embeddings()]
    return [each for each in modules if type(each) is nn.Linear and each.weight.dtype == torch.float32]


@torch.no_grad()
def _measure(layers: list[nn.Linear]) -> Measured:
    """The transposed product's share of the usual one's seconds, by rows."""
    inputs = {size: [torch.ones(1, size, layer.in_features) for layer in layers] for size in SIZES}

    def usual(size: int) -> None:
        for x, layer in zip(inputs[size], layers, strict=True):
            nn.functional.linear(x, layer.weight)

    def turned(size: int) -> None:
        for x, layer in zip(inputs[size], layers, strict=True):
            transposed_product(x, layer.weight, None)

    runs = {(way.__name__, size): partial(way, size) for size in SIZES for way in (usual, turned)}
    deadline = time.perf_counter() + _TIME_LIMIT

    def is_wanted(repetition: int, position: int, name: object) -> bool:
        return repetition == 0 or time.perf_counter() < deadline

    timings = take_turns(runs, layers[0].weight.device, _REPETITIONS, is_wanted)
    least = timings.minima()
    return Measured({size: least["turned", size] / least["usual", size] for size in SIZES}, timings.is_steady)
