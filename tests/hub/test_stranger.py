"""Where hf_mmspec is not installed: drafters from the Hub load, and draft for `generate(custom_generate=repo)`.

Targets and answers are made here; another process, which cannot import hf_mmspec, must give the same answers.
"""

import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import torch

from hf_mmspec import AutoDrafter
from hf_mmspec.hub import plan_publication, publish
from tests.evaluation.tiny import tiny_processor
from tests.generation import tiny
from tests.generation.test_every_family import build
from tests.hub.stub_hub import TOKEN

FAMILIES = ["vispec", "msd", "flash", "eagle", "eagle3", "eagle3_narrow"]
TREE = {"draft_mode": "tree", "draft_depth": 4, "draft_top_k": 4, "draft_total_tokens": 16}
CHAIN = {"draft_mode": "chain", "draft_depth": 4}
GREEDY = {"do_sample": False, "max_new_tokens": 14}
# name -> (arguments of generate, draft budget); the last has none, so that costs are measured
REQUESTS = {
    "tree": (GREEDY, TREE),
    "chain": (GREEDY, CHAIN),
    "sampling": ({"do_sample": True, "temperature": 0.8, "top_p": 0.9, "max_new_tokens": 14}, TREE),
    "processors": ({**GREEDY, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2}, TREE),
    "automatic": (GREEDY, {}),
}
EXPECTED = [f"right: {name}, {request}" for name in FAMILIES for request in ("tree", "sampling")]
EXPECTED += [f"right: vispec, {check}" for check in ("chain", "processors", "automatic", "the rest")]
EXPECTED.append("right: refusals")
NO_PACKAGE = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "hf_mmspec":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
"""
STRANGER = (Path(__file__).parent / "stranger.py").resolve()


@pytest.fixture
def place(hub, tmp_path):
    """A private Hub with a drafter of every family, a target, a prompt, and the target's own answers."""
    target, inputs = tiny.llava(), tiny.llava_prompt(seed=2, images=2)
    target.save_pretrained(tmp_path / "target")
    torch.save(inputs, tmp_path / "inputs.pt")
    answers = {}
    for name, (request, _) in REQUESTS.items():
        torch.manual_seed(11)
        answers[name] = target.generate(**inputs, **request)[0].tolist()
    processor = tiny_processor()
    processor.tokenizer.save_pretrained(tmp_path / "tokenizer")
    for name in FAMILIES:
        folder = tmp_path / "drafters" / name
        build(name, target).save_pretrained(folder)
        (folder / "README.md").write_text("# A drafter")
        publish(plan_publication(folder), repo(name), private=True, token=TOKEN)
    publish(plan_publication(tmp_path / "drafters" / "vispec"), repo("pinned"), private=True, token=TOKEN)
    revision = hub.repositories[repo("pinned")].history[-1]
    hub.add(repo("pinned"), {"config.json": b"{}", "custom_generate/generate.py": b"raise SystemExit('of main')"})
    task = {"requests": REQUESTS, "answers": answers, "families": FAMILIES, "revision": revision}
    (tmp_path / "task.json").write_text(json.dumps(task))
    return tmp_path


def repo(name):
    return f"some-org/{name}-1.5"


def environment(hub, place, **more):
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "PYTHON"))}
    return {
        **kept,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(place / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "OMP_NUM_THREADS": "1",
        **more,
    }


def run(python, arguments, variables, folder):
    done = subprocess.run(
        [str(python), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=variables,
        cwd=folder,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def stranger(python, variables, place, *options):
    """What came out right; the terminal's questions about trust are on the same stream."""
    lines = run(python, [STRANGER, place, TOKEN, *options], variables, place)
    return re.findall("right: .*", "\n".join(lines))


def check_the_hub_was_asked_as_told(hub, place):
    """The token and the revision reached every fetch, and everything went to the cache that was named."""
    at_hub = [(path, token) for _, path, token in hub.requests if path.startswith(("/some-org", "/api/models"))]
    assert at_hub and {token for _, token in at_hub} == {TOKEN, "hf_nobody"}
    pinned = [path for path, token in at_hub if "/resolve/" in path and token == TOKEN]
    commits = {sha for repository in hub.repositories.values() for sha in repository.history}
    moving = {path for path in pinned if path.split("/resolve/")[1].split("/")[0] not in commits}
    assert all("/resolve/main/custom_generate/" in path for path in moving)  # where no revision was named
    assert not [path for path in moving if "pinned" in path]
    # AutoModel's search for an adapter leaves a note elsewhere that there is none
    elsewhere = [path.name for path in (place / "home" / "hub").rglob("*") if not path.is_dir()]
    assert set(elsewhere) <= {"adapter_config.json"}
    assert len(list((place / "own cache").glob("models--some-org--*"))) == len(FAMILIES) + 1


def test_every_family_drafts_exactly_without_the_package(hub, place):
    (place / "site").mkdir()
    (place / "site" / "sitecustomize.py").write_text(NO_PACKAGE)
    hub.requests.clear()
    variables = environment(hub, place, PYTHONPATH=str(place / "site"))
    assert stranger(sys.executable, variables, place) == EXPECTED
    check_the_hub_was_asked_as_told(hub, place)
    offline = environment(hub, place, PYTHONPATH=str(place / "site"), HF_HUB_OFFLINE="1")
    hub.requests.clear()
    assert stranger(sys.executable, offline, place, "offline") == ["right: vispec, tree"]
    assert hub.requests == []


@pytest.mark.slow
def test_in_a_fresh_environment_with_torch_and_transformers_only(hub, place):
    venv.create(place / "fresh", symlinks=True)
    python = place / "fresh" / "bin" / "python"
    site = Path(run(python, ["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], {}, place)[0])
    for entry in Path(torch.__file__).parents[1].iterdir():  # all that is installed, but for hf_mmspec's finder
        if "hf_mmspec" not in entry.name and not entry.name.endswith(".pth") and not (site / entry.name).exists():
            (site / entry.name).symlink_to(entry)
    assert stranger(python, environment(hub, place), place) == EXPECTED


def test_with_the_package_no_remote_code_runs(hub, place):
    script = (
        "import sys, hf_mmspec; from transformers import AutoConfig, AutoModel\n"
        "options = dict(token=sys.argv[2], trust_remote_code=True)\n"
        "for drafter in (AutoModel.from_pretrained(sys.argv[1], **options),\n"
        "                hf_mmspec.AutoDrafter.from_pretrained(sys.argv[1], token=sys.argv[2])):\n"
        "    assert type(drafter).__module__ == 'hf_mmspec.modeling.modeling_eagle3', type(drafter)\n"
        "assert type(AutoConfig.from_pretrained(sys.argv[1], **options)).__module__.startswith('hf_mmspec')\n"
        "print(any(name.startswith('transformers_modules') for name in sys.modules))\n"
    )
    hub.requests.clear()
    variables = environment(hub, place, PYTHONPATH=str(Path(__file__).parents[2]))
    assert run(sys.executable, ["-c", script, repo("eagle3"), TOKEN], variables, place) == ["False"]
    assert not [path for _, path, _ in hub.requests if path.endswith(".py")]


def test_the_published_drafter_is_the_one_that_was_saved(hub, place):
    for name in FAMILIES:
        published = AutoDrafter.from_pretrained(repo(name), token=TOKEN).state_dict()
        saved = AutoDrafter.from_pretrained(place / "drafters" / name).state_dict()
        assert published.keys() == saved.keys()
        assert all(torch.equal(published[key], saved[key]) for key in saved)
