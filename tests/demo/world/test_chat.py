"""Open questions: no topic in two splits, every other one with a picture, and what can be judged of a free answer."""

import pytest

from hf_mmspec.demo.world.chat_text import QUESTIONS, TOPICS, open_questions, split_of_topic
from hf_mmspec.demo.world.grade import grade
from hf_mmspec.demo.world.samples import samples
from hf_mmspec.demo.world.splits import SPLITS


def test_topics_are_different_and_every_split_has_some():
    assert len(set(TOPICS)) == len(TOPICS)
    assert {split_of_topic(topic) for topic in TOPICS} == set(SPLITS)


def test_questions_are_those_of_the_splits_own_topics():
    asked = {split: open_questions(split) for split in SPLITS}
    assert sum(len(questions) for questions in asked.values()) == len(TOPICS) * len(QUESTIONS)
    assert len(set().union(*asked.values())) == len(TOPICS) * len(QUESTIONS)


def test_every_other_question_is_about_a_picture():
    drawn = list(samples("test", "chat", 6))
    assert [len(one["images"]) for one in drawn] == [0, 1, 0, 1, 0, 1]
    assert [bool(one["facts"]) for one in drawn] == [False, True] * 3
    assert {one["answer"] for one in drawn} == {""}


@pytest.mark.parametrize("extra, score, precision", [("", 1.0, 1.0), (" and a robot", 1.0, 0.5), (None, 0.0, 0.0)])
def test_an_answer_about_a_picture_names_something_in_it(extra, score, precision):
    one = next(x for x in samples("test", "chat", 9) if x["facts"] and "robot" not in x["facts"]["nouns"])
    text = "Once upon a time." if extra is None else f"The {one['facts']['nouns'][0]}{extra} went home."
    assert grade(one, text) == {"score": score, "precision": precision}


def test_an_answer_without_a_picture_has_no_grade():
    assert grade(next(samples("test", "chat", 1)), "anything") == {}
