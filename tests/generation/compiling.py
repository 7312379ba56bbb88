"""Ways to compile a target with Dynamo alone, and a count of the graphs that it makes."""

import torch
from torch._dynamo.utils import counters

EAGER = {"backend": "eager"}  # Dynamo with all its guards, and no code to generate


def compile_forward(model, **options):
    model.forward = torch.compile(model.forward, **options)


def compile_decoder(model, **options):
    model.get_decoder().compile(**options)


def wrap_decoder(model, **options):
    model.model.language_model = torch.compile(model.model.language_model, **options)


def compile_layers(model, **options):
    for layer in model.get_decoder().layers:
        layer.compile(**options)


def forgetting_graphs():
    """For a fixture: no test finds the graphs of another one."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def graphs():
    return counters["stats"]["unique_graphs"]
