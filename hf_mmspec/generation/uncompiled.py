"""Tells which modules are compiled, and gives views of a model: none compiled, hooks outside, some of another class.

Knows how `torch.compile` leaves its marks on modules and nothing about requests or drafters. A view shares weights and
buffers with its model and nothing else: hooks on it are its own, and the model never sees them.
"""

import sys
from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any

from torch import nn
from transformers import PreTrainedModel


def is_compiled(module: nn.Module) -> bool:
    """By `torch.compile(module)`, `module.compile()` or `module.forward = torch.compile(module.forward)`."""
    forward = module.__dict__.get("forward")
    return hasattr(module, "_orig_mod") or module._compiled_call_impl is not None or _is_compiled_function(forward)


def graphs_so_far() -> int:
    """How many graphs Dynamo has made in this process."""
    dynamo = sys.modules.get("torch._dynamo.utils")  # where it was never loaded it has made none
    return 0 if dynamo is None else dynamo.counters["stats"]["unique_graphs"]


def modules_of(model: nn.Module) -> list[nn.Module]:
    """Those of `model.modules()`, without its generators within generators: requests wait for it."""
    found: dict[int, nn.Module] = {}
    waiting = [model]
    while waiting:
        module = waiting.pop()
        if id(module) not in found:
            found[id(module)] = module
            waiting.extend(child for child in reversed(module._modules.values()) if child is not None)
    return list(found.values())


def path_to(module: nn.Module, below: nn.Module) -> list[nn.Module]:
    """The modules from `module` down to `below`, both included; empty where it is not below."""
    if module is below:
        return [module]
    for child in module.children():
        if rest := path_to(child, below):
            return [module, *rest]
    return []


def uncompiled(model: PreTrainedModel) -> PreTrainedModel:
    """A view in which nothing is compiled."""
    return _view(model, {}, _original)


def hooks_outside(model: PreTrainedModel) -> PreTrainedModel:
    """A view that runs the model's compiled modules, with each of them in a shell: Dynamo ignores hooks that come
    after a module's first compiled run and keeps earlier ones for good, but those of a shell it never meets."""
    return _view(model, {}, lambda module: _Shell(module) if is_compiled(module) else module)


def with_classes(model: PreTrainedModel, classes: Mapping[nn.Module, type]) -> PreTrainedModel:
    """A view of an uncompiled model in which the modules that are keys have the classes that are their values. What
    contains none of them is the model's own."""
    return _with_classes(model, {}, classes)


class _Shell(nn.Module):
    """Calls a compiled module and has its attributes."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.__dict__["inner"] = inner

    def forward(self, *args, **kwargs):
        return self.__dict__["inner"](*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)


def _original(module: Any) -> nn.Module:
    while hasattr(module, "_orig_mod"):
        module = module._orig_mod
    return module


def _view(module: Any, done: dict[int, Any], replace: Callable[[nn.Module], nn.Module]) -> Any:
    module = replace(module)
    if isinstance(module, _Shell):
        return module
    if id(module) not in done:
        view = done[id(module)] = object.__new__(type(module))
        # Copies of its dicts too: one of them is the hooks.
        view.__dict__ = {name: v.copy() if isinstance(v, dict) else v for name, v in module.__dict__.items()}
        view.__dict__["_compiled_call_impl"] = None
        _restore_forward(module, view)
        view.__dict__["_modules"] = {
            name: None if child is None else _view(child, done, replace) for name, child in module._modules.items()
        }
    return done[id(module)]


def _with_classes(module: Any, done: dict[int, Any], classes: Mapping[nn.Module, type]) -> Any:
    if id(module) not in done:
        modules = {
            name: None if child is None else _with_classes(child, done, classes)
            for name, child in module._modules.items()
        }
        is_same = all(child is module._modules[name] for name, child in modules.items())
        if is_same and module not in classes:
            done[id(module)] = module
        else:
            view: Any = object.__new__(classes.get(module, type(module)))
            done[id(module)] = view
            view.__dict__ = {name: v.copy() if isinstance(v, dict) else v for name, v in module.__dict__.items()}
            view.__dict__["_modules"] = modules
    return done[id(module)]


def _restore_forward(module: nn.Module, view: nn.Module) -> None:
    """The forward of the view is what `module.forward` was before it was compiled, bound to the view."""
    forward = view.__dict__.get("forward")
    while _is_compiled_function(forward):
        forward = forward._torchdynamo_orig_callable  # type: ignore[union-attr]
    if isinstance(forward, MethodType) and forward.__self__ is module:
        forward = MethodType(forward.__func__, view)
    if forward is not None:
        view.__dict__["forward"] = forward


def _is_compiled_function(function: object) -> bool:
    return hasattr(function, "_torchdynamo_orig_callable")
