"""Short wishes and their long rewrites for an image generator: routing, shape, reasoning and the prompt itself.

Its border: text from facts; no pixels. The form of the answer is `hf_mmspec.rewriting.instruction`'s.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from hf_mmspec.rewriting.instruction import rewrite_json

from .looks import (
    CHANGES,
    DEFAULT_RATIO,
    DEFAULT_STYLE,
    FINISHES,
    GROUNDS,
    KINDS,
    LIGHTS,
    LOOKS,
    MOODS,
    PLACES,
    SHAPES,
    STYLES,
)
from .scene import Scene, Thing
from .scene_text import in_reading_order, relation
from .wording import a, listing, place, prefer, sentence, sized, verb
from .words import NUMBERS

_KIND = {noun: kind for kind, nouns in KINDS.items() for noun in nouns}
_ORDINALS = ("first", "second", "third")


@dataclass
class Wish:
    """What is wished and what a good rewrite does with it.

    `nouns` must be named in the rewritten prompt and no others; `keys` are words that it must contain.
    """

    text: str
    task: str
    nouns: list[str]
    keys: list[str] = field(default_factory=list)
    ground: str = ""  # what everything stands on or in, as the rewrite paints it
    change: str = ""  # how the wished change is painted
    why: str = ""  # the sentence of the reasoning about the wish
    style: str | None = None
    ratio: str = DEFAULT_RATIO
    shape: str = ""  # the words of the wish that ask for the ratio, if any do


def _with_style_and_shape(rng: random.Random, wish: Wish) -> Wish:
    """Some wishes name a style, a shape, or both."""
    if rng.random() < 0.35:
        wish.style = rng.choice(list(STYLES))
        wish.keys.append(wish.style)
        wish.text += f", {STYLES[wish.style][0]}"
    if rng.random() < 0.45:
        wish.ratio = rng.choice(list(SHAPES))
        wish.shape = rng.choice(SHAPES[wish.ratio][0])
        wish.text += f", {wish.shape}"
    return wish


def _place_wish(rng: random.Random) -> tuple[str, str, str]:
    """A place's key, the words of the wish, and how it is painted."""
    key = rng.choice(list(PLACES))
    said, painted = PLACES[key]
    return key, said, prefer(rng, painted)


def text_to_image(rng: random.Random, nouns: Sequence[str]) -> Wish:
    """A wish without a picture: one to three things at a place."""
    key, said, painted = _place_wish(rng)
    names = listing([a(noun) for noun in nouns])
    text = prefer(
        rng, (f"{names} {said}", f"I want {names} {said}", f"please draw {names} {said}", f"{said}: {names}")
    )
    why = f"The wish asks for {names} {said}, so this is text to image."
    return _with_style_and_shape(rng, Wish(text, "text_to_image", list(nouns), [key], painted, why=why))


def _change(rng: random.Random, scene: Scene) -> Wish:
    key = rng.choice(list(CHANGES))
    said, painted = CHANGES[key]
    why = f"The wish changes the picture to {key}, so this is an edit."
    nouns = [thing.noun for thing in in_reading_order(scene)]
    ground = prefer(rng, GROUNDS[scene.background])
    return Wish(rng.choice(said), "edit", nouns, [key], ground, prefer(rng, painted), why)


def _remove(rng: random.Random, scene: Scene) -> Wish:
    gone = rng.choice(scene.things).noun
    text = rng.choice((f"remove the {gone}", f"take the {gone} away", f"without the {gone}"))
    nouns = [thing.noun for thing in in_reading_order(scene) if thing.noun != gone]
    why = f"The wish removes the {gone}, so this is an edit and all else stays."
    return Wish(text, "edit", nouns, [], prefer(rng, GROUNDS[scene.background]), "the freed spot filled in", why)


def _add(rng: random.Random, scene: Scene, new: str) -> Wish:
    text = rng.choice((f"add {a(new)}", f"put {a(new)} into it", f"there should also be {a(new)}"))
    nouns = [*(thing.noun for thing in in_reading_order(scene)), new]
    why = f"The wish adds {a(new)}, so this is an edit and all else stays."
    return Wish(text, "edit", nouns, [], prefer(rng, GROUNDS[scene.background]), f"{a(new)} as a new guest", why)


def edit(rng: random.Random, scene: Scene, new: str) -> Wish:
    """A wish that changes the picture, removes a thing or adds the thing `new`."""
    kind = rng.random()
    made = _change(rng, scene) if kind < 0.6 else _remove(rng, scene) if kind < 0.8 else _add(rng, scene, new)
    return _with_style_and_shape(rng, made)


