"""Requests of mixed kinds, each made from its number alone, so that any process can repeat any of them.

Knows nothing of memory. What a request returns is text and numbers, to be compared.
"""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import StoppingCriteriaList, TextIteratorStreamer, set_seed
from transformers.generation.streamers import BaseStreamer

from hf_mmspec.chat import Chat
from tests.chat import tiny as chats
from tests.chat.test_interrupts import Stops, fails
from tests.families import rows
from tests.families.test_families import WORKING
from tests.generation.doubles import RandomDrafter
from tests.generation.test_every_family import SHAPES
from tests.generation.test_fuzz import NEVER
from tests.identity.models import Models

FAMILIES = ("LLaVA 1.5", "Qwen2.5-VL", "LLaVA on Mistral", "Gemma 3n")
TRAINABLE = ("vispec", "msd", "flash", "eagle", "eagle_fixed", "eagle3", "vispec_reusing")
TALKING = ("vispec", "eagle3", "flash")
_WORDS = ("What is this?", "And now?", "Say more", "Left or right", "Why")


class World:
    """All models that requests use, built before the first one, as building draws random weights."""

    def __init__(self):
        self.models = Models()
        for family in FAMILIES:
            self.models.prompts(family, [(0, 0, 1)])
            for name in TRAINABLE:
                self.models.drafter(name, family, [], [], own_tokens=False)
        self.talkers = {name: build() for name, build in chats.TARGETS.items()}
        self.talking_drafters = {
            name: {drafter: chats.build_drafter(drafter, model) for drafter in TALKING}
            for name, (model, _) in self.talkers.items()
        }


class Disturbed(Exception):
    """What goes wrong in the middle of a request on purpose."""


class HangsUp(BaseStreamer):
    """A reader that goes away after some values."""

    def __init__(self, after: int):
        self.after, self.values = after, []

    def put(self, value):
        if len(self.values) == self.after:
            raise Disturbed("nobody reads any more")
        self.values.append(value.flatten().tolist())

    def end(self):
        pass


class Breaks(RandomDrafter):
    """Fails when it reads the tokens of its second round."""

    def extend(self, state, features, next_tokens):
        if len(state["emitted"]) > 1:
            raise Disturbed("a drafter that breaks")
        super().extend(state, features, next_tokens)


@dataclass
class Asked:
    """A call of `generate` that is ready to be made, and what stock `generate` answers."""

    model: Any
    inputs: dict[str, Any]
    options: dict[str, Any]
    drafting: dict[str, Any]
    seed: int
    plain: Any = None

    def generate(self, **more: Any) -> list:
        set_seed(self.seed)
        return self.model.generate(**{**self.inputs, **self.options, **self.drafting, **more}).tolist()

    def checked(self, **more: Any) -> list:
        """The answer, which is that of stock `generate`."""
        ours = self.generate(**more)
        assert ours == self.plain, f"{ours} instead of {self.plain}"
        return ours


def ask(world: World, choose: random.Random, number: int, most_rows: int = 8, **options: Any) -> Asked:
    """Any prompts for any target, and any drafter of it."""
    family, name = choose.choice(FAMILIES), choose.choice((*TRAINABLE, "scripted"))
    count = choose.choice([each for each in (1, 1, 2, 3, 5, 8) if each <= most_rows])
    pieces = [(number * 10 + row, choose.randint(0, 2), choose.randint(1, 9)) for row in range(count)]
    singles = world.models.prompts(family, pieces)
    inputs = rows.batch(WORKING[family], singles)
    options = dict(max_new_tokens=choose.randint(2, 10), do_sample=False, eos_token_id=NEVER, pad_token_id=0) | options
    asked = Asked(world.models.target(family), inputs, options, {}, number)
    asked.plain = asked.generate()
    answers = [row[inputs["input_ids"].shape[1] :] for row in asked.plain[:: options.get("num_return_sequences", 1)]]
    budgets = [SHAPES["tree"]]
    if not options["do_sample"]:
        budgets.append(SHAPES["chain"])
    if name != "scripted":
        budgets.append({})
    drafter = world.models.drafter(name, family, singles, answers, own_tokens=False)
    asked.drafting = dict(assistant_model=drafter, **choose.choice(budgets))
    return asked


def greedy(world, choose, number):
    return ask(world, choose, number).checked()


