"""What is asked and said about a whole scene.

Its border: text from facts; no pixels.
"""

import random

from .knowledge import BACKGROUND_FACTS, CLOSINGS, THING_FACTS
from .scene import Scene, Thing
from .wording import a, listing, maybe, place, prefer, sentence, sized, verb
from .words import NUMBERS, ROWS

QUESTIONS = (
    "Describe the picture.",
    "What can you see in this picture?",
    "Please describe this image in detail.",
    "Tell me what is in the image.",
    "What does the picture show?",
    "Can you describe what you see?",
)

_REMARKS = (
    "It looks almost real.",
    "The colours are bright and clear.",
    "Somebody has drawn it with care.",
    "It stands out at first glance.",
    "One wonders how it came there.",
    "Nothing else is quite like it.",
)


def in_reading_order(scene: Scene) -> list[Thing]:
    """Top to bottom, then left to right, as the sentences come."""
    return sorted(scene.things, key=lambda thing: (ROWS.index(thing.row), thing.x))


def _opening(rng: random.Random, scene: Scene, things: list[Thing]) -> str:
    names = listing([a(thing.noun) for thing in things])
    ground = prefer(rng, BACKGROUND_FACTS[scene.background])
    count = NUMBERS[len(things) - 1]
    return prefer(
        rng,
        (
            f"The picture shows {names} against {ground}.",
            f"There are {count} things against {ground}: {names}.",
            f"In front of {ground}, one can see {names}.",
        ),
    )


def _about(rng: random.Random, thing: Thing) -> str:
    fact = prefer(rng, THING_FACTS[thing.noun])
    where, name = place(thing), sized(thing)
    said = prefer(
        rng,
        (
            f"{sentence(where)} there {verb(thing.noun)} {name}, and {fact}.",
            f"{sentence(name)} can be seen {where}; {fact}.",
            f"The {thing.noun} {where} {verb(thing.noun)} easy to spot: {fact}.",
        ),
    )
    return said + maybe(rng, _REMARKS)


def relation(first: Thing, second: Thing) -> str:
    """Above, below, left or right: the rows decide where they differ."""
    if first.row != second.row:
        word = "above" if ROWS.index(first.row) < ROWS.index(second.row) else "below"
    else:
        word = "to the left of" if first.x < second.x else "to the right of"
    return f"the {first.noun} {verb(first.noun)} {word} the {second.noun}"


def _relation_sentence(rng: random.Random, things: list[Thing]) -> str:
    said = relation(things[0], things[-1])
    return prefer(rng, (f"{sentence(said)}.", f"Note that {said}.", f"As one can see, {said}."))


def describe(rng: random.Random, scene: Scene) -> str:
    """The reference description: background, every thing with its place and a fact, a relation, a closing."""
    things = in_reading_order(scene)
    parts = [_opening(rng, scene, things), *(_about(rng, thing) for thing in things)]
    parts += [_relation_sentence(rng, things), prefer(rng, CLOSINGS[scene.background])]
    return " ".join(parts)
