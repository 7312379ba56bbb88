"""`mmspec --help` and bad options import no torch; `import hf_mmspec` still teaches transformers all it should."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

import hf_mmspec
from hf_mmspec import cli, startup
from hf_mmspec.console import choices
from hf_mmspec.hub.eagle3_layout import LAYER_ID_CONVENTIONS
from hf_mmspec.modeling import FAMILIES, ViSpecDrafter
from hf_mmspec.training.recipes import family_recipe
from hf_mmspec.training.recipes.recipe import ALIASES
from tests.evaluation.tiny import tiny_drafter, tiny_processor, tiny_target
from tests.generation.tiny import llama

HEAVY = ("torch", "transformers", "datasets", "accelerate", "matplotlib", "huggingface_hub")
# pip's script, and a report of what it took
SCRIPT = f"""\
import atexit, sys
atexit.register(lambda: print([name for name in {HEAVY} if name in sys.modules]))
"""
BAD_OPTIONS = {
    "demo --dtype int4": "choose one of auto, float32",
    "demo --quantize int4": "choose one of nf4, int8",
    "demo --threads 0": "'--threads'",
    "demo --nonsense": "--nonsense",
    "generate": "'--prompt'",
    "generate --prompt x --model y": "give --drafter together with --model",
    "generate --prompt x --image nowhere.png": "nowhere.png: no such file",
    "doctor --dtype int4": "choose one of auto, float32",
    "doctor --quantize 8": "choose one of nf4, int8",
    "bench --quantize fp8": "choose one of nf4, int8",
    "bench --model y": "give --drafter together with --model",
    "bench --budget depht=3": "names depth, top_k, total_tokens, mode",
    "bench --max-new-tokens 0": "a count of at least 1",
    "bench --max-new-tokens 9,chat=": "a count of at least 1",
    "bench --together scene": "at least two tasks",
    "bench --batch 0": "'--batch'",
    "convert a b --family medusa": "choose one of eagle, eagle3",
    "convert a b --layer-ids both": "choose one of inputs, outputs",
    "distil --out x --dtype int4": "choose one of auto, float32",
    "distil --out x --quantize 4": "choose one of nf4, int8",
    "distil --out x --features-dtype auto": "choose one of float32",
    "train --family medusa --data x --out y": "choose one of vispec",
    "train --family msd --data x --out y --features none": "choose one of auto, stored",
    "train --family msd --data x --out y --precision fp16": "choose one of auto, bf16",
    "train --family msd --data x --out y --quantize x": "choose one of nf4, int8",
    "card": "'FOLDER'",
    "chat --dtype int4": "choose one of auto, float32",
    "chat --image nowhere.png": "nowhere.png: no such file",
    "chat --resume nowhere.json": "nowhere.json",
    "check a": "give both",
    "check --quantize x": "choose one of nf4, int8",
    "check --dtype int4": "choose one of auto, float32",
    "list": "'TARGET'",
    "publish": "'FOLDER'",
    "rewrite": "'WISH'",
    "rewrite x --dtype int4": "choose one of auto, float32",
    "rewrite x --thinking -1": "'--thinking'",
    "rewrite x --image nowhere.png": "nowhere.png: no such file",
    "medusa": "No such command",
}


def python(*arguments, cwd, **options):
    """Output of another Python that must end well; `tests` can be imported there."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "HF_MMSPEC_CACHE": str(cwd)}
    run = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True, **options
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


@pytest.fixture
def program(tmp_path):
    """Makes a program of the name `mmspec`, as pip's script is."""

    def write(code):
        (tmp_path / "mmspec").write_text(SCRIPT + code)
        return tmp_path / "mmspec"

    return write


def test_help_of_the_script_imports_nothing_heavy(program, tmp_path):
    said = python(program("from hf_mmspec.cli import app\napp()"), "--help", cwd=tmp_path)
    assert "Usage: mmspec" in said and said.splitlines()[-1] == "[]"


def test_help_of_the_module_imports_nothing_heavy(tmp_path):
    said = python("-X", "importtime", "-m", "hf_mmspec", "--help", cwd=tmp_path)
    imported = {line.rpartition("|")[2].strip() for line in said.splitlines() if line.startswith("import time:")}
    assert "Usage: " in said and "typer" in imported
    assert not imported & set(HEAVY)


def test_help_and_bad_options_of_every_command_import_nothing_heavy(program, tmp_path):
    commands = get_command(cli.app).commands
    assert {case.split()[0] for case in BAD_OPTIONS} >= set(commands)
    cases = [*BAD_OPTIONS, *(f"{name} --help" for name in commands)]
    code = f"""
import json
from typer.testing import CliRunner
from hf_mmspec.cli import app
for case in {cases!r}:
    result = CliRunner().invoke(app, case.split())
    print(json.dumps([case, result.exit_code, result.output, [name for name in {HEAVY} if name in sys.modules]]))
"""
    lines = python(program(code), cwd=tmp_path).splitlines()
    reports = {case: rest for case, *rest in map(json.loads, lines[:-1])}
    assert set(reports) == set(cases)
    for case, (exit_code, said, heavy) in reports.items():
        assert not heavy, case
        assert exit_code == (2 if case in BAD_OPTIONS else 0), (case, said)
        assert BAD_OPTIONS.get(case, "Usage:") in " ".join(said.split()), (case, said)


def test_words_of_options_are_those_that_are_understood():
    assert set(choices.LAYOUTS) == set(FAMILIES)
    assert choices.LAYER_IDS == LAYER_ID_CONVENTIONS
    recipes = {path.stem for path in family_recipe("vispec").parent.glob("*.yaml")}
    assert set(choices.RECIPES) == {*recipes, *ALIASES}


