"""Two-turn conversations: a first question with its answer, then a question about one fact of the picture.

Its border: text from facts; no pixels. Every graded fact is hard to guess without the picture.
"""

import random
from dataclasses import dataclass

from .chart import Bar, Chart
from .knowledge import BACKGROUND_FACTS, CLOSINGS, THING_FACTS
from .scene import Scene, Thing
from .scene_text import in_reading_order, relation
from .wording import a, place, prefer, sentence, verb
from .words import NUMBERS


@dataclass(frozen=True)
class Dialog:
    """Questions and answers of both turns; `kind` and `fact` say what the last answer must contain."""

    first_question: str
    first_answer: str
    question: str
    answer: str
    kind: str
    fact: str


def _first_turn(rng: random.Random, scene: Scene) -> tuple[str, str]:
    count = NUMBERS[len(scene.things) - 1]
    question = rng.choice(("How many things are in the picture?", "How many things can you count?"))
    return question, prefer(
        rng, (f"There are {count} things in the picture.", f"I can count {count} things.", f"I see {count} of them.")
    )


def _known(rng: random.Random, noun: str) -> str:
    start = prefer(rng, ("As we know,", "Remember that", "People say that", "It is no secret that"))
    return f"{start} {prefer(rng, THING_FACTS[noun])}."


def _neighbour(rng: random.Random, scene: Scene, thing: Thing) -> str:
    others = [other for other in in_reading_order(scene) if other != thing]
    other = others[0]
    fact = prefer(rng, THING_FACTS[other.noun])
    return f"{sentence(relation(thing, other))}, which is {place(other)}; {fact}."


def _ending(rng: random.Random, scene: Scene) -> str:
    ground = prefer(rng, BACKGROUND_FACTS[scene.background])
    return f"Behind them there is {ground}. {prefer(rng, CLOSINGS[scene.background])}"


def _where(rng: random.Random, scene: Scene) -> Dialog:
    thing = rng.choice(scene.things)
    noun, where = thing.noun, place(thing)
    question = rng.choice((f"Where is the {noun}?", f"In which part of the picture is the {noun}?"))
    known = _known(rng, noun)
    start = prefer(
        rng,
        (
            f"The {noun} {verb(noun)} {where} of the picture.",
            f"You can find the {noun} {where} of the picture.",
            f"Look {where}: there {verb(noun)} the {noun}.",
        ),
    )
    answer = f"{start} {known} {_neighbour(rng, scene, thing)} {_ending(rng, scene)}"
    return Dialog(*_first_turn(rng, scene), question, answer, "where", where)


def _what(rng: random.Random, scene: Scene) -> Dialog:
    thing = rng.choice(scene.things)
    noun, where = thing.noun, place(thing)
    question = rng.choice((f"What is {where} of the picture?", f"Which thing can be seen {where}?"))
    start = prefer(
        rng,
        (
            f"{sentence(where)} of the picture there {verb(noun)} {a(noun)}.",
            f"It is {a(noun)} that can be seen {where}.",
            f"That is {a(noun)}.",
        ),
    )
    known = _known(rng, noun)
    answer = f"{start} {known} {_neighbour(rng, scene, thing)} {_ending(rng, scene)}"
    return Dialog(*_first_turn(rng, scene), question, answer, "what", noun)


def _background(rng: random.Random, scene: Scene) -> Dialog:
    ground = prefer(rng, BACKGROUND_FACTS[scene.background])
    question = rng.choice(("What is the background of the picture?", "What is behind these things?"))
    start = prefer(rng, (f"The background is {ground}.", f"Behind the things there is {ground}."))
    thing = in_reading_order(scene)[0]
    known = f"In front of it there {verb(thing.noun)} {a(thing.noun)} {place(thing)}, and"
    fact = prefer(rng, THING_FACTS[thing.noun])
    closing = prefer(rng, CLOSINGS[scene.background])
    answer = f"{start} {closing} {known} {fact}. {_neighbour(rng, scene, thing)}"
    return Dialog(*_first_turn(rng, scene), question, answer, "background", scene.background)


def scene_dialog(rng: random.Random, scene: Scene) -> Dialog:
    """A conversation about a scene: where a thing is, what is at a place, or what the background is."""
    return rng.choices((_where, _what, _background), (0.4, 0.4, 0.2))[0](rng, scene)


def _compare(bar: Bar, other: Bar) -> str:
    gap = NUMBERS[abs(bar.value - other.value) - 1]
    word = "more" if bar.value > other.value else "less"
    return f"That is {gap} {word} than the {other.noun}, which has {other.number}"


def chart_dialog(rng: random.Random, chart: Chart) -> Dialog:
    """A conversation about a chart: how high the bar of one thing is."""
    bar = rng.choice(chart.bars)
    other = next(b for b in chart.bars if b != bar)
    question = rng.choice((f"How high is the bar of the {bar.noun}?", f"Which value does the {bar.noun} have?"))
    start = prefer(
        rng,
        (
            f"The bar of the {bar.noun} reaches a value of {bar.number}.",
            f"The {bar.noun} has a value of {bar.number}.",
        ),
    )
    known = prefer(rng, THING_FACTS[bar.noun])
    answer = (
        f"{start} {_compare(bar, other)}. The bar is {chart.colour} and made of equal blocks. "
        f"As for the {bar.noun} itself, {known}, but the chart does not tell us what was counted."
    )
    first = rng.choice(("What kind of chart is this?", "Is this a bar chart?"))
    reply = f"It is a bar chart with {NUMBERS[len(chart.bars) - 1]} {chart.colour} bars."
    return Dialog(first, reply, question, answer, "value", bar.number)
