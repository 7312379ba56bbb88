"""What is asked and said about a chart.

Its border: text from facts; no pixels.
"""

import random

from .chart import Bar, Chart
from .wording import maybe, prefer, sentence
from .words import NUMBERS

QUESTIONS = (
    "Read the chart.",
    "What does the chart show?",
    "Please give me the values in this chart.",
    "Explain this bar chart.",
    "How high are the bars?",
    "Summarize the chart for me.",
)
_ORDINALS = ("first", "second", "third", "fourth")
_MUCH = ("That is quite a lot.", "This is a tall bar.", "It almost fills the chart.")
_MIDDLING = ("That is neither much nor little.", "This is a bar of medium height.")
_LITTLE = ("That is not very much.", "This is a short bar.", "There is room for more.")


def _opening(rng: random.Random, chart: Chart) -> str:
    count = NUMBERS[len(chart.bars) - 1]
    return prefer(
        rng,
        (
            f"This is a bar chart with {count} {chart.colour} bars, and each bar stands above a small picture.",
            f"The chart compares things by means of {chart.colour} bars that are made of equal blocks.",
            f"The chart has {chart.colour} bars above small pictures, to be read from left to right.",
        ),
    )


def _about(rng: random.Random, index: int, bar: Bar) -> str:
    ordinal, blocks = _ORDINALS[index], "is one block" if bar.value == 1 else f"are {bar.number} blocks"
    said = prefer(
        rng,
        (
            f"The {ordinal} bar stands for the {bar.noun} and reaches a value of {bar.number}.",
            f"The {bar.noun} has a bar of {bar.number}.",
            f"Above the {bar.noun} there {blocks}.",
        ),
    )
    return said + maybe(rng, _MUCH if bar.value > 6 else _LITTLE if bar.value < 4 else _MIDDLING)


def _extremes(rng: random.Random, chart: Chart) -> str:
    low, high = (pick(chart.bars, key=lambda bar: bar.value) for pick in (min, max))
    best, worst = f"the {high.noun} comes first with {high.number}", f"the {low.noun} comes last with {low.number}"
    return prefer(
        rng,
        (
            f"{sentence(best)}, while {worst}.",
            f"In this comparison {best}, and {worst}.",
            f"{sentence(worst)}, whereas {best}.",
        ),
    )


def _difference(rng: random.Random, chart: Chart) -> str:
    values = [bar.value for bar in chart.bars]
    gap = NUMBERS[max(values) - min(values) - 1]
    rises = "The bars rise from left to right." if values == sorted(values) else ""
    falls = "The bars fall from left to right." if values == sorted(values)[::-1] else ""
    trend = rises or falls or "There is no clear trend from left to right."
    return prefer(
        rng,
        (
            f"The difference between the highest and the lowest bar is {gap}. {trend}",
            f"Between the two there is a gap of {gap}. {trend}",
            f"{trend} The highest bar is {gap} above the lowest.",
        ),
    )


def describe(rng: random.Random, chart: Chart) -> str:
    """The reference reading: every bar with its value, the extremes, their difference and the trend."""
    bars = [_about(rng, i, bar) for i, bar in enumerate(chart.bars)]
    return " ".join([_opening(rng, chart), *bars, _extremes(rng, chart), _difference(rng, chart)])
