"""The numbers of one drafter from the JSON of a bench, which may be of an older version and lack some.

Takes numbers as they are; computes none.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_mmspec.evaluation.contenders import BASELINES

from .names import EMBEDDED_TARGET, public_name


class BenchFileError(ValueError):
    """A bench's JSON that a card cannot be made of; the message names file or drafter, and the fix."""


@dataclass(frozen=True)
class Measured:
    """What one bench says about a drafter.

    Args:
        name: the drafter's in the report.
        rows: by task and temperature.
        overall: over all tasks, by temperature: `(temperature, numbers)`.
        others: the other contenders over all tasks, `(name, numbers)`.
        machine, settings, definitions: the report's.
    """

    name: str
    rows: Sequence[Mapping[str, Any]]
    overall: Sequence[tuple[float, Mapping[str, Any]]]
    others: Sequence[tuple[str, Mapping[str, Any]]]
    machine: Mapping[str, Any]
    settings: Mapping[str, Any]
    definitions: Mapping[str, str]

    @property
    def target(self) -> str | None:
        """What was given as `--model`, where the report says that this is no folder."""
        if "model" in self.settings and self.settings["model"] is None:
            return EMBEDDED_TARGET
        return self.settings.get("model") if self.settings.get("model_is_local") is False else None

    @property
    def data(self) -> list[str]:
        """Names of the prompts' sources."""
        return list(self.settings.get("data") or ["embedded"])


def read_bench(file: Path) -> dict[str, Any]:
    """A report of `mmspec bench --json`, without paths of the machine that it was made on.

    Raises:
        BenchFileError: it is something else.
    """
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchFileError(f"{file}: cannot be read as JSON ({error})") from error
    kinds = {"machine": dict, "rows": list, "summary": dict}
    if not isinstance(report, dict) or not all(isinstance(report.get(key), kind) for key, kind in kinds.items()):
        raise BenchFileError(
            f"{file} is no report of `mmspec bench --json`: it lacks {', '.join(kinds)} or one of them"
        )
    return without_paths(report)


def without_paths(report: dict[str, Any]) -> dict[str, Any]:
    """The same with the last part of each absolute path; folders say something about a machine and nothing about a
    drafter."""
    cleaned = _cleaned(report)
    command = report["machine"].get("command")
    if command:
        cleaned["machine"]["command"] = shlex.join(_cleaned_option(part) for part in shlex.split(command))
    return cleaned


def read_measured(report: Mapping[str, Any], folder_name: str, family: str) -> Measured:
    """The numbers of the drafter that the folder holds.

    Raises:
        BenchFileError: the report has none of it, or it cannot be told from others.
    """
    name = _name_in(report, folder_name, family)
    rows = [row for row in report["rows"] if row.get("drafter") == name]
    by_contender = {key.partition("@"): numbers for key, numbers in report["summary"].items()}
    return Measured(
        name=name,
        rows=rows,
        overall=[(float(at or 0), each) for (who, _, at), each in by_contender.items() if who == name],
        others=[("".join(key), each) for key, each in by_contender.items() if key[0] != name],
        machine=report["machine"],
        settings=report.get("settings", {}),
        definitions=report.get("definitions", {}),
    )


def _name_in(report: Mapping[str, Any], folder_name: str, family: str) -> str:
    measured = dict.fromkeys(row.get("drafter") for row in report["rows"])
    entries = [each for each in report.get("settings", {}).get("drafters", []) if not each["blind"]]
    called = [each["name"] for each in entries if Path(each["source"]).name == folder_name]
    possible = called or [each["name"] for each in entries] or [name for name in measured if name not in BASELINES]
    possible = [name for name in possible if name in measured]
    if len(possible) > 1 and family in possible and not entries:
        return family
    if len(possible) != 1:
        raise BenchFileError(
            f"which drafter of the bench is {folder_name}? It measured {', '.join(possible) or 'none'}: run "
            f"`mmspec bench --drafter {folder_name}` with the folder under this name"
        )
    return possible[0]


def _cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        return {_cleaned(key): _cleaned(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_cleaned(each) for each in value]
    return public_name(value) if isinstance(value, str) and value.startswith("/") else value


def _cleaned_option(part: str) -> str:
    name, equals, value = part.partition("=")
    if name.startswith("--") and value.startswith("/"):
        return f"{name}{equals}{public_name(value)}"
    return _cleaned(part)
