"""A view of a float32 target or drafter that multiplies a few rows in the way that this machine does fastest.

A tree is verified with 4 to 32 rows, and its levels are drafted with up to 10. For so few MKL's usual product may take
much longer than the transposed one, `(W x^T)^T`, or than one with reordered weights. Which is fastest is measured on
the model's own layers, once per machine. Knows nothing of trees.
"""

import time
from collections.abc import Mapping
from functools import partial
from typing import Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_mmspec.modeling.packed_weights import readable_weight

from .cost_cache import Measured, fingerprints, remembered
from .reordered_weights import ReorderedWeight, size_for, sizes_with_room
from .steadiness import take_turns
from .uncompiled import is_compiled, modules_of, with_classes

Way = Literal["turned", "reordered"]
SIZES = (16, 8, 32, 4)  # rows that are timed, the important ones first
_LAYERS = 20  # besides the last one, the head; so many that a target's weights come from memory as in a forward
_LEAST_WEIGHTS = 1_000_000  # of all layers; products of smaller ones are over before the way matters
_REPETITIONS = 3
_TIME_LIMIT = 0.6  # seconds; after these only what was not timed yet
_WORTH_IT = 0.9  # of the usual time
_NO_WAYS: Mapping[int, Way] = {}


class FewRowsLinear(nn.Linear):
    """`nn.Linear` that multiplies as many rows as are in `ways` in that way. Lives as long as a request."""

    ways: Mapping[int, Way]
    reordered: dict[int, ReorderedWeight]  # by size, as they were needed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(..., in_features)` to `(..., out_features)`."""
        rows = x.numel() // self.in_features
        way = self.ways.get(rows)
        if way is None or x.dtype != torch.float32 or torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        if way == "turned":
            return transposed_product(x, self.weight, self.bias)
        size = size_for(rows)
        if size not in self.reordered:
            self.reordered[size] = ReorderedWeight(self.weight, size)
        return self.reordered[size].product(x, self.bias)


def transposed_product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """`nn.functional.linear`, computed as `(weight x^T)^T`."""
    product = torch.mm(weight, x.reshape(-1, x.shape[-1]).t()).t().contiguous()
    product = product.view(*x.shape[:-1], len(weight))
    return product if bias is None else product + bias


def fast_for_few_rows(model: PreTrainedModel) -> PreTrainedModel:
    """A view of `model` that shares its weights and multiplies few rows in `ways_of(model)`; the model itself where
    there are none, or where it is such a view."""
    ways = _NO_WAYS if ways_in(model) else ways_of(model)
    if not ways:
        return model
    view = with_classes(model, dict.fromkeys(_layers_of(model), FewRowsLinear))
    for layer in modules_of(view):
        if isinstance(layer, FewRowsLinear):
            layer.__dict__.update(ways=ways, reordered={})
    return view


def ways_in(view: PreTrainedModel) -> Mapping[int, Way]:
    """The ways of a view; none where it is the model itself."""
    return next((each.ways for each in modules_of(view) if isinstance(each, FewRowsLinear)), _NO_WAYS)


def ways_of(model: PreTrainedModel) -> Mapping[int, Way]:
    """For each number of rows another way than the usual one, if it is faster: none on an accelerator, in half
    precision, with layers that are small, packed, compiled or patched, or where this machine does as well without."""
    layers = _layers_of(model)
    if not layers or sum(layer.weight.numel() for layer in layers) < _LEAST_WEIGHTS:
        return _NO_WAYS
    # A forward of a module's own (accelerate's hooks, a user's patch) holds on to modules that no view replaces.
    if any("forward" in each.__dict__ or is_compiled(each) for each in modules_of(model)):
        return _NO_WAYS
    key, timed = fingerprints(model)[0], [*layers[:-1][:_LAYERS], layers[-1]]
    possible: dict[Way, tuple[int, ...]] = {"turned": SIZES, "reordered": _sizes_to_reorder(layers)}
    shares: dict[tuple[int, Way], float] = {}
    for way, sizes in possible.items():
        if sizes:
            known = remembered(f"{key}-share-{way}", partial(_measure, timed, way, sizes), sizes)
            shares |= {(size, way): known.numbers[size] for size in sizes}
    return _fastest(shares)


def _fastest(shares: Mapping[tuple[int, Way], float]) -> Mapping[int, Way]:
    """By rows; numbers between those that were timed are taken as the next larger one."""
    ways: dict[int, Way] = {}
    before = min(SIZES) - 1
    for size in sorted(SIZES):
        share, way = min((share, way) for (timed, way), share in shares.items() if timed == size)
        if share < _WORTH_IT:
            ways |= dict.fromkeys(range(before + 1, size + 1), way)
        before = size
    return ways


def _layers_of(model: PreTrainedModel) -> list[nn.Linear]:
    """The plain linear layers of a drafter, or of a target's decoder and its head, in float32 on a processor, each
    once. torchao packs weights of such layers and leaves their class and dtype as they are."""
    head = model.get_output_embeddings()
    parts = [model] if head is None else [model.get_decoder(), head]
    modules = dict.fromkeys(module for part in parts for module in modules_of(part) if type(module) is nn.Linear)
    weights = {module: readable_weight(module) for module in modules}
    return [
        module
        for module, weight in weights.items()
        if weight is not None and weight.dtype == torch.float32 and weight.device.type == "cpu"
    ]


def _sizes_to_reorder(layers: list[nn.Linear]) -> tuple[int, ...]:
    most = max(sizes_with_room([layer.weight for layer in layers]), default=0)
    return tuple(size for size in SIZES if size <= most)


@torch.no_grad()
@torch.autocast("cpu", enabled=False)  # what is timed is kept for requests without
def _measure(layers: list[nn.Linear], way: Way, sizes: tuple[int, ...]) -> Measured:
    """The share of the usual product's seconds that `way` takes, by rows."""
    inputs = {size: [torch.ones(1, size, layer.in_features) for layer in layers] for size in sizes}
    other: list[nn.Linear] = [_in_one_way(layer, way, sizes) for layer in layers]

    def multiply(layers: list[nn.Linear], size: int) -> None:
        for x, layer in zip(inputs[size], layers, strict=True):
            layer.forward(x)  # hooks are of a user's requests

    runs = {
        (name, size): partial(multiply, timed, size)
        for size in sizes
        for name, timed in (("usual", layers), (way, other))
    }
    deadline = time.perf_counter() + _TIME_LIMIT

    def is_wanted(repetition: int, position: int, name: object) -> bool:
        return repetition == 0 or time.perf_counter() < deadline

    timings = take_turns(runs, layers[0].weight.device, _REPETITIONS, is_wanted)
    least = timings.minima()
    return Measured({size: least[way, size] / least["usual", size] for size in sizes}, timings.had_processor)


def _in_one_way(layer: nn.Linear, way: Way, sizes: tuple[int, ...]) -> nn.Linear:
    """The layer with these numbers of rows in that way. Its weight is an object of its own, so that what is reordered
    for the measurement goes with it."""
    twin: FewRowsLinear = object.__new__(FewRowsLinear)
    twin.__dict__ = {**layer.__dict__, "ways": dict.fromkeys(sizes, way), "reordered": {}}
    twin.__dict__["_parameters"] = {**layer._parameters, "weight": layer.weight.detach()}
    for size in sizes:
        twin.forward(torch.ones(1, size, layer.in_features))  # reordering is no part of a product
    return twin
