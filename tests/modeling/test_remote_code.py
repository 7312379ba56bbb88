"""A folder with the files of `modeling/` beside the weights loads as remote code, without hf_mmspec."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hf_mmspec.modeling
from tests.modeling import tiny

STRANGER = """
import sys
from transformers import AutoConfig, AutoModel
config = AutoConfig.from_pretrained(sys.argv[1], trust_remote_code=True)
drafter = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
assert not any(name.startswith("hf_mmspec") for name in sys.modules)
print(type(drafter).__name__, type(drafter).__module__.startswith("transformers_modules"), drafter.config.num_q)
"""


@pytest.mark.parametrize("overrides", [{}, {"draft_vocab_size": 40}])
def test_folder_loads_as_remote_code(tmp_path, overrides):
    folder = tmp_path / "drafter"
    tiny.drafter(**overrides).save_pretrained(folder)
    for file in Path(hf_mmspec.modeling.__file__).parent.glob("*.py"):
        shutil.copy(file, folder)
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")}
    run = subprocess.run(
        [sys.executable, "-c", STRANGER, str(folder)], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "ViSpecDrafter True 2"
