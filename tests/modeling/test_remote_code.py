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
for source, destination in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    drafter = AutoModel.from_pretrained(source, trust_remote_code=True)
    assert not any(name.startswith("hf_mmspec") for name in sys.modules)
    features, embeds = torch.randn(2, 1, 9, drafter.config.hidden_size)
    drafter(features, embeds).hidden_states[0].sum().backward()
    torch.optim.SGD(drafter.parameters(), 1e-3).step()
    drafter.save_pretrained(destination)
    print(type(drafter).__name__, type(drafter).__module__.startswith("transformers_modules"), drafter.config.num_q)
"""


def stranger(tmp_path, sources, destinations):
    """Load, train a step and save, in a process that knows no hf_mmspec; the lines that it prints."""
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / f"modules of {sources[0].name}")}
    folders = [str(folder) for pair in zip(sources, destinations, strict=True) for folder in pair]
    command = [sys.executable, "-c", STRANGER, *folders]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()[-len(sources) :]


def test_a_checkpoint_of_remote_code_goes_on_without_the_first_folder(tmp_path):
    def folders(name):
        return [tmp_path / f"{name}-{kind}" for kind in ("plain", "reduced")]

    first, second = folders("drafter"), folders("checkpoint")
    for folder, overrides in zip(first, ({}, {"draft_vocab_size": 40}), strict=True):
        tiny.drafter(**overrides).save_pretrained(folder)
    assert stranger(tmp_path, first, second) == ["ViSpecDrafter True 2"] * 2
    for folder in first:
        shutil.move(folder, tmp_path / f"elsewhere {folder.name}")
    assert stranger(tmp_path, second, folders("third")) == ["ViSpecDrafter True 2"] * 2
    for folder in second:  # and with hf_mmspec
        assert type(FAMILIES["vispec"][1].from_pretrained(folder)) is FAMILIES["vispec"][1]


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