def static(world, choose, number):
    return ask(world, choose, number).checked(cache_implementation="static")


def sampled(world, choose, number):
    return ask(world, choose, number, most_rows=1, do_sample=True, temperature=0.8).checked()


def several_sequences(world, choose, number):
    return ask(world, choose, number, most_rows=3, do_sample=True, top_k=1, num_return_sequences=2).checked()


def error_in_a_criterion(world, choose, number):
    """And the same request once more, undisturbed."""
    asked = ask(world, choose, number, most_rows=1)
    stops = StoppingCriteriaList([Stops(choose.randint(1, 9), fails(Disturbed("a criterion that fails")))])
    return [_disturbed(asked, stopping_criteria=stops), asked.checked()]


def error_in_a_drafter(world, choose, number):
    asked = ask(world, choose, number)
    return [_disturbed(asked, assistant_model=Breaks(asked.model), **SHAPES["tree"]), asked.checked()]


def reader_that_hangs_up(world, choose, number):
    asked, streamer = ask(world, choose, number, most_rows=1), HangsUp(choose.randint(0, 6))
    return [_disturbed(asked, streamer=streamer), streamer.values]


def reader_that_leaves(world, choose, number):
    """It takes two pieces from the thread that generates, and no more."""
    asked, pieces = ask(world, choose, number, most_rows=1), choose.randint(1, 2)
    streamer = TextIteratorStreamer(world.models.tokenizer, skip_prompt=True, timeout=60)
    thread = threading.Thread(target=asked.generate, kwargs=dict(streamer=streamer))
    thread.start()
    read = [piece for piece, _ in zip(streamer, range(pieces), strict=False)]
    thread.join()
    return read


def stopped_stream(world, choose, number):
    asked = ask(world, choose, number, most_rows=1)
    streamer = TextIteratorStreamer(world.models.tokenizer, skip_prompt=True, timeout=60)
    stops = StoppingCriteriaList([Stops(choose.randint(1, 6), lambda: True)])
    thread = threading.Thread(target=asked.generate, kwargs=dict(streamer=streamer, stopping_criteria=stops))
    thread.start()
    text = "".join(streamer)
    thread.join()
    return text


def chat(world, choose, number):
    """Some turns; one may fail or be stopped half-way. The last one is compared with a run from scratch."""
    name = choose.choice(list(world.talkers))
    drafter = world.talking_drafters[name][choose.choice(TALKING)]
    talk, said = Chat(*world.talkers[name], drafter), []
    options = dict(max_new_tokens=6, do_sample=False, **choose.choice((chats.BUDGET, {})))
    for turn in range(choose.randint(2, 4)):
        pictures = [chats.picture(number * 10 + turn)] * choose.choice((0, 0, 1))
        ends = choose.choice((None, None, lambda: talk.stop(), fails(Disturbed("a turn that fails"))))
        stops = [] if ends is None else [Stops(choose.randint(1, 5), ends)]
        try:
            said.append(talk.ask(choose.choice(_WORDS), pictures, stopping_criteria=stops, **options).ids)
        except Disturbed as error:
            said.append(str(error))
    last = talk.ask("And in the end?", **options).ids
    assert last == chats.scratch(talk, talk.messages[:-1], max_new_tokens=6)
    return [*said, last]


def _disturbed(asked: Asked, **more: Any) -> list | str:
    try:
        return asked.generate(**more)
    except Disturbed as error:
        return str(error)


Kind = Callable[[World, random.Random, int], Any]
# Tokens that are drawn come from one generator of random numbers for the whole process.
ALONE: tuple[Kind, ...] = (sampled, several_sequences)
IN_THREADS: tuple[Kind, ...] = (greedy, greedy, static, error_in_a_criterion, error_in_a_drafter, chat)
STREAMS: tuple[Kind, ...] = (reader_that_hangs_up, reader_that_leaves, stopped_stream)


def answer(world: World, number: int, seed: int = 0, kinds: tuple[Kind, ...] = ALONE + IN_THREADS + STREAMS) -> list:
    """Do the request of this number: its kind, and what came of it, as JSON knows it."""
    choose = random.Random(f"{seed} {number}")
    kind = choose.choice(kinds)
    return [kind.__name__.replace("_", " "), kind(world, choose, number)]