def reference(rng: random.Random, scene: Scene) -> Wish:
    """A wish that takes all things of the picture, or one of them, to another place."""
    key, said, painted = _place_wish(rng)
    if rng.random() < 0.6:
        nouns = [thing.noun for thing in in_reading_order(scene)]
        text = rng.choice((f"the same things {said}", f"put them {said}", f"all of these, but {said}"))
        what = "the things of the picture"
    else:
        nouns = [rng.choice(scene.things).noun]
        text = rng.choice((f"this {nouns[0]} {said}", f"the {nouns[0]} of my picture {said}"))
        what = f"the {nouns[0]} of the picture"
    why = f"The wish takes {what} to another place, so this is a reference."
    return _with_style_and_shape(rng, Wish(text, "reference", nouns, [key], painted, why=why))


def multi_reference(rng: random.Random, scenes: Sequence[Scene]) -> Wish:
    """A wish that brings the things of several pictures together."""
    key, said, painted = _place_wish(rng)
    nouns = list(dict.fromkeys(thing.noun for scene in scenes for thing in in_reading_order(scene)))
    text = rng.choice((f"bring them all together {said}", f"everything from these pictures {said}", f"all {said}"))
    why = "The wish joins several pictures, so this is multi reference."
    return _with_style_and_shape(rng, Wish(text, "multi_reference", nouns, [key], painted, why=why))


def _seen(scenes: Sequence[Scene]) -> str:
    if not scenes:
        return "There is no picture."
    shows = []
    for i, scene in enumerate(scenes):
        which = "picture" if len(scenes) == 1 else f"{_ORDINALS[i]} picture"
        names = listing([a(thing.noun) for thing in in_reading_order(scene)])
        shows.append(f"The {which} shows {names} with {scene.background} behind.")
    return " ".join(shows)


def reasoning(wish: Wish, scenes: Sequence[Scene]) -> str:
    """What the pictures show, what is wished, and which shape follows."""
    # The words of the wish before the ratio: a small model copies before it looks up.
    return f"{_seen(scenes)} {wish.why} The shape is {wish.shape or 'free'}, so {wish.ratio}."


def _about(rng: random.Random, noun: str, thing: Thing | None) -> str:
    look = prefer(rng, LOOKS[_KIND[noun]])
    if thing is None:
        return prefer(
            rng,
            (
                f"The {noun} {verb(noun)} drawn {look}.",
                f"One sees the {noun}, {look}.",
                f"Give the {noun} a clear place, {look}.",
            ),
        )
    where = place(thing)
    return prefer(
        rng,
        (
            f"{sentence(where)} there {verb(noun)} {sized(thing)}, {look}.",
            f"The {noun} {where} {verb(noun)} shown {look}.",
            f"Keep the {noun} {where}, {look}.",
        ),
    )


def _opening(rng: random.Random, wish: Wish) -> str:
    style = DEFAULT_STYLE if wish.style is None else STYLES[wish.style][1]
    names = listing([a(noun) for noun in wish.nouns]) if wish.nouns else "an empty scene"
    count = "no" if not wish.nouns else NUMBERS[len(wish.nouns) - 1] if len(wish.nouns) < 10 else "many"
    return prefer(
        rng,
        (
            f"{sentence(a(style))} of {names}, with {wish.ground} all around.",
            f"Against {wish.ground}: {names}, shown in the manner of {a(style)}.",
            f"{sentence(a(style))} with {count} main figures, {names}, before {wish.ground}.",
        ),
    )


def rewritten_prompt(rng: random.Random, wish: Wish, scenes: Sequence[Scene]) -> str:
    """The long prompt: what is seen, each thing, the change, style, light, mood and composition."""
    # An edit keeps every thing where it is; elsewhere places of the picture say nothing.
    things = {t.noun: t for scene in scenes for t in scene.things} if wish.task == "edit" else {}
    parts = [_opening(rng, wish), *(_about(rng, noun, things.get(noun)) for noun in wish.nouns[:4])]
    if wish.change:
        parts.append(prefer(rng, (f"The scene shows {wish.change}.", f"New in it: {wish.change}.")))
    kept = [thing for thing in map(things.get, wish.nouns) if thing]
    if len(kept) > 1:
        parts.append(f"{sentence(relation(kept[0], kept[-1]))}.")
    if wish.style is not None:
        parts.append(f"The style has {prefer(rng, STYLES[wish.style][2])}.")
    parts += [
        prefer(rng, LIGHTS),
        prefer(rng, MOODS),
        f"Compose it as {SHAPES[wish.ratio][1]}.",
        prefer(rng, FINISHES),
    ]
    return " ".join(parts)


def answer(rng: random.Random, wish: Wish, scenes: Sequence[Scene]) -> str:
    """The JSON object of the reference rewrite."""
    return rewrite_json(reasoning(wish, scenes), wish.task, wish.ratio, rewritten_prompt(rng, wish, scenes))
