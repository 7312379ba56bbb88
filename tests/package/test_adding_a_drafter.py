"""docs/adding-a-drafter.md: its example is short, runs as it stands, and does what the page says."""

import importlib.util
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

import hf_mmspec.modeling
from hf_mmspec import AutoDrafter
from tests.generation import tiny

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-drafter.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
BUDGET = dict(draft_depth=3, draft_top_k=4, draft_total_tokens=14, draft_mode="tree")


@pytest.fixture
def family(tmp_path, monkeypatch):
    """The example's files, as if they lay in modeling/."""
    for file in Path(hf_mmspec.modeling.__file__).parent.glob("*.py"):  # saved with the drafter
        shutil.copy(file, tmp_path)
    loaded = {}
    for name, code in zip(("configuration_blend", "modeling_blend"), BLOCKS[:2], strict=True):
        file = tmp_path / f"{name}.py"
        file.write_text(code)
        spec = importlib.util.spec_from_file_location(f"hf_mmspec.modeling.{name}", file)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        loaded |= vars(module)
    exec(BLOCKS[2], {"FAMILIES": hf_mmspec.modeling.FAMILIES, **loaded})
    yield loaded["BlendDrafter"]
    del hf_mmspec.modeling.FAMILIES["blend"]


def test_the_example_is_short():
    assert len(BLOCKS) == 3
    assert sum(len(block.strip().splitlines()) for block in BLOCKS) <= 60


@pytest.mark.parametrize("overrides", [{}, {"draft_vocab_size": 40}, {"visual": "latents"}, {"visual": "adaptor"}])
@pytest.mark.parametrize("target_family", tiny.FAMILIES)
def test_the_example_decodes_exactly(family, target_family, overrides):
    target, inputs = tiny.FAMILIES[target_family](), tiny.PROMPTS[target_family](images=2)
    drafter = family.from_target(target, **overrides)
    plain = target.generate(**inputs, do_sample=False, max_new_tokens=12)
    ours = target.generate(**inputs, do_sample=False, max_new_tokens=12, assistant_model=drafter, **BUDGET)
    assert ours.tolist() == plain.tolist()


def test_the_example_trains_saves_and_loads(family, tmp_path):
    drafter = family.from_target(tiny.llava(), gate_bias=-2.0)
    assert drafter.gate.bias.mean() == -2
    features, embeds = torch.randn(2, 1, 30, tiny.HIDDEN)
    drafter(features, embeds, [[(4, 14)]], steps=2).hidden_states[1].sum().backward()
    assert all(parameter.grad is not None for parameter in drafter.parameters())
    drafter.save_pretrained(tmp_path / "drafter")
    loaded = AutoDrafter.from_pretrained(tmp_path / "drafter")
    assert type(loaded) is family
    assert torch.equal(loaded.gate.weight, drafter.gate.weight)
