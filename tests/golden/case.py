"""One golden case: its tensors, which must all be asked for, and comparisons at the suite's tolerances."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}


@dataclass
class Case:
    """`family` is the folder's name. Every tensor must be used by the family's check, so that neither a missing nor a
    renamed one goes unnoticed."""

    family: str
    name: str
    config: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    used: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, file: Path) -> "Case":
        config = file.with_suffix(".config.json")
        fields = json.loads(config.read_text()) if config.exists() else {}
        return cls(file.parent.name, file.stem, fields, load_file(file))

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

    def same(self, actual: torch.Tensor, name: str) -> None:
        """Integers and booleans exactly, floats within the tolerance."""
        expected = self.take(name)
        assert actual.shape == expected.shape, f"{name}: shape {tuple(actual.shape)}, not {tuple(expected.shape)}"
        if expected.is_floating_point():
            torch.testing.assert_close(actual.float(), expected, **TOLERANCE, msg=lambda m: f"{name}: {m}")
        else:
            assert torch.equal(actual.to(expected.dtype), expected), f"{name}: {actual} is not {expected}"

    def insist_all_used(self) -> None:
        unused = sorted(set(self.tensors) - self.used)
        assert not unused, f"{self.family}/{self.name}: tensors that no check knows (renamed?): {unused}"


def our_name(theirs: str, renames: dict[str, str]) -> str:
    for beginning, ours in renames.items():
        if theirs.startswith(beginning):
            return ours + theirs.removeprefix(beginning)
    return theirs
