"""What users do with it: the command, `AutoDrafter` on a published checkpoint, binding what came out."""

import json
import logging

import pytest
import torch
from typer.testing import CliRunner

from hf_mmspec import AutoDrafter
from hf_mmspec.cli import app
from hf_mmspec.modeling import DrafterLoadError
from hf_mmspec.modeling import binding as binding_module
from tests.generation import tiny
from tests.hub.published import LAYOUTS, embeddings

TARGETS = {"msd_qwen2_vl": None, "eagle3_specforge": tiny.qwen}


def run(*arguments):
    return CliRunner().invoke(app, ["convert", *map(str, arguments)])


def test_the_command_reports(write, tmp_path):
    result = run(write("vispec"), tmp_path / "ours")
    assert result.exit_code == 0, result.output
    assert "vispec (ViSpec), bfloat16" in result.output
    assert "16 tensors, bit by bit" in result.output
    assert "left out  embed_tokens.weight: a frozen copy of the target's embeddings" in result.output
    assert f"written   {tmp_path / 'ours'}" in result.output
    record = json.loads((tmp_path / "ours" / "conversion.json").read_text())
    assert record["renamed"]["imadpt.q"] == "image_adaptor.queries"
    assert record["left_out"].keys() == {"embed_tokens.weight"}


def test_the_command_takes_options(write, tmp_path):
    source = write("msd_llava", lambda config, tensors: config.update(model_type="x"))
    refused = run(source, tmp_path / "ours")
    assert refused.exit_code == 2 and "--family msd or --family eagle" in refused.output
    assert len(refused.output.splitlines()) == 1
    assert run(source, tmp_path / "ours", "--family", "eagle").exit_code == 0
    outputs = run(write("eagle3_specforge"), tmp_path / "eagle3", "--layer-ids", "inputs", "--local-files-only")
    assert outputs.exit_code == 0 and "taken as inputs of layers (as given)" in outputs.output


def test_the_command_says_what_is_not_there(tmp_path):
    result = run(tmp_path / "nowhere", tmp_path / "ours")
    assert result.exit_code == 2 and "nowhere" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_published_checkpoint_loads_as_it_is(layout, write):
    source = write(layout)
    drafter = AutoDrafter.from_pretrained(source)
    origin = LAYOUTS[layout]().drafter()
    assert drafter.dtype == origin.dtype
    for name, tensor in origin.state_dict().items():
        assert torch.equal(drafter.state_dict()[name], tensor), name
    assert drafter.config.name_or_path == str(source)
    assert AutoDrafter.from_pretrained(source, dtype=torch.float32).dtype == torch.float32


def test_a_published_checkpoint_in_doubt(write):
    source = write("msd_llava", lambda config, tensors: config.update(model_type="x"))
    with pytest.raises(DrafterLoadError, match="say --family msd or --family eagle"):
        AutoDrafter.from_pretrained(source)
    assert AutoDrafter.from_pretrained(source, family="eagle").config.model_type == "eagle"


@pytest.mark.parametrize("content", ["[]", '["model_type"]', '["pretrained_cfg"]', "3", "null", '"vispec"'])
def test_a_config_that_is_no_object_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(DrafterLoadError, match=r"config\.json holds no JSON object") as caught:
        AutoDrafter.from_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("model_type", [[], {}, 3])
def test_a_model_type_that_is_no_name_is_named(tmp_path, model_type):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(DrafterLoadError, match=r"config\.json has a model_type that is no name"):
        AutoDrafter.from_pretrained(tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_generation_stays_exact(layout, write):
    """The drafter that comes out drafts for a target; its tokens are the target's."""
    family = {"eagle3_specforge": "qwen"}.get(layout, "llava")
    layers = 30 if layout in ("eagle3_specforge", "eagle3_speculators") else 8
    target = tiny.FAMILIES[family](num_hidden_layers=layers, hidden_size=48 if layout == "eagle3_narrow" else 32)
    drafter = AutoDrafter.from_pretrained(write(layout), dtype=torch.float32)
    drafter.config.target_model_type = None if layout == "msd_qwen2_vl" else drafter.config.target_model_type
    inputs = tiny.PROMPTS[family](images=1)
    options = dict(max_new_tokens=10, do_sample=False)
    # a given budget, so that no costs are measured
    budget = dict(draft_mode="tree", draft_depth=3, draft_top_k=2, draft_total_tokens=6)
    drafted = target.generate(**inputs, **options, **budget, assistant_model=drafter)
    assert torch.equal(target.generate(**inputs, **options), drafted)


def test_binding_to_other_embeddings_warns(write, caplog, monkeypatch):
    """The frozen copy in the checkpoint is left out; its fingerprint stays."""
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    drafter = AutoDrafter.from_pretrained(write("msd_llava"))
    target = tiny.llava()
    with torch.no_grad():
        target.get_input_embeddings().weight.copy_(embeddings(torch.bfloat16))
    binding_module.logger.warning_once.cache_clear()
    drafter.bind(target)
    assert not caplog.records
    drafter.bind(tiny.llava())
    assert ["embed_tokens differs" in record.getMessage() for record in caplog.records] == [True]


def test_msd_for_llava_fits_a_padded_target(write):
    """The authors' LLaVA has 32000 tokens, the one on the Hub 32064."""
    borrowed = AutoDrafter.from_pretrained(write("msd_llava")).bind(tiny.llava(vocab_size=128))
    assert (borrowed.vocab_size, borrowed.head_size) == (120, 128)
