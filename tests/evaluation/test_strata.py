"""What a report says about the prompts and answers themselves: strata, repetition, processors at work."""

import pytest
import torch

from hf_mmspec.evaluation.bench import Results, Settings
from hf_mmspec.evaluation.contenders import STOCK, Run
from hf_mmspec.evaluation.machine import machine_facts
from hf_mmspec.evaluation.markdown import settings_lines, to_markdown
from hf_mmspec.evaluation.processors import active_processors
from hf_mmspec.evaluation.repetition import is_repetitive, repeated_share
from hf_mmspec.evaluation.report import make_report
from hf_mmspec.evaluation.strata import terciles
from hf_mmspec.generation import Speculation

LOOPING = [1, 2, 3, 4, 5] * 12
FRESH = list(range(60))


def test_terciles_are_of_equal_size_and_keep_equal_values_together():
    assert terciles([9, 1, 5, 2, 8, 4]) == [[1, 3], [2, 5], [0, 4]]
    assert terciles([7, 7, 7, 7]) == [[0, 1, 2, 3]]
    assert terciles([3]) == [[0]]
    assert terciles([1, 1, 1, 1, 9, 5]) == [[0, 1, 2, 3], [4, 5]]


def results(answers, image_tokens, pace):
    """One repetition over prompts with `answers`; ours drafts `pace` tokens a round and is as many times as fast."""
    stock = [Run([list(each)], 2.0 + len(each), float(len(each) - 1), len(each) - 1, len(each)) for each in answers]
    ours = []
    for run, times in zip(stock, pace, strict=True):
        rounds = run.decode_tokens // times
        seconds = {"prefill": 0.0, "draft": 0.0, "verify": run.decode_seconds / times, "other": 0.0}
        speculation = Speculation([times - 1] * rounds, [times] * rounds, seconds)
        ours.append(Run(run.rows, run.seconds, run.decode_seconds / times, run.decode_tokens, 0, speculation))
    runs = {STOCK: {"all": [stock]}, "d": {"all": [ours]}}
    nothing = {name: {"all": [None] * len(answers)} for name in runs}
    return Results(0.0, runs, nothing, {name: {"all": None} for name in runs}, {"d": 1.2}, {"all": image_tokens})


def test_strata_tell_long_answers_from_short_ones():
    lengths = [13, 61, 25, 73, 37, 85]
    answers = [range(length) for length in lengths]
    report = make_report([results(answers, [64] * 6, [2, 4, 2, 6, 4, 6])], Settings(), machine_facts())
    found = report["summary"]["d"]["strata"]
    groups = found["answer_length"]
    assert [(group["from"], group["to"], group["n"]) for group in groups] == [(13, 25, 2), (37, 61, 2), (73, 85, 2)]
    assert [group["acceptance_length"] for group in groups] == pytest.approx([2, 4, 6])
    assert [group["decode_speedup"] for group in groups] == pytest.approx([2, 4, 6])
    assert [(group["from"], group["to"], group["n"]) for group in found["image_tokens"]] == [(64, 64, 6)]
    text = to_markdown(report)
    assert "| d | 37 to 61 tokens of the answer | 2 | 4.00 | 4.00x |" in text
    assert "| d | 64 to 64 image tokens | 6 |" in text


def test_the_slowest_prompt_is_named():
    report = make_report([results([range(61)] * 3, [64] * 3, [4, 2, 6])], Settings(), machine_facts())
    expected = {"task": "all", "number": 1, "decode_speedup": pytest.approx(2)}
    assert report["rows"][0]["slowest_prompt"] == report["summary"]["d"]["slowest_prompt"] == expected
    assert "slowest prompt 2.00x (all 1)" in to_markdown(report)


def test_repetition_is_the_share_of_ngrams_that_came_before():
    assert repeated_share(FRESH) == 0 and repeated_share(FRESH[:5]) == 0 and repeated_share([]) == 0
    assert repeated_share(LOOPING) == pytest.approx(1 - 5 / 53)
    assert repeated_share([1, 1, 1], n=2) == 0.5
    assert is_repetitive(LOOPING) and not is_repetitive(FRESH)


def test_repetitive_answers_are_counted_and_warned_about():
    report = make_report([results([LOOPING, FRESH, LOOPING], [1, 2, 3], [2, 2, 2])], Settings(), machine_facts())
    assert report["rows"][0]["repetitive_answers"] == report["summary"]["d"]["repetitive_answers"] == 2
    assert len(report["warnings"]) == 1
    assert report["warnings"][0].startswith("all at T = 0: 2 of 3 stock answers are repetitive (more than 20%")
    assert f"**Warning**: {report['warnings'][0]}" in to_markdown(report)
    quiet = make_report([results([FRESH], [1], [2])], Settings(), machine_facts())
    assert quiet["warnings"] == [] and "Warning" not in to_markdown(quiet)


def test_processors_are_those_of_the_targets_generation_config(target):
    inputs = {"input_ids": torch.tensor([[5, 6]])}
    assert active_processors(target, inputs, 0.0) == ["SuppressTokensLogitsProcessor()"]
    sampled = active_processors(target, inputs, 0.7)
    assert sampled[1:3] == [
        "TemperatureLogitsWarper(temperature=0.7)",
        "TopKLogitsWarper(top_k=50, min_tokens_to_keep=1)",
    ]


def test_settings_say_what_was_skipped_and_what_was_active():
    lines = settings_lines(
        {
            "splits": {"mine": None, "embedded": "val"},
            "skipped": {"no prompt": 2},
            "processors": {"0": [], "1": ["A()", "B()"]},
        }
    )
    assert lines == [
        "* Data: mine (its usual split), embedded (val).",
        "* Logits processors at T = 0: none.",
        "* Logits processors at T = 1: A(), B().",
        "* Skipped: 2 x no prompt.",
    ]
