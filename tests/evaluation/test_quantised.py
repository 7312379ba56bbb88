"""The command that measures a target in several forms of its weights, on tiny models."""

import json

import pytest
import torch

from hf_mmspec.evaluation import loading, quantised
from hf_mmspec.evaluation.memory import MeasurementError
from hf_mmspec.evaluation.quantised import drafters_of, main, weight_bytes
from hf_mmspec.modeling import ViSpecDrafter
from tests.evaluation.tiny import tiny_processor, tiny_target
from tests.generation import packed


@pytest.fixture
def folders(tmp_path):
    """A target, and a drafter that drafts always."""
    target = tiny_target(hidden_size=64, intermediate_size=128)
    target.save_pretrained(tmp_path / "target")
    tiny_processor().save_pretrained(tmp_path / "target")
    drafter = ViSpecDrafter.from_target(target)
    for name, value in {"draft_depth": 2, "draft_top_k": 2, "draft_total_tokens": 5}.items():
        setattr(drafter.generation_config, name, value)
    drafter.save_pretrained(tmp_path / "drafter")
    return str(tmp_path / "target"), str(tmp_path / "drafter")


def test_a_row_for_each_form(folders, tmp_path, monkeypatch):
    pytest.importorskip("bitsandbytes")
    target, drafter = folders
    peaks = iter([100 * 2**20, 110 * 2**20, MeasurementError("no room"), 90 * 2**20])

    def peak(question, entry):
        assert question.quantize in (None, "nf4") and (entry is None or entry.source == drafter)
        found = next(peaks)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(quantised, "peak_memory", peak)
    monkeypatch.setattr(quantised, "_VERIFY_SECONDS", 0.1)
    options = ["--model", target, "--drafter", drafter, "--form", "fp32", "--form", "4-bit"]
    size = [
        "--samples",
        "1",
        "--repetitions",
        "1",
        "--max-new-tokens",
        "6,chat=4",
        "--together",
        "scene,chart",
        "--threads",
        str(torch.get_num_threads()),
    ]
    main([*options, *size, "--json", str(tmp_path / "out/f.json"), "--markdown", str(tmp_path / "out/f.md")])
    rows = json.loads((tmp_path / "out/f.json").read_text())["rows"]
    assert [(row["form"], row["weights"]) for row in rows] == [("fp32", None), ("4-bit", "bitsandbytes nf4")]
    assert rows[0]["weight_bytes"] > rows[1]["weight_bytes"] > 0
    assert [(row["peak_bytes"], row["peak_bytes_with_drafter"]) for row in rows] == [
        (100 * 2**20, 110 * 2**20),
        (None, 90 * 2**20),
    ]
    sure = {"1", "8", "16"}  # and 32 where there is time for it
    assert all(row["verify_ms"].keys() >= sure and row["growth"]["1"] == 1 for row in rows)
    assert all(row["identical"] is True and row["acceptance_length"] >= 1 for row in rows)
    for row in rows:
        tasks = row["by_task"]
        assert list(tasks) == ["scene", "chart", "dialog", "rewrite", "chat", "scene, chart"]
        assert sum(tasks[task]["n"] for task in list(tasks)[:-1]) == row["n"] and tasks["scene, chart"]["n"] == 2
    table = (tmp_path / "out/f.md").read_text()
    assert "| fp32 (float32) |" in table and "| 4-bit (bitsandbytes nf4) |" in table and "| 100 | 110 |" in table


def test_bytes_of_packed_weights(tmp_path):
    """Half a byte or one for a weight of the decoder, and the scales; all others as they are."""
    full = packed.save_full("llava", tmp_path)
    layers = [module for module in full.get_decoder().layers.modules() if hasattr(module, "in_features")]
    inside = sum(layer.weight.numel() for layer in layers)
    rest = weight_bytes(full) - 4 * inside
    assert weight_bytes(packed.load(tmp_path, "nf4")) - rest == inside // 2 + 4 * inside // 64
    rows = sum(layer.out_features for layer in layers)
    assert weight_bytes(packed.load(tmp_path, "int8")) - rest == pytest.approx(inside + 4 * rows, abs=4 * rows)
    assert weight_bytes(packed.load(tmp_path, "torchao int8")) < weight_bytes(full) - 2 * inside


def test_drafters_by_form(monkeypatch):
    monkeypatch.setattr(loading, "default_drafter", lambda: "default")
    forms = ["bf16", "4-bit"]
    assert drafters_of([], forms, None) == {"bf16": "default", "4-bit": "default"}
    assert drafters_of(["4-bit=own", "a=b"], forms, "M") == {"bf16": "a=b", "4-bit": "own"}
    assert drafters_of(["4-bit=own"], ["4-bit"], "M") == {"4-bit": "own"}
    with pytest.raises(ValueError, match="give --drafter together with --model"):
        drafters_of(["4-bit=own"], forms, "M")
