"""`--quantize`: which layers are packed, what a model says about itself, and clear words where it cannot be done."""

import importlib.util

import pytest
import torch

from hf_mmspec import quantise
from hf_mmspec.cli import app
from hf_mmspec.console import choices
from hf_mmspec.evaluation import loading
from hf_mmspec.generation.cost_cache import fingerprints
from hf_mmspec.modeling import ViSpecDrafter
from hf_mmspec.quantise import QuantisedAlreadyError, quantisation, quantisation_of
from tests.evaluation.tiny import tiny_processor
from tests.generation import packed, tiny

pytest.importorskip("bitsandbytes")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("full")
    packed.save_full("llava", path)
    tiny_processor().save_pretrained(path)
    return path


def test_words_are_those_of_the_command_line():
    assert choices.QUANTISATIONS == quantise.WORDS


def packed_layers(model):
    return {name for name, module in model.named_modules() if type(module).__name__.startswith(("Linear4", "Linear8"))}


@pytest.mark.parametrize("word", quantise.WORDS)
def test_the_text_decoder_is_packed_and_nothing_else(folder, word):
    target, _ = loading.load_target(str(folder), "float32", word)
    assert quantisation_of(target) == f"bitsandbytes {word}"
    assert len(packed_layers(target)) == 2 * 7
    assert all(name.startswith("model.language_model.layers.") for name in packed_layers(target))
    assert not target.training and target.config.quantization_config.llm_int8_threshold in (0.0, 6.0)
    with pytest.raises(QuantisedAlreadyError, match=f"quantised already.*leave out --quantize {word}"):
        target.save_pretrained(folder / word)
        quantisation(word, str(folder / word), torch.float32)


def test_layers_that_the_kernels_cannot_take_stay_as_they_are(tmp_path):
    packed.save_full("llava", tmp_path, num_key_value_heads=1)  # 16 rows of keys and of values
    target = tiny.LlavaForConditionalGeneration.from_pretrained(
        tmp_path, quantization_config=quantisation("nf4", str(tmp_path), torch.float32), dtype=torch.float32
    ).eval()
    assert len(packed_layers(target)) == 2 * 5
    assert target(**tiny.llava_prompt(1)).logits.isfinite().all()


def test_what_a_model_says(folder):
    assert quantisation_of(tiny.llava()) is None
    assert quantisation_of(packed.load(folder, "torchao int8")) == "torchao Int8WeightOnlyConfig"


def test_costs_are_kept_apart_by_form_and_adapters(folder):
    """Costs of one form of the weights say nothing about another, even where configs are the same."""
    peft = pytest.importorskip("peft")
    models = [packed.load(folder, form) for form in ("nf4", "int8", "int8 with outliers")]
    keys = [fingerprints(model)[0] for model in (tiny.llava(**packed.SIZES["llava"]), *models)]
    models[0].config.quantization_config = models[1].config.quantization_config
    keys.append(fingerprints(models[0])[0])
    peft.get_peft_model(models[1], peft.LoraConfig(r=2, target_modules=["q_proj"]))
    keys.append(fingerprints(models[1])[0])
    assert len(set(keys)) == len(keys)
    assert fingerprints(packed.load(folder, "nf4"))[0] == keys[1]
    inputs = tiny.llava_prompt()
    used = packed.load(folder, "nf4")
    used.generate(**inputs, max_new_tokens=2)  # packs weights anew for this processor
    assert fingerprints(used)[0] == keys[1]


@pytest.mark.parametrize("word", [None, *quantise.WORDS])
def test_a_drafter_loads_for_a_packed_target(folder, tmp_path, word):
    target, _ = loading.load_target(str(folder), "float32", "nf4")
    ViSpecDrafter.from_target(target).to(torch.bfloat16).save_pretrained(tmp_path)
    drafter = loading.load_drafter(str(tmp_path), target, word)
    assert quantisation_of(drafter) == (f"bitsandbytes {word}" if word else None)
    assert drafter.dtype == torch.float32 and drafter.bind(target).head_size == tiny.VOCAB


@pytest.mark.parametrize("missing", ["bitsandbytes", "accelerate"])
@pytest.mark.parametrize("command", ["demo", "doctor", "bench", "check", "distil --out x"])
def test_a_missing_package_is_named_before_anything_is_loaded(command, missing, monkeypatch):
    from typer.testing import CliRunner

    find = importlib.util.find_spec
    monkeypatch.setattr(choices, "find_spec", lambda name: None if name == missing else find(name))
    monkeypatch.setattr(loading, "load_target", lambda *_: pytest.fail("a model was loaded"))
    result = CliRunner().invoke(app, [*command.split(), "--quantize", "nf4"])
    assert result.exit_code == 2
    assert f"module {missing} is missing: run pip install" in " ".join(result.stderr.split())
