"""Peak memory is that of answering, not of loading."""

import json
import subprocess
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from hf_mmspec.console.show import show_bench
from hf_mmspec.evaluation import memory
from hf_mmspec.evaluation.bench import Settings


@pytest.fixture(scope="module")
def folders(target, processor, drafter, tmp_path_factory):
    """The tiny target and its drafter, saved."""
    folder = tmp_path_factory.mktemp("models")
    target.save_pretrained(folder / "target")
    processor.save_pretrained(folder / "target")
    drafter.save_pretrained(folder / "drafter")
    return str(folder / "target"), str(folder / "drafter")


def test_peak_is_printed_as_json(folders, capsys):
    target, drafter = folders
    threads = str(torch.get_num_threads())
    memory.main(
        ["--model", target, "--drafter", drafter, "--dtype", "float32", "--max-new-tokens", "4", "--threads", threads]
    )
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["peak_bytes"] > 2**20


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
    assert 0.9 < memory.peak_memory_ratio(*folders, "float32", 8) < 1.5


@pytest.mark.parametrize("outcome", [subprocess.CalledProcessError(1, "child"), "no number\n", "3\n", ""])
def test_a_bench_is_not_lost_for_a_memory_measurement_that_fails(
    target, processor, drafter, outcome, monkeypatch, tmp_path
):
    def child(*_, **__):
        if isinstance(outcome, Exception):
            raise outcome
        return SimpleNamespace(stdout=outcome)

    monkeypatch.setattr(memory.subprocess, "run", child)
    console, file = Console(record=True), tmp_path / "bench.json"
    report = show_bench(
        target,
        processor,
        drafter,
        console,
        Settings(("scene",), samples=1, repetitions=1, max_new_tokens=3),
        budgets=(),
        sources={"model": None, "drafter": "drafter", "dtype": "float32"},
        measure_memory=True,
        json_file=file,
        markdown_file=None,
    )
    assert report["summary"]["vispec"]["peak_memory_ratio"] is None and file.exists()
    assert "peak memory was not measured" in console.export_text()