NAMES_WAIT = """
import hf_mmspec
assert hf_mmspec.__version__ and set(hf_mmspec.__all__) <= set(dir(hf_mmspec))
assert not hasattr(hf_mmspec, "AutoTarget") and "torch" not in sys.modules
"""
NAMES_ARE_THERE = """
from hf_mmspec import *
import hf_mmspec.auto, transformers
assert AutoDrafter is hf_mmspec.auto.AutoDrafter and hf_mmspec.Speculation is Speculation
assert hasattr(transformers.GenerationMixin._assisted_decoding, "__mmspec_stock__")
"""


def test_a_command_still_drafts_in_the_process_that_started_without_torch(program, tmp_path):
    target = tiny_target()
    target.save_pretrained(tmp_path / "target")
    tiny_processor().save_pretrained(tmp_path / "target")
    tiny_drafter(target).save_pretrained(tmp_path / "drafter")
    command = """
from hf_mmspec.cli import app
try:
    app()
except SystemExit as end:
    assert not end.code
"""
    code = NAMES_WAIT + command + NAMES_ARE_THERE
    options = ["--model", "target", "--drafter", "drafter", "--prompt", "What?", "--max-new-tokens", "6"]
    said = python(program(code), "generate", "--dtype", "float32", *options, cwd=tmp_path)
    assert "L " in said and "identical: yes" in said and "'torch'" in said


@pytest.mark.slow
def test_public_names_wait_until_they_are_asked_for_on_the_command_line(program, tmp_path):
    python(program(NAMES_WAIT + NAMES_ARE_THERE), cwd=tmp_path)


def test_public_names_are_there_in_a_library():
    assert set(hf_mmspec.__all__) <= set(dir(hf_mmspec))
    names = {}
    exec("from hf_mmspec import *", names)
    assert set(hf_mmspec.__all__) <= set(names)
    with pytest.raises(AttributeError):
        hf_mmspec.AutoTarget  # noqa: B018


@pytest.mark.parametrize(
    ("argv", "orig_argv", "expected"),
    [
        (["/env/bin/mmspec", "--help"], ["python", "/env/bin/mmspec", "--help"], True),
        (["C:\\env\\mmspec.exe"], ["python", "C:\\env\\mmspec.exe"], sys.platform == "win32"),
        (["-m", "bench"], ["python", "-X", "dev", "-m", "hf_mmspec", "bench"], True),
        (["-m"], ["python", "-m", "hf_mmspec"], True),
        (["-m", "hf_mmspec"], ["python", "-m", "pytest", "hf_mmspec"], False),
        (["-m"], ["python", "-m", "hf_mmspec.demo.making.train"], False),
        (["/my/mmspec.py"], ["python", "/my/mmspec.py"], False),
        (["/my/mmspec/train.py"], ["python", "/my/mmspec/train.py"], False),
        (["-c"], ["python", "-c", "import hf_mmspec"], False),
        ([""], ["python"], False),
        ([], [], False),
    ],
)
def test_only_the_command_line_starts_without_the_library(argv, orig_argv, expected, monkeypatch):
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", orig_argv)
    assert startup.is_command_line() is expected


# what stands first in a program -> the name of the drafter's loader
FIRST_LINES = {
    "import hf_mmspec": "transformers.AutoModel",
    "import transformers; import hf_mmspec": "transformers.AutoModel",
    "from transformers import AutoModel, pipeline; import hf_mmspec": "AutoModel",
    "from hf_mmspec import AutoDrafter": "AutoDrafter",
    "from hf_mmspec.modeling import ViSpecDrafter": "ViSpecDrafter",
    "import hf_mmspec.generation": "transformers.AutoModel",
    "from hf_mmspec.cli import app": "transformers.AutoModel",
}
# Submodules are left out: while `hf_mmspec` itself is being imported, a thread that wants one of them has its lock
# already, and Python breaks such ties by handing out half a module, from every package.
THREADS = """
import threading
failed = []
def work(line):
    try:
        exec(line)
    except BaseException as error:
        failed.append((line, error))
lines = 2 * ("import hf_mmspec", "from hf_mmspec import AutoDrafter", "import hf_mmspec.cli",
             "import hf_mmspec; hf_mmspec.install_hook()")
threads = [threading.Thread(target=work, args=(line,)) for line in lines]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not failed, failed
"""
DRAFT = """
import transformers, torch
target = transformers.AutoModelForCausalLM.from_pretrained("target")
drafter = {loader}.from_pretrained("drafter")
ids = dict(input_ids=torch.arange(3, 20)[None], max_new_tokens=12, do_sample=False)
drafted = target.generate(**ids, assistant_model=drafter, return_dict_in_generate=True, draft_depth=2)
assert drafted.speculation.rounds > 0
assert torch.equal(drafted.sequences, target.generate(**ids))
assert transformers.pipelines.PIPELINE_REGISTRY.supported_tasks["text-generation"]["impl"].__module__ == (
    "hf_mmspec.pipelines"
)
"""


@pytest.fixture
def saved(tmp_path):
    """A folder with a target and its drafter."""
    target = llama()
    target.save_pretrained(tmp_path / "target")
    ViSpecDrafter.from_target(target).save_pretrained(tmp_path / "drafter")
    return tmp_path


@pytest.mark.parametrize(
    "first", ["import hf_mmspec", *(pytest.param(each, marks=pytest.mark.slow) for each in list(FIRST_LINES)[1:])]
)
def test_any_order_of_imports_teaches_generate(saved, first):
    python("-c", first + DRAFT.format(loader=FIRST_LINES[first]), cwd=saved)


@pytest.mark.slow
def test_imports_by_threads_at_once_teach_generate(saved):
    python("-c", THREADS + DRAFT.format(loader="transformers.AutoModel"), cwd=saved)
