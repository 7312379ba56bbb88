"""Where a command's target is: on the GPU if there is one, the embedded default as well as any other."""

import pytest
import torch

from hf_mmspec.evaluation import loading


class Model:
    """Remembers where it was sent."""

    def __init__(self, is_quantized=False):
        self.is_quantized, self.where = is_quantized, []

    def to(self, device):
        self.where.append(device)
        return self

    def eval(self):
        return self


@pytest.fixture
def model(monkeypatch):
    found = Model()
    monkeypatch.setattr(loading, "load_default", lambda *_: (found, "processor"))
    monkeypatch.setattr(loading.AutoModelForImageTextToText, "from_pretrained", lambda *_, **__: found)
    monkeypatch.setattr(loading.AutoProcessor, "from_pretrained", lambda *_: "processor")
    return found


@pytest.mark.parametrize("name", [None, "some/model"])
@pytest.mark.parametrize(("has_gpu", "device"), [(True, "cuda"), (False, "cpu")])
def test_target_is_on_the_gpu_if_there_is_one(model, monkeypatch, name, has_gpu, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert loading.load_target(name, "float32") == (model, "processor")
    assert model.where == [device]


@pytest.mark.parametrize("name", [None, "some/model"])
def test_packed_weights_stay_where_they_are(model, name):
    model.is_quantized = True
    loading.load_target(name, "float32")
    assert model.where == []
