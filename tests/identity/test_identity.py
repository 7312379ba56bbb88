"""A few of the cases of `python -m tests.identity`; and that it finds a fault and prints a case that shows it."""

import json
from dataclasses import replace

import pytest
import torch

from hf_mmspec.generation import loop
from hf_mmspec.generation.loop import walk
from tests.families import rows
from tests.families.test_families import WORKING

from . import __main__, runner
from .case import Case
from .models import Models
from .strategy import NO_STATIC_CHUNKS_OF_PICTURES


@pytest.fixture(scope="module")
def models():
    return Models()


def test_some_cases_of_some_families():
    """Of windows, of three positions, of shared rows and of plain decoders."""
    report = runner.run(24, 0, lambda report: None, ("LLaVA 1.5", "Qwen2.5-VL", "Gemma 3n", "LLaVA on Mistral"))
    assert not report.failures, report.failures[0].case.snippet
    assert report.cases >= 24 and report.accepted > 0
    assert sum(report.by["target family"].values()) == report.cases


def test_every_family_has_a_batch_of_pictures(models):
    """Ragged ones, with and without pictures."""
    for family in WORKING:
        Case(family, "oracle", rows=((3, 2, 5), (4, 0, 9), (5, 1, 2)), limit=4).check(models)


@pytest.mark.parametrize("family", NO_STATIC_CHUNKS_OF_PICTURES)
def test_stock_chunks_of_pictures_differ_by_cache(models, family):
    """Why they are left out; without pictures or without chunks, the caches agree."""
    for pictures, options in ((2, {}), (0, dict(prefill_chunk_size=5)), (2, dict(prefill_chunk_size=5))):
        inputs = rows.batch(WORKING[family], models.prompts(family, ((1, pictures, 7),)))
        options |= dict(max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True)
        dynamic, static = (
            models.target(family).generate(**inputs, **options, cache_implementation=kind).logits[0]
            for kind in ("dynamic", "static")
        )
        agree = torch.allclose(dynamic, static, atol=1e-4)
        assert agree == (pictures == 0 or "prefill_chunk_size" not in options)


def of_neighbours(tree, verified, answer):
    """A verification that takes the logits of another node."""
    return walk(tree, replace(verified, logits=verified.logits.roll(1, 0)), answer)


def test_a_fault_is_found_and_printed_as_python(monkeypatch, capsys, tmp_path):
    """What is printed fails where the fault is, and passes where it is not."""
    with monkeypatch.context() as patch:
        patch.setattr(loop, "walk", of_neighbours)
        assert __main__.main(["--cases", "400", "--json", str(tmp_path / "out.json")]) == 1
        (snippet,) = json.loads((tmp_path / "out.json").read_text())["failures"]
        assert snippet in capsys.readouterr().out
        with pytest.raises(AssertionError):
            exec(snippet, {})
    exec(snippet, {})
