"""Peak memory is that of answering, not of loading."""

import json
import subprocess
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from rich.console import Console

from hf_mmspec.console import bench as flow
from hf_mmspec.data import Columns, Source
from hf_mmspec.evaluation import loading, memory
from hf_mmspec.evaluation.bench import Settings
from hf_mmspec.evaluation.drafters import Entry
from hf_mmspec.evaluation.memory import MeasurementError, Question, peak_memory_ratios
from hf_mmspec.evaluation.prompts import open_data


@pytest.fixture(scope="module")
def folders(target, processor, drafter, tmp_path_factory):
    """The tiny target and its drafter, saved."""
    folder = tmp_path_factory.mktemp("models")
    target.save_pretrained(folder / "target")
    processor.save_pretrained(folder / "target")
    drafter.save_pretrained(folder / "drafter")
    return str(folder / "target"), str(folder / "drafter")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of the user's own."""
    folder = tmp_path_factory.mktemp("data")
    Image.new("RGB", (60, 40), "blue").save(folder / "a.png")
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "ask": "What is this?"}) + "\n")
    return str(folder)


@pytest.mark.parametrize("blind", [False, True])
def test_peak_is_printed_as_json(folders, data, blind, capsys):
    """The question and the drafter arrive in the other process as they were meant."""
    target, drafter = folders
    question = Question(target, "float32", 4, Source(data, columns=Columns(prompt="ask")))
    asked = json.dumps({"question": asdict(question), "entry": asdict(Entry("vispec", drafter, blind))})
    memory.main([asked, str(torch.get_num_threads())])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["peak_bytes"] > 2**20


def test_a_batch_is_answered_as_one(folders, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(memory, "answer", lambda target, inputs, *_: calls.append(inputs["input_ids"].shape[0]))
    question = Question(folders[0], "float32", 4, batch=2)
    memory.main([json.dumps({"question": asdict(question), "entry": None}), str(torch.get_num_threads())])
    assert calls == [2] and json.loads(capsys.readouterr().out)["peak_bytes"] > 0


def test_ratios_are_by_drafter_over_the_target_alone(monkeypatch):
    peaks = {None: 100, "d": 110, "e": 125}
    asked = []

    def child(command, **_):
        entry = json.loads(command[3])["entry"]
        asked.append(entry)
        return SimpleNamespace(stdout=f"noise\n{json.dumps({'peak_bytes': peaks[entry and entry['source']]})}\n")

    monkeypatch.setattr(memory.subprocess, "run", child)
    ratios = peak_memory_ratios(Question(None, "auto", 8), [Entry("a", "d"), Entry("b", "e", blind=True)])
    assert ratios == {"a": 1.1, "b": 1.25} and asked[0] is None and asked[2]["blind"] is True


@pytest.mark.skipif(not memory.Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_what_was_freed_before_is_forgotten():
    device = torch.device("cpu")
    big = torch.ones(64 * 2**20)  # 256 MiB
    del big
    before = memory._peak_so_far(device)
    memory._forget_peak(device)
    assert memory._peak_so_far(device) < before - 200 * 2**20


@pytest.mark.slow
def test_ratio_of_two_processes(folders):
    target, drafter = folders
    ratios = peak_memory_ratios(Question(target, "float32", 8), [Entry("vispec", drafter)])
    assert 0.9 < ratios["vispec"] < 1.5


@pytest.mark.parametrize("outcome", [subprocess.CalledProcessError(1, "child"), "no number\n", "3\n", ""])
def test_a_measurement_that_fails_says_so(outcome, monkeypatch):
    def child(*_, **__):
        if isinstance(outcome, Exception):
            raise outcome
        return SimpleNamespace(stdout=outcome)

    monkeypatch.setattr(memory.subprocess, "run", child)
    with pytest.raises(MeasurementError, match="peak memory was not measured"):
        peak_memory_ratios(Question(None, "auto", 8), [Entry("a", "d")])


def test_a_bench_is_not_lost_for_a_memory_measurement_that_fails(target, processor, drafter, monkeypatch, tmp_path):
    def fail(*_):
        raise MeasurementError("peak memory was not measured: no room")

    monkeypatch.setattr(flow, "peak_memory_ratios", fail)
    monkeypatch.setattr(loading, "load_target", lambda *_: (target, processor))
    monkeypatch.setattr(loading, "load_drafter", lambda *_: drafter)
    settings = Settings(tasks=("scene",), samples=1, repetitions=1, max_new_tokens=3)
    run = flow.Run(None, "auto", [Entry("vispec", "d")], settings, open_data(["embedded"], 1), Source(""))
    console, file = Console(record=True), tmp_path / "bench.json"
    report = flow.show_bench(run, console, flow.Files(file))
    assert report["summary"]["vispec"]["peak_memory_ratio"] is None and file.exists()
    assert "peak memory was not measured" in console.export_text()
