"""The file of a study: what is in it is kept, and belongs to its settings."""

import json

import pytest

from hf_mmspec.training.judging.cells import Cells, OtherStudyError

CELLS = [{"arm": "a", "seed": 0}, {"arm": "a", "seed": 1}, {"arm": "b", "seed": 0}]


def test_what_is_written_is_found_again(tmp_path):
    file = tmp_path / "new" / "f.json"
    cells = Cells.open(file, {"cpu": "c"}, {"a": 1})
    assert (cells.cells, cells.notes) == ([], {})
    cells.replace({"arm": "c"}, CELLS)
    cells.note("paces", {"a": 0.5})
    cells.replace({"arm": "a"}, [{"arm": "a", "seed": 2}])
    again = Cells.open(file, {"cpu": "d"}, {"a": 1})
    assert again.cells == [{"arm": "b", "seed": 0}, {"arm": "a", "seed": 2}]
    again.replace({"arm": "a", "seed": 0}, [])
    assert len(again.cells) == 2
    assert again.notes == {"paces": {"a": 0.5}}
    assert Cells.read(file).machine == {"cpu": "d"}  # that of the last run


def test_only_a_file_of_the_same_settings_is_gone_on_with(tmp_path):
    file = tmp_path / "f.json"
    report = {"machine": {}, "settings": {"a": 1, "b": 2}, "cells": CELLS}
    file.write_text(json.dumps(report))
    assert Cells.open(file, {}, {"a": 1, "b": 2}).cells == CELLS
    with pytest.raises(OtherStudyError, match=r"other settings \(a, c differ\): give another --json"):
        Cells.open(file, {}, {"a": 2, "b": 2, "c": 3})
    for damaged in ("{", "[]", '{"cells": []}'):
        file.write_text(damaged)
        with pytest.raises(OtherStudyError, match="no study's file"):
            Cells.open(file, {}, {})
    with pytest.raises(OtherStudyError, match="no study's file"):
        Cells.read(tmp_path / "missing.json")
