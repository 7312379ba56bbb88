"""The file of a study: finished cells and what was measured on the way are kept, so that an interrupted run goes on.

Knows no models; what a cell holds is the study's.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_mmspec.whole_file import write_json

Cell = dict[str, Any]


def has(cell: Cell, values: Mapping[str, Any]) -> bool:
    """Whether a cell has these values."""
    return all(cell.get(name) == value for name, value in values.items())


class OtherStudyError(ValueError):
    """The file holds another study, or none."""


@dataclass
class Cells:
    """Cells of one study, in a file that is written anew after each change.

    Args:
        file: JSON; its folder is there.
        machine: facts about it, see `machine_facts`.
        settings: what all cells have in common.
        cells, notes: so far.
    """

    file: Path
    machine: dict[str, Any]
    settings: dict[str, Any]
    cells: list[Cell] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> "Cells":
        """What is in a file, whatever its settings.

        Raises:
            OtherStudyError: there is none, or it is damaged.
        """
        try:
            report = json.loads(file.read_text())
            return cls(file, report["machine"], report["settings"], list(report["cells"]), report.get("notes", {}))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OtherStudyError(f"{file}: no study's file ({error!r}): give another --json") from error

    @classmethod
    def open(cls, file: Path, machine: dict[str, Any], settings: dict[str, Any]) -> "Cells":
        """Begin, or go on with what an interrupted run has left.

        Raises:
            OtherStudyError: the file is damaged or of other settings (naming them).
        """
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            return cls(file, machine, settings)
        found = cls.read(file)
        other = sorted(key for key in {*settings, *found.settings} if found.settings.get(key) != settings.get(key))
        if other:
            raise OtherStudyError(
                f"{file} holds a study with other settings ({', '.join(other)} differ): give another --json"
            )
        return cls(file, machine, settings, found.cells, found.notes)

    def replace(self, old: Mapping[str, Any], new: Iterable[Cell]) -> None:
        """Take out the cells that have the values of `old`, put in new ones, and write the file."""
        self.cells = [cell for cell in self.cells if not has(cell, old)] + list(new)
        self.write()

    def note(self, name: str, value: Any) -> None:
        """Keep something besides cells, and write the file."""
        self.notes[name] = value
        self.write()

    def write(self) -> None:
        """As JSON, whole or not at all."""
        report = {"machine": self.machine, "settings": self.settings, "notes": self.notes, "cells": self.cells}
        write_json(self.file, report)
