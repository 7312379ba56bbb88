"""The finished folder: whole or as it was, never in place of something else, and saying what made it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hf_mmspec.auto import AutoDrafter
from hf_mmspec.evaluation import machine
from hf_mmspec.modeling import FAMILIES
from hf_mmspec.training.judging.ranks import Ranks
from hf_mmspec.training.result import folder as folder_module
from hf_mmspec.training.result.folder import FolderInUseError, insist_on_place, save_result
from hf_mmspec.training.result.provenance import provenance
from tests.generation import tiny

RANKS = Ranks([[0.75, 0.1], [0.5, 0.2], [0.25, 0.3]], 1.4142)
RESULTS = {"acceptance_length": 3.14159, "acceptance_length/chart": 4.0, "acceptance_length/scene": 2.5}
BUDGET = {"draft_depth": 6, "draft_top_k": 8, "draft_total_tokens": 30, "draft_mode": "tree"}
TRAINING = {
    "target": "org/target",
    "data": [],
    "records": 345,
    "outside": 0.0123,
    "recipe": {"family": "vispec"},
    "results": RESULTS,
    "held_out": {"prompts": 12, "budget": BUDGET},
    "provenance": {"command": "mmspec train"},
}


def save(place, family="vispec", training=None, **fields):
    torch.manual_seed(0)
    drafter = FAMILIES[family][1].from_target(tiny.llava(), torch.arange(3, 60), **fields)
    save_result(place, drafter, RANKS, {**TRAINING, **(training or {})})
    return drafter


def read_training(folder):
    return json.loads((folder / "training.json").read_text())


def test_the_folder_loads_and_carries_its_ranks(tmp_path):
    drafter = save(tmp_path / "mine")
    loaded = AutoDrafter.from_pretrained(tmp_path / "mine")
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in drafter.state_dict().items())
    assert loaded.dtype == torch.bfloat16
    assert loaded.config.acceptance_by_depth == [0.75, 0.5, 0.25]
    assert loaded.config.acceptance_by_rank == RANKS.by_rank
    assert read_training(tmp_path / "mine") == {**TRAINING, "chain": RANKS.chain}
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_card_has_the_numbers(tmp_path):
    save(tmp_path / "mine", "flash", num_latents=4)
    card = (tmp_path / "mine" / "README.md").read_text()
    for words in (
        "# mine",
        "FLASH, [arXiv 2505.12728]",
        "org/target",
        "12 held-out prompts",
        "a tree of depth 6, 8 children, 30 nodes",
        "| all | 3.14 |\n| chart | 4.00 |\n| scene | 2.50 |",
        "0.75, 0.50, 0.25. A greedy chain of 3 drafts has 1.41 accepted",
        "57 draft tokens",
        "345 answers",
        "1.23",
        "pipeline_tag: image-text-to-text",
        "- flash",
    ):
        assert words in card, words


def test_a_drafter_that_is_there_is_replaced_whole(tmp_path):
    save(tmp_path / "mine")
    (tmp_path / "mine" / "left_over.txt").write_text("old")
    save(tmp_path / "mine", training={"recipe": {"family": "other"}})
    assert read_training(tmp_path / "mine")["recipe"] == {"family": "other"}
    assert not (tmp_path / "mine" / "left_over.txt").exists()


def test_what_was_there_stays_where_writing_fails(tmp_path, monkeypatch):
    save(tmp_path / "mine")
    before = {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()}

    def full(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(folder_module, "write_card", full)
    with pytest.raises(OSError, match="disk full"):
        save(tmp_path / "mine", training={"recipe": {"family": "other"}})
    assert {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()} == before
    monkeypatch.undo()
    save(tmp_path / "mine", training={"recipe": {"family": "other"}})
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_place_is_never_left_half_emptied(tmp_path, monkeypatch):
    """The old folder is moved away whole and removed only when the new one is there."""
    save(tmp_path / "mine")
    removed, remove = [], folder_module.shutil.rmtree

    def watched(path, **options):
        removed.append((path.name, path.exists(), read_training(tmp_path / "mine")["recipe"]))
        remove(path, **options)

    monkeypatch.setattr(folder_module.shutil, "rmtree", watched)
    save(tmp_path / "mine", training={"recipe": {"family": "other"}})
    assert [(name, recipe) for name, exists, recipe in removed if exists] == [(".mine.old", {"family": "other"})]


def test_only_a_drafters_place_is_taken(tmp_path):
    insist_on_place(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    insist_on_place(tmp_path / "empty")
    save(tmp_path / "mine")
    insist_on_place(tmp_path / "mine")
    (tmp_path / "empty" / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("")
    for name in ("empty", "file"):
        with pytest.raises(FolderInUseError, match=f"{name} holds something else: .*--out"):
            insist_on_place(tmp_path / name)


def test_what_was_put_beside_a_result_is_not_deleted(tmp_path):
    """Measurements, pictures, a repository."""
    save(tmp_path / "mine")
    (tmp_path / "mine" / ".git").mkdir()
    (tmp_path / "mine" / "bench.json").write_text("{}")
    with pytest.raises(FolderInUseError, match=r"mine is a drafter to which .git, bench.json was added.*--out"):
        insist_on_place(tmp_path / "mine")


def test_all_that_is_written_may_be_replaced(tmp_path):
    save(tmp_path / "mine")
    AutoDrafter.from_pretrained(tmp_path / "mine").save_pretrained(tmp_path / "mine", max_shard_size="20KB")
    assert len(list((tmp_path / "mine").glob("model-*.safetensors"))) > 1
    insist_on_place(tmp_path / "mine")


@pytest.mark.parametrize("place", [".", "..", "/"])
def test_a_folder_without_a_name_is_refused(place):
    """The result is written beside it."""
    with pytest.raises(FolderInUseError, match="by its own name"):
        insist_on_place(Path(place))


def test_provenance_has_no_path_of_this_machine(monkeypatch):
    arguments = [
        "/usr/bin/mmspec",
        "train",
        "--model",
        "/home/me/qwen",
        "--out=/home/me/out",
        "--set",
        "stages.0.epochs=2",
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    found = provenance()
    assert found["command"] == "mmspec train --model qwen --out=out --set stages.0.epochs=2"
    assert found["packages"]["torch"] == torch.__version__
    assert found["git_revision"] == machine.git_revision()
    assert "/home" not in json.dumps(found)


def test_the_revision_is_the_packages_own(tmp_path, monkeypatch):
    """Not that of the user's project, in whose virtual environment the package is installed."""

    def git(*arguments):
        who = ("-c", "user.name=me", "-c", "user.email=me@example.org")
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    installed = tmp_path / "machine.py"
    installed.write_text("")
    (tmp_path / "project.py").write_text("")
    git("init")
    git("add", "project.py")
    git("commit", "-m", "mine")
    monkeypatch.setattr(machine, "__file__", str(installed))
    assert provenance()["git_revision"] is machine.machine_facts()["git_revision"] is None
    git("add", "machine.py")
    git("commit", "-m", "ours")
    assert len(provenance()["git_revision"]) == 12
    installed.write_text("changed")
    assert provenance()["git_revision"].endswith("-dirty")
