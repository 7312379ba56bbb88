"""Turns of a chat against stock `generate`: who reads what, and that the numbers add up."""

import json
import sys

import pytest

from hf_mmspec.evaluation import chat_turns
from hf_mmspec.evaluation.chat_turns import CHAT, DRAFTER, SCRATCH, STOCK, TURNS, measure, summarise


@pytest.fixture(scope="module")
def rows(target, processor, drafter):
    return measure(target, processor, drafter, conversations=2, max_new_tokens=8)


def test_every_contender_takes_every_turn_and_answers_the_same(rows):
    assert {(row["contender"], row["turn"]) for row in rows} == {
        (name, turn) for name in (STOCK, SCRATCH, CHAT, DRAFTER) for turn in range(1, TURNS + 1)
    }
    assert all(row["identical"] == 1 and 0 < row["seconds_to_first_token"] <= row["seconds"] for row in rows)


def test_who_reads_what(rows):
    """The kept caches read the new turn, a chat one token more; from scratch all pictures are read again."""
    read = {(row["contender"], row["turn"]): row["read"] for row in rows}
    for turn in range(2, TURNS + 1):
        assert read[STOCK, turn] <= read[CHAT, turn] == read[DRAFTER, turn] <= read[STOCK, turn] + 1
    assert read[SCRATCH, TURNS] > 3 * 144 > 144 > read[STOCK, TURNS]


def test_the_ratio_is_of_the_last_turn():
    rows = [
        {"contender": name, "turn": turn, "seconds_to_first_token": wait * turn}
        for name, wait in ((STOCK, 1.0), (CHAT, 1.1))
        for turn in (1, 2)
    ]
    assert summarise(rows) == {STOCK: 1.0, CHAT: pytest.approx(1.1)}


def test_the_command_writes_a_report(target, processor, drafter, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(chat_turns, "load_target", lambda *_: (target, processor))
    monkeypatch.setattr(chat_turns, "load_drafter", lambda *_: drafter)
    options = ["--conversations", "1", "--max-new-tokens", "4", "--json", str(tmp_path / "new" / "report.json")]
    monkeypatch.setattr(sys, "argv", ["chat_turns", *options, "--drafter", "d"])
    chat_turns.main()
    report = json.loads((tmp_path / "new" / "report.json").read_text())
    assert set(report) == {"machine", "settings", "rows", "first_token_ratio"} and len(report["rows"]) == 4 * TURNS
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == report["first_token_ratio"]
    monkeypatch.setattr(sys, "argv", ["chat_turns", "--model", "m"])
    with pytest.raises(SystemExit):
        chat_turns.main()
