"""A saved drafter's folder loads as remote code, without hf_mmspec, and so do folders saved from there."""

import os
import shutil
import subprocess
import sys

import pytest

from hf_mmspec.hub.remote_code import drafter_modules
from hf_mmspec.modeling import FAMILIES
from tests.modeling import families, tiny

STRANGER = """
import sys
import torch
from transformers import AutoModel
drafter = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
assert not any(name.startswith("hf_mmspec") for name in sys.modules)
features, embeds = torch.randn(2, 1, 9, drafter.config.hidden_size)
drafter(features, embeds).hidden_states[0].sum().backward()
torch.optim.SGD(drafter.parameters(), 1e-3).step()
drafter.save_pretrained(sys.argv[2])
print(type(drafter).__name__, type(drafter).__module__.startswith("transformers_modules"), drafter.config.num_q)
"""


def stranger(tmp_path, *folders):
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / f"modules of {folders[0].name}")}
    command = [sys.executable, "-c", STRANGER, *map(str, folders)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()[-1]


@pytest.mark.parametrize("overrides", [{}, {"draft_vocab_size": 40}])
def test_a_checkpoint_of_remote_code_goes_on_without_the_first_folder(tmp_path, overrides):
    first, second = tmp_path / "drafter", tmp_path / "checkpoint"
    tiny.drafter(**overrides).save_pretrained(first)
    assert stranger(tmp_path, first, second) == "ViSpecDrafter True 2"
    shutil.move(first, tmp_path / "elsewhere")
    assert stranger(tmp_path, second, tmp_path / "third") == "ViSpecDrafter True 2"
    assert type(FAMILIES["vispec"][1].from_pretrained(second)) is FAMILIES["vispec"][1]  # and with hf_mmspec


@pytest.mark.parametrize("name", ["vispec", "msd", "eagle", "eagle3", "eagle3, narrower than its target", "flash"])
def test_a_folder_has_the_modules_of_its_family_and_no_others(tmp_path, name):
    drafter = families.build(name)
    drafter.save_pretrained(tmp_path)
    saved = {file.name: file.read_bytes() for file in tmp_path.glob("*.py")}
    assert saved == drafter_modules(type(drafter))
    others = {module for module in FAMILIES if f"modeling_{module}.py" in saved} - {drafter.config.model_type}
    assert others <= {"eagle"} and (not others or name == "msd")  # MSD is built on EAGLE


def test_processes_that_are_not_the_main_one_write_no_code(tmp_path):
    tiny.drafter().save_pretrained(tmp_path, is_main_process=False)
    assert not list(tmp_path.glob("*.py"))
