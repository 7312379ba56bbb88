"""One golden case: its tensors, which must all be asked for, and comparisons at the suite's tolerances."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file


@dataclass
class Case:
    """`family` is the folder's name. Every tensor must be used by the family's check, so that neither a missing nor a
    renamed one goes unnoticed."""

    family: str
    name: str
    config: dict[str, Any]
    parameters: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    used: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, file: Path) -> "Case":
        of_all = _read_json(file.with_name("configs.json"))
        config = _read_json(file.with_suffix(".config.json")) or of_all.get(file.stem, {})
        return cls(file.parent.name, file.stem, config, _read_json(file.with_suffix(".case.json")), load_file(file))

    def has(self, name: str) -> bool:
        return name in self.tensors

    def take(self, name: str) -> torch.Tensor:
        """A tensor by name; fails the test where there is none."""
        if name not in self.tensors:
            pytest.fail(f"{self.family}/{self.name}: tensor {name!r} is missing (has {sorted(self.tensors)})")
        self.used.add(name)
        return self.tensors[name]

    def weights(self, prefix: str, renames: dict[str, str], leave_out: set[str]) -> dict[str, torch.Tensor]:
        """A state dict in our names. `renames` maps beginnings of the authors' names to ours; names in `leave_out`
        belong to the target."""
        found = {}
        for name in [name for name in self.tensors if name.startswith(prefix)]:
            theirs = name.removeprefix(prefix)
            if theirs not in leave_out:
                found[our_name(theirs, renames)] = self.take(name)
        return found

    def same(
        self, actual: torch.Tensor, name: str, where: torch.Tensor | None = None, tolerance: float = 1e-4
    ) -> None:
        """Integers and booleans exactly, floats within the tolerance; `where` tells which rows mean something."""
        expected = self.take(name)
        assert actual.shape == expected.shape, f"{name}: shape {tuple(actual.shape)}, not {tuple(expected.shape)}"
        if where is not None:
            assert where.any(), f"{name}: nothing to compare"
            actual, expected = actual[where], expected[where]
        if expected.is_floating_point():
            torch.testing.assert_close(
                actual.float(), expected, atol=tolerance, rtol=tolerance, msg=lambda m: f"{name}: {m}"
            )
        else:
            assert torch.equal(actual.to(expected.dtype), expected), f"{name}: {actual} is not {expected}"

    def same_last_rows(self, actual: torch.Tensor, name: str) -> None:
        """As `same`, where a recording may have kept only the last rows of `actual (B, L, ...)`."""
        rows, length = self.take(name).shape[1], actual.shape[1]
        assert 0 < rows <= length, f"{name}: {rows} rows for {length} positions"
        self.same(actual[:, -rows:], name)

    def insist_all_used(self) -> None:
        unused = sorted(set(self.tensors) - self.used)
        assert not unused, f"{self.family}/{self.name}: tensors that no check knows (renamed?): {unused}"


def our_name(theirs: str, renames: dict[str, str]) -> str:
    for beginning, ours in renames.items():
        if theirs.startswith(beginning):
            return ours + theirs.removeprefix(beginning)
    return theirs


def _read_json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text()) if file.exists() else {}
