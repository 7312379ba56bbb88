"""EAGLE-3's layer ids: two conventions in the wild, one in our config."""

import pytest
import torch

from hf_mmspec import AutoDrafter
from hf_mmspec.generation.capture import capture
from hf_mmspec.hub import ConversionError, convert
from hf_mmspec.modeling import DrafterMismatchError, Eagle3Config
from hf_mmspec.modeling.binding import unwrap
from tests.generation import tiny

IDS = "eagle_aux_hidden_state_layer_ids"


def set_ids(ids, nested=True):
    def change(config, tensors):
        config.pop(IDS, None)
        config["eagle_config"] = {IDS: ids} if nested else {}
        if not nested:
            config[IDS] = ids

    return change


@pytest.fixture
def load(write, tmp_path):
    def load(ids, nested=True, layer_ids=None):
        source = write("eagle3", set_ids(ids, nested))
        return AutoDrafter.from_pretrained(source, layer_ids=layer_ids)

    return load


def features(drafter, target):
    ids = torch.arange(3, 20)[None]
    with torch.no_grad(), capture(target.get_decoder(), drafter.feature_layers_of(target)) as captured:
        with captured.listening():
            states = target(input_ids=ids, output_hidden_states=True).hidden_states
        return captured.features, states


@pytest.fixture(scope="module")
def target():
    return tiny.llava(num_hidden_layers=4)


@pytest.mark.parametrize("nested", [True, False])
def test_both_conventions_read_the_same_layers(load, target, nested):
    """A target with 4 layers: outputs of 0 and up are inputs of 1 and up."""
    outputs, states = features(load([0, 1, 2], nested, layer_ids="outputs"), target)
    inputs, _ = features(load([1, 2, 3], nested, layer_ids="inputs"), target)
    assert torch.equal(outputs, inputs)
    assert torch.equal(inputs, torch.cat(states[1:4], dim=-1))


@pytest.mark.parametrize(
    "ids, layers",
    [([1, 13, 24], [2, 14, 25]), ([2, 14, 25], [2, 14, 25]), ([1, 46, 90], [2, 47, 91]), ([0, 5, 9], [0, 5, 9])],
)
def test_the_first_id_tells_the_convention(load, ids, layers):
    assert load(ids).config.feature_layers == layers


def test_the_convention_can_be_said(load):
    assert load([2, 14, 25], layer_ids="outputs").config.feature_layers == [3, 15, 26]
    assert load([1, 17, 32], layer_ids="inputs").config.feature_layers == [1, 17, 32]


def test_it_is_reported(write, tmp_path):
    notes = convert(write("eagle3_specforge"), tmp_path / "ours").notes
    assert any("[1, 13, 24] taken as outputs of layers (by their first id)" in note for note in notes)


@pytest.mark.parametrize("ids", [[2, 2, 5], [5, 2, 7], [-1, 2, 5]])
def test_impossible_ids(load, ids):
    with pytest.raises(OSError, match="layer ids must increase, each once and none below 0"):
        load(ids)


def test_a_number_of_layers_that_the_projection_does_not_have(load):
    with pytest.raises(OSError, match=r"fc.weight is \(32, 96\) where config.json asks for \(32, 128\)"):
        load([2, 5, 9, 12])


def test_bad_conventions(write, tmp_path):
    with pytest.raises(ConversionError, match="--layer-ids both: choose one of inputs, outputs"):
        convert(write("eagle3_specforge"), tmp_path / "ours", layer_ids="both")
    with pytest.raises(ConversionError, match="names no layer ids"):
        convert(write("eagle3"), tmp_path / "ours", layer_ids="inputs")
    with pytest.raises(ConversionError, match="--layer-ids is for EAGLE-3"):
        convert(write("vispec"), tmp_path / "ours", layer_ids="inputs")


def test_without_ids_the_target_decides(write, target):
    drafter = AutoDrafter.from_pretrained(write("eagle3"))
    assert drafter.config.feature_layers is None
    for layers in (8, 9):
        deep = tiny.llava(num_hidden_layers=layers)
        assert drafter.feature_layers_of(deep) == tuple(Eagle3Config.authors_taps(layers))
        inputs = tiny.llava_prompt()
        plain = deep.generate(**inputs, max_new_tokens=12, do_sample=False)
        drafted = deep.generate(**inputs, max_new_tokens=12, do_sample=False, assistant_model=drafter.float())
        assert torch.equal(plain, drafted)
    with pytest.raises(DrafterMismatchError, match="4 layers has no three layers"):
        drafter.bind(unwrap(target))
    with pytest.raises(ValueError, match="depends on the target"):
        _ = drafter.feature_layers
