"""Malformed calls, each made from its number alone; what comes of them, with a drafter and in stock `generate`.

Knows no flaw by name.
"""

import random
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from transformers import GenerationMixin

from hf_mmspec.generation.budget import BUDGET_FIELDS
from hf_mmspec.modeling import Drafter
from hf_mmspec.modeling.binding import unwrap
from tests.families import rows
from tests.families.test_families import WORKING
from tests.generation.test_every_family import SHAPES
from tests.identity.models import Models

from .flaws import FLAWS, SECOND

_OURS = tuple(str(Path(__file__).parents[2] / folder) for folder in ("hf_mmspec", "modeling"))
_FAMILIES = ("LLaVA 1.5", "Qwen2.5-VL", "LLaVA on Mistral", "Gemma 3")
_DRAFTERS = ("vispec", "msd", "flash", "eagle", "eagle_fixed", "eagle3")
_LEAST_WORDS = 5  # of a message that names cause and fix


@dataclass(frozen=True)
class Outcome:
    """What came of a call.

    Args:
        tokens: of the answer, None where there was an error.
        error: its type's name, and its message.
        is_ours: the error was raised by this package, as a ValueError, TypeError or OSError.
    """

    tokens: Any = None
    error: str | None = None
    message: str = ""
    is_ours: bool = False

    @property
    def is_clear(self) -> bool:
        return self.is_ours and len(self.message.split()) >= _LEAST_WORDS


@dataclass(frozen=True)
class Call:
    """A call with one or two flaws."""

    number: int
    seed: int = 0

    def flaws(self) -> tuple[str, ...]:
        """Every flaw comes in turn, sometimes with another one."""
        names, choose = list(FLAWS), self._choose()
        first = names[self.number % len(names)]
        second = choose.choice(list(SECOND))
        return (first,) if choose.random() < 0.7 or second == first else (first, second)

    def outcomes(self, models: Models) -> tuple[Outcome, Outcome]:
        """With the drafter, and of `generate` as transformers has it."""
        model, arguments = self._arguments(models)
        ours = _outcome(model, arguments)
        model, arguments = self._arguments(models)
        if isinstance(unwrap(arguments.get("assistant_model")), Drafter):
            del arguments["assistant_model"]
        for name in BUDGET_FIELDS:
            arguments.pop(name, None)
        with unhooked():
            return ours, _outcome(model, arguments)

    def snippet(self) -> str:
        return (
            "# from the root of the repository\n"
            "from tests.identity.models import Models\n"
            "from tests.malformed.calls import Call, is_right\n\n"
            f"outcomes = {self!r}.outcomes(Models())  # {', '.join(self.flaws())}\n"
            "print(*outcomes, sep='\\n')\n"
            "assert is_right(*outcomes)\n"
        )

    def _choose(self) -> random.Random:
        return random.Random(f"{self.seed} {self.number}")

    def _arguments(self, models: Models) -> tuple[Any, dict[str, Any]]:
        """Made anew for each run, as some keep state."""
        choose = self._choose()
        family = choose.choice(_FAMILIES)
        count, model = choose.choice((1, 1, 2)), models.target(family)
        pieces = [(self.number + row, choose.choice((0, 1, 2, 2)), choose.randint(1, 9)) for row in range(count)]
        arguments = rows.batch(WORKING[family], models.prompts(family, pieces))
        arguments |= dict(max_new_tokens=5, do_sample=count == 1 and choose.random() < 0.2, pad_token_id=0)
        arguments["assistant_model"] = models.drafter(choose.choice(_DRAFTERS), family, [], [], own_tokens=False)
        arguments |= choose.choice((SHAPES["tree"], {} if arguments["do_sample"] else SHAPES["chain"], {}))
        for name in self.flaws():
            FLAWS[name](arguments, model, choose)
        return model, arguments


def is_right(ours: Outcome, stock: Outcome) -> bool:
    """A clear error, or what stock `generate` does: the same tokens or the same type of error."""
    if ours.error is None:
        return stock.error is None and ours.tokens == stock.tokens
    return ours.is_clear or ours.error == stock.error


@contextmanager
def unhooked() -> Iterator[None]:
    """`generate` without what `install_hook` changed."""
    decoding = GenerationMixin._assisted_decoding.__mmspec_stock__
    validation = GenerationMixin._validate_generation_mode.__wrapped__
    with (
        mock.patch.object(GenerationMixin, "_assisted_decoding", decoding),
        mock.patch.object(GenerationMixin, "_validate_generation_mode", validation),
    ):
        yield


def _outcome(model: Any, arguments: dict[str, Any]) -> Outcome:
    torch.manual_seed(0)
    try:
        return Outcome(model.generate(**arguments).tolist())
    except Exception as error:
        raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
        is_ours = raised_in.startswith(_OURS) and isinstance(error, ValueError | TypeError | OSError)
        return Outcome(None, type(error).__name__, str(error), is_ours)
