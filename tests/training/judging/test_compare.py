"""Several drafters on the same prompts: a line of JSON each, the same for the same drafter."""

import json

from hf_mmspec.data.embedded import TASKS
from hf_mmspec.training.judging import compare
from tests.evaluation.tiny import tiny_drafter, tiny_processor, tiny_target


def test_a_line_for_each_drafter(tmp_path, monkeypatch, capsys):
    target, plain = tiny_target(), compare.AcceptanceJudge
    monkeypatch.setattr(compare, "load_target", lambda *_: (target, tiny_processor()))
    monkeypatch.setattr(compare, "AcceptanceJudge", lambda *args: plain(*args, max_new_tokens=8))
    for name in ("a", "b"):
        tiny_drafter(target).save_pretrained(tmp_path / name)
    compare.main([str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "a")], limit=5, skip=0, threads=1)
    first, second, again = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first["drafter"] == str(tmp_path / "a") and second["drafter"] == str(tmp_path / "b")
    assert first == again and first["acceptance_length"] >= 1
    assert {f"acceptance_length/{task}" for task in TASKS} <= set(first)
