"""The curve over batch sizes: what counts as a token, and that every row is checked."""

import json
import sys

import pytest
import torch

from hf_mmspec.data import Source, open_source
from hf_mmspec.evaluation import batch_curve
from hf_mmspec.evaluation.batch_curve import measure_point
from hf_mmspec.evaluation.contenders import STOCK, Contender, _up_to


def test_padding_is_no_token():
    assert (
        _up_to([5, 6, 1, 1, 1], {1}) == [5, 6, 1] and _up_to([5, 6], {1}) == [5, 6] and _up_to([2, 9], {1, 2}) == [2]
    )


@pytest.fixture
def conversations():
    return list(open_source(Source("embedded", split="test", limit=3)))


def test_a_point_is_measured_and_checked(target, processor, drafter, conversations):
    point = measure_point(target, processor, conversations, Contender("d", {"assistant_model": drafter}), 6, 1)
    assert point.batch == 3 and point.failures == 0 and 0 < point.drafted_per_round <= 4
    assert point.decode_speedup == pytest.approx(point.tokens_per_second / point.stock_tokens_per_second)
    assert 1 <= point.acceptance_length <= 3 and point.end_to_end_speedup > 0


def test_wrong_answers_are_counted(target, processor, conversations):
    biased = Contender("wrong", {"sequence_bias": {(40,): 50.0}})
    assert measure_point(target, processor, conversations[:2], biased, 3, 1).failures == 2
    assert measure_point(target, processor, conversations[:2], Contender(STOCK), 3, 1).failures == 0


def test_the_command_writes_a_point_for_each_size(target, processor, drafter, monkeypatch, tmp_path):
    monkeypatch.setattr(batch_curve, "load_target", lambda *_: (target, processor))
    monkeypatch.setattr(batch_curve, "load_drafter", lambda *_: drafter)
    monkeypatch.setattr(batch_curve, "default_drafter", lambda: "")
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    file = tmp_path / "new" / "curve.json"
    command = ["batch_curve", "--json", str(file), "--batch", "1", "2", "--max-new-tokens", "4", "--repetitions", "1"]
    monkeypatch.setattr(sys, "argv", command)
    batch_curve.main()
    report = json.loads(file.read_text())
    assert [point["batch"] for point in report["points"]] == [1, 2] and report["machine"]["dtype"] == "float32"
