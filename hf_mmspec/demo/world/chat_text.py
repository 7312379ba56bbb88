"""Open questions, without and with a picture: they are answered in the target's own free words.

Its border: questions only. There is no reference answer; topics (and pictures) are what differs between the splits.
"""

import random
import zlib
from functools import cache

from .splits import Split

_TOPICS = """
apples; a garden; the moon; a red bicycle; bread; honey bees; the ocean; a small village; cats; the weather; a
library; mountains; a school day; friendship; cooking soup; a long train ride; the colour blue; birds in winter;
music; a lighthouse; sleeping well; a birthday party; trees; a busy market; rivers; the sun; running; an old clock;
rainbows; a farm; football; learning to draw; tea; a castle; clouds; healthy food; a robot; volcanoes; snow; a museum;
a desert; the stars; a wooden bridge; chess; grandparents; an orchestra; a bakery; swimming; whales; the rain; a lost
key; autumn; a hospital; electricity; a camping trip; coffee; a photograph; patience; a rocket; sheep; a newspaper;
the piano; a storm at sea; spring flowers; a first day at work; sharks; dreams; a mirror; a letter from abroad;
chocolate; a marathon; the wind; a noisy neighbour; space travel; silence; a puzzle; dinosaurs; gardening; a harbour;
dancing; the alphabet; a magic trick; honesty; a broken window; glass; an island; the internet; penguins; a puppet
theatre; a cave; painting walls; a village fair; ice cream; a compass; being late; mushrooms; a waterfall; a spider's
web; telephones; a treasure map; growing old; a picnic; fire; a foreign language; shoes; a long night; the number
seven; maps; a wise king; fishing; moving to a new city; a rainy sunday; wolves; a mountain hut; kindness; old songs;
a paper boat; taking a break; a bus driver; oranges; the seasons; saving money; a snowman; good manners; a science
fair; rivers of ice
"""
TOPICS: tuple[str, ...] = tuple(topic.strip() for topic in _TOPICS.replace("\n", " ").split(";"))

QUESTIONS: tuple[str, ...] = (
    "Write a short text about {}.",
    "Tell me something about {}.",
    "Describe {} in a few sentences.",
    "What do you know about {}?",
    "Explain to a child what is interesting about {}.",
    "Write a little story about {}.",
    "Give me three facts about {}.",
    "Why do people like {}?",
    "Write a poem about {}.",
    "What would you ask an expert about {}?",
    "Write a dialogue between two friends about {}.",
    "I have to give a talk about {}. How should I begin?",
    "What could go wrong with {}?",
    "Write a letter to my sister about {}.",
    "Compare {} with something else.",
    "Give me advice about {}.",
    "Write a diary entry that mentions {}.",
    "How would an old man talk about {}?",
    "Invent a riddle about {} and solve it.",
    "What do most people get wrong about {}?",
)

# A small model that is asked for more ends in a loop when it answers greedily.
LENGTH = " Keep it to two or three sentences."

PICTURE_QUESTIONS: tuple[str, ...] = (
    "Write a short story about what you see in this picture.",
    "What could happen next in this picture?",
    "Write a poem about this picture.",
    "Find a title for this picture and explain your choice.",
    "Which thing in the picture would you take on a journey, and why?",
    "Imagine that you stand in this picture. What do you hear and feel?",
    "Write an advertisement for something in the picture.",
    "Why might these things be in the same place?",
    "Invent a conversation between two of the things in the picture.",
    "Write a letter to a friend about this picture.",
    "What would a child ask about this picture?",
    "Teach me something about one of the things in the picture.",
    "Which two things in the picture do not belong together?",
    "Write a diary entry about the day this picture was made.",
    "What would you add to this picture to make it more interesting?",
    "Make up a riddle about something in the picture.",
    "Give me an idea for a game with the things in the picture.",
    "Who could have made this picture, and for whom?",
)


def split_of_topic(topic: str) -> Split:
    """The split that owns this topic: one tenth test, one tenth validation, the rest training."""
    owners: dict[int, Split] = {0: "test", 1: "val"}
    return owners.get(zlib.crc32(topic.encode()) % 10, "train")


@cache
def open_questions(split: Split) -> tuple[str, ...]:
    """All questions without a picture, mixed; no topic is asked about in two splits."""
    asked = [question.format(topic) for topic in TOPICS if split_of_topic(topic) == split for question in QUESTIONS]
    random.Random(0).shuffle(asked)
    return tuple(asked)
