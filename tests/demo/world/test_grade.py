"""Grades: full marks for the references, none for the wrong, and something between for the half right."""

import pytest

from hf_mmspec.demo import grade, samples
from hf_mmspec.demo.world.grade import claimed_values, named_nouns
from hf_mmspec.demo.world.knowledge import BACKGROUND_FACTS, CLOSINGS, THING_FACTS
from hf_mmspec.demo.world.words import BACKGROUNDS, NOUNS


def test_references_get_full_marks():
    for sample in samples("test", n=150):
        assert grade(sample, sample["answer"])["score"] == 1.0, sample["answer"]


def test_empty_text_gets_nothing():
    for sample in samples("test", n=6):
        assert grade(sample, "")["score"] == 0.0


def test_scene_counts_recall_and_precision():
    sample = {"task": "scene", "facts": {"nouns": ["dog", "cat"], "background": "grass"}}
    half = grade(sample, "A dog on sand.")
    assert (half["recall"], half["precision"], half["background"]) == (0.5, 1.0, 0.0)
    extra = grade(sample, "A dog, two cats, a rose and a train on grass.")
    assert (extra["recall"], extra["precision"], extra["background"]) == (1.0, 0.5, 1.0)
    assert extra["score"] == pytest.approx(2 / 3)


def test_chart_wants_the_pairs_and_punishes_invented_ones():
    sample = {"task": "chart", "facts": {"values": {"dog": "three", "cat": "nine"}}}
    assert grade(sample, "The dog has a bar of three. The cat has a bar of nine.")["score"] == 1.0
    assert grade(sample, "The dog has a bar of nine. The cat has a bar of three.")["score"] == 0.0
    assert grade(sample, "The dog has three. The cat has nine. The pig has one. The owl has one.")["score"] == 0.5
    assert claimed_values("The dog and the cat have three each") == {}


@pytest.mark.parametrize(
    ("kind", "fact", "right", "wrong"),
    [
        ("where", "at the top", "The dog is at the top of the picture.", "The dog is at the top left of it."),
        ("what", "dog", "That is a dog. A cat is near.", "That is a cat. A dog is near."),
        ("background", "snow", "The background is deep snow.", "The background is dry sand."),
        ("value", "six", "The bar reaches six. Nine is more.", "The bar reaches nine."),
    ],
)
def test_dialog_wants_the_fact_in_the_first_sentence(kind, fact, right, wrong):
    sample = {"task": "dialog", "facts": {"kind": kind, "fact": fact}}
    assert grade(sample, right)["score"] == 1.0
    assert grade(sample, wrong)["score"] == 0.0


def test_what_we_know_never_names_another_thing():
    for noun, facts in THING_FACTS.items():
        assert not set(named_nouns(" ".join(facts))) - {noun}, noun
    for facts in (*BACKGROUND_FACTS.values(), *CLOSINGS.values()):
        assert not named_nouns(" ".join(facts))


def test_knowledge_covers_the_whole_world():
    assert set(THING_FACTS) == set(NOUNS)
    assert set(BACKGROUND_FACTS) == set(CLOSINGS) == set(BACKGROUNDS)
