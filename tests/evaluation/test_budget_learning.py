"""The experiments with a learning budget: what they report, and that they leave no trace."""

import json
import os
from contextlib import nullcontext

import pytest
import torch
from PIL import Image

from hf_mmspec.evaluation import budget_learning
from hf_mmspec.evaluation.budget_learning import Dictation, busy_machine, nothing_known, random_drafter
from hf_mmspec.generation import cost_cache, request_plan
from hf_mmspec.generation.costs import CostRecord, ForwardCosts
from tests.evaluation.tiny import tiny_drafter

RECORD = CostRecord(
    ForwardCosts(((1, 0.010), (8, 0.011), (32, 0.013)), first_level=0.001, level=((1, 0.001), (10, 0.001))),
    in_doubt=False,
    keys=("target", "drafter"),
)


@pytest.fixture
def command(target, processor, drafter, monkeypatch, tmp_path):
    """The command on tiny models, with the words that follow it."""
    monkeypatch.setattr(cost_cache, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(request_plan, "cost_record", lambda *models: RECORD)
    monkeypatch.setattr(budget_learning, "busy_machine", lambda programs: nullcontext())
    monkeypatch.setattr(budget_learning, "OTHER_DOMAIN", "Lorem ipsum dolor")
    monkeypatch.setattr(budget_learning, "load_target", lambda: (target, processor))
    monkeypatch.setattr(budget_learning, "load_drafter", lambda *_: drafter)
    few = ["--prompts", "2", "--max-new-tokens", "8", "--repetitions", "1", "--threads", "1"]

    def run(*words):
        monkeypatch.setattr("sys.argv", ["budget_learning", *few, *map(str, words)])
        threads = torch.get_num_threads()
        budget_learning.main()
        torch.set_num_threads(threads)

    return run


def test_every_experiment_reports_and_the_picture_is_not_blank(command, tmp_path):
    file = tmp_path / "report" / "learning.json"
    command("--json", file, "--plot", tmp_path / "plot.png")
    report = json.loads(file.read_text())
    assert tuple(report) == budget_learning.EXPERIMENTS
    assert all(each["machine"]["dtype"] == "float32" for each in report.values())
    assert report["busy_then_free"]["after_busy_to_quiet"] > 0
    for name in ("random_drafter", "random_drafter_sampled", "free_questions", "own_domain"):
        assert len(report[name]["by_prompt"]) == 2 and report[name]["seconds_to_generate"] > 0
    change = report["change_of_domain"]
    start, stop = change["other_domain"]
    assert stop - start == len("Lorem ipsum dolor") and change["tokens"] == 2 * start + (stop - start)
    assert len(change["place"]) == len(change["levels"]) == len(change["accepted"])
    assert change["place"][-1] + change["accepted"][-1] + 1 == change["tokens"]
    assert len(Image.open(tmp_path / "plot.png").convert("RGB").getcolors(1 << 20)) > 20


def test_a_file_keeps_what_was_done(command, tmp_path, capsys):
    file = tmp_path / "learning.json"
    command("--experiment", "random_drafter", "--json", file)
    first = json.loads(file.read_text())
    assert list(first) == ["random_drafter"]
    command("--experiment", "random_drafter", "--experiment", "free_questions", "--json", file)
    both = json.loads(file.read_text())
    assert list(both) == ["random_drafter", "free_questions"] and both["random_drafter"] == first["random_drafter"]


def test_a_dictated_answer_is_what_was_dictated():
    scores = torch.zeros(1, 9)
    dictation = Dictation([4, 7], prompt_length=3)
    assert dictation(torch.zeros(1, 3), scores).argmax() == 4 and dictation(torch.zeros(1, 4), scores).argmax() == 7
    assert not scores.any()


def test_nothing_known_forgets_and_gives_the_folder_back(monkeypatch):
    monkeypatch.setenv("HF_MMSPEC_CACHE", "mine")
    monkeypatch.setattr(cost_cache, "_known", {"file": None})
    with nothing_known():
        assert not cost_cache._known and os.environ["HF_MMSPEC_CACHE"] != "mine"
    assert os.environ["HF_MMSPEC_CACHE"] == "mine"


def test_programs_that_keep_a_machine_busy_end_with_it(monkeypatch):
    started = []
    real = budget_learning.subprocess.Popen
    monkeypatch.setattr(budget_learning, "_BUSY_LOOP", "import time; time.sleep(60)")
    monkeypatch.setattr(budget_learning.subprocess, "Popen", lambda *a: started.append(real(*a)) or started[-1])
    with busy_machine(2):
        assert len(started) == 2 and all(program.poll() is None for program in started)
    assert all(program.poll() is not None for program in started)


def test_a_random_drafter_has_the_same_shape_and_other_weights(target):
    torch.manual_seed(4711)  # not the state that the stranger is drawn from
    drafter = tiny_drafter(target)
    stranger = random_drafter(drafter)
    mine, theirs = drafter.state_dict(), stranger.state_dict()
    assert {name: value.shape for name, value in mine.items()} == {name: v.shape for name, v in theirs.items()}
    assert any(not torch.equal(mine[name], theirs[name]) for name in mine)
