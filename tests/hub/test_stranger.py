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
from transformers import AutoConfig, AutoModel

from hf_mmspec import AutoDrafter
from hf_mmspec.hub import plan_publication, publish
from tests.evaluation.tiny import tiny_processor
from tests.generation import tiny
from tests.generation.test_every_family import build
from tests.hub.stub_hub import TOKEN
from tests.slow_parameters import slow

FAMILIES = ["vispec", "msd", "flash", "eagle", "eagle3", "eagle3_narrow"]
# Of the published code each kind of modules once: EAGLE's are among MSD's, and a narrow drafter has those of EAGLE-3.
DISTINCT = ["vispec", "msd", "flash", "eagle3"]
SAMPLED = ["vispec", "flash"]
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
# as parameters of `place`
EVERY = slow((FAMILIES, FAMILIES), id="every family")
distinct = pytest.param((DISTINCT, SAMPLED), id="distinct")
distinct_or_every = pytest.mark.parametrize("place", [distinct, EVERY], indirect=True)
NO_PACKAGE = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "hf_mmspec":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
"""
STRANGER = (Path(__file__).parent / "stranger.py").resolve()


def checks(families, sampled):
    """Drafters and requests that a stranger tries, besides `the rest`."""
    named = [(name, request) for name in families for request in ("tree", *["sampling"] * (name in sampled))]
    return [*named, *(("vispec", request) for request in ("chain", "processors", "automatic"))]


@pytest.fixture
def place(request, hub, tmp_path):
    """A private Hub with a drafter of each of some families, a target, a prompt, and the target's own answers."""
    families, sampled = request.param
    target, inputs = tiny.llava(), tiny.llava_prompt(seed=2, images=2)
    target.save_pretrained(tmp_path / "target")
    torch.save(inputs, tmp_path / "inputs.pt")
    answers = {}
    for name, (options, _) in REQUESTS.items():
        torch.manual_seed(11)
        answers[name] = target.generate(**inputs, **options)[0].tolist()
    processor = tiny_processor()
    processor.tokenizer.save_pretrained(tmp_path / "tokenizer")
    for name in families:
        folder = tmp_path / "drafters" / name
        build(name, target).save_pretrained(folder)
        (folder / "README.md").write_text("# A drafter")
        publish(plan_publication(folder), repo(name), private=True, token=TOKEN)
    publish(plan_publication(tmp_path / "drafters" / "vispec"), repo("pinned"), private=True, token=TOKEN)
    revision = hub.repositories[repo("pinned")].history[-1]
    hub.add(repo("pinned"), {"config.json": b"{}", "custom_generate/generate.py": b"raise SystemExit('of main')"})
    task = {"requests": REQUESTS, "answers": answers, "checks": checks(families, sampled), "revision": revision}
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


def check_stranger(python, variables, place):
    """Everything comes out right; the terminal's questions about trust are on the same stream."""
    lines = run(python, [STRANGER, place, TOKEN], variables, place)
    asked = [f"{name}, {request}" for name, request in json.loads((place / "task.json").read_text())["checks"]]
    expected = [*asked, "vispec, the rest", "refusals", "vispec, tree"]  # the last one offline
    assert re.findall("right: (.*)", "\n".join(lines)) == expected


def check_the_hub_was_asked_as_told(hub, place):
    """The token and the revision reached every fetch, everything went to the cache that was named, and nothing was
    asked after the mark that comes before a request offline."""
    assert hub.requests[-1][:2] == ("GET", "/offline-from-here")
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
    published = {path.name for path in (place / "drafters").iterdir()} | {"pinned"}
    assert len(list((place / "own cache").glob("models--some-org--*"))) == len(published)


@distinct_or_every
def test_every_family_drafts_exactly_without_the_package(hub, place):
    (place / "site").mkdir()
    (place / "site" / "sitecustomize.py").write_text(NO_PACKAGE)
    hub.requests.clear()
    variables = environment(hub, place, PYTHONPATH=str(place / "site"))
    check_stranger(sys.executable, variables, place)
    check_the_hub_was_asked_as_told(hub, place)


@pytest.mark.parametrize("place", [EVERY], indirect=True)
def test_in_a_fresh_environment_with_torch_and_transformers_only(hub, place):
    venv.create(place / "fresh", symlinks=True)
    python = place / "fresh" / "bin" / "python"
    site = Path(run(python, ["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], {}, place)[0])
    for entry in Path(torch.__file__).parents[1].iterdir():  # all that is installed, but for hf_mmspec's finder
        if "hf_mmspec" not in entry.name and not entry.name.endswith(".pth") and not (site / entry.name).exists():
            (site / entry.name).symlink_to(entry)
    check_stranger(python, environment(hub, place), place)


def modules_of_remote_code():
    return {name for name in sys.modules if name.startswith("transformers_modules")}


@distinct_or_every
def test_with_the_package_what_was_saved_loads_and_no_remote_code_runs(hub, place):
    before, options = modules_of_remote_code(), dict(token=TOKEN, trust_remote_code=True)
    hub.requests.clear()
    for folder in (place / "drafters").iterdir():
        saved = AutoDrafter.from_pretrained(folder)
        for loader, own in ((AutoDrafter, dict(token=TOKEN)), (AutoModel, options)):
            published = loader.from_pretrained(repo(folder.name), **own)
            assert type(published) is type(saved)
            assert published.state_dict().keys() == saved.state_dict().keys()
            assert all(torch.equal(published.state_dict()[key], value) for key, value in saved.state_dict().items())
        assert type(AutoConfig.from_pretrained(repo(folder.name), **options)) is type(saved.config)
    assert type(saved).__module__.startswith("hf_mmspec.modeling.")
    assert modules_of_remote_code() == before and not [path for _, path, _ in hub.requests if path.endswith(".py")]
