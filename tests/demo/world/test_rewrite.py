"""Wishes and their rewrites: the reference is always what the grader wants, and only it."""

import json
from collections import Counter

import pytest

from hf_mmspec.demo.world import looks
from hf_mmspec.demo.world.grade import grade, named_nouns
from hf_mmspec.demo.world.samples import draw_wish, sample, samples
from hf_mmspec.demo.world.words import NOUNS
from hf_mmspec.rewriting.instruction import ASPECT_RATIOS, FIELDS, TASKS, rewriting_messages

COUNT = 150


@pytest.fixture(scope="module")
def drawn():
    return list(samples("test", "rewrite", COUNT))


def test_every_reference_is_a_valid_object_that_the_grader_takes_for_right(drawn):
    for one in drawn:
        made = json.loads(one["answer"])
        assert tuple(made) == FIELDS
        assert made["task"] in TASKS
        assert made["aspect_ratio"] in ASPECT_RATIOS
        assert set(grade(one, one["answer"]).values()) == {1.0}


def test_all_tasks_and_all_ratios_occur_with_their_number_of_pictures(drawn):
    tasks = Counter(one["facts"]["task"] for one in drawn)
    assert set(tasks) == set(TASKS)
    assert min(tasks.values()) >= COUNT / 20
    assert {one["facts"]["ratio"] for one in drawn} == set(ASPECT_RATIOS)
    pictures = {task: {len(one["images"]) for one in drawn if one["facts"]["task"] == task} for task in TASKS}
    assert pictures == {"text_to_image": {0}, "edit": {1}, "reference": {1}, "multi_reference": {2}}


def test_messages_ask_with_as_many_image_parts_as_pictures(drawn):
    for one in drawn:
        assert [message["role"] for message in one["messages"]] == ["system", "user"]
        parts = [part["type"] for part in one["messages"][1]["content"]]
        assert parts == ["image"] * len(one["images"]) + ["text"]
        assert one["messages"] == rewriting_messages(one["messages"][1]["content"][-1]["text"], len(one["images"]))


def test_phrases_name_nothing_of_the_world_by_accident():
    tables = ("LOOKS", "PLACES", "CHANGES", "STYLES", "SHAPES", "LIGHTS", "MOODS", "FINISHES", "GROUNDS")
    assert {name: named_nouns(str(getattr(looks, name))) for name in tables} == {name: [] for name in tables}


def test_every_noun_has_one_kind():
    kinds = Counter(noun for nouns in looks.KINDS.values() for noun in nouns)
    assert kinds == Counter(list(NOUNS))
    assert set(looks.LOOKS) == set(looks.KINDS)


@pytest.mark.parametrize(
    ("field", "value", "grade_name"),
    [("task", "poem", "task"), ("aspect_ratio", "5:4", "ratio"), ("rewritten_prompt", "Nothing.", "named")],
)
def test_a_wrong_field_costs_the_score(drawn, field, value, grade_name):
    one = drawn[0]
    grades = grade(one, json.dumps({**json.loads(one["answer"]), field: value}))
    assert grades["score"] == 0 == grades[grade_name]
    assert grades["valid"] == 1


@pytest.mark.parametrize("text", ["", "a cat", "[]", "{}", '{"task": "edit"', "null"])
def test_text_that_is_no_object_is_graded_invalid(drawn, text):
    assert set(grade(drawn[0], text).values()) == {0.0}


def test_an_object_that_names_half_of_the_things_is_half_right(drawn):
    one = next(x for x in drawn if len(x["facts"]["nouns"]) == 2)
    made = json.loads(one["answer"])
    first, second = one["facts"]["nouns"]
    made["rewritten_prompt"] = f"{first} {' '.join(one['facts']['keys'])}"
    assert grade(one, json.dumps(made))["named"] == pytest.approx(2 / 3)
    assert second not in made["rewritten_prompt"]


def test_removed_things_are_not_wished_for():
    import random

    for seed in range(300):
        wish, scenes = draw_wish("train", seed, random.Random(seed))
        if "removes" in wish.why:
            seen = {thing.noun for thing in scenes[0].things}
            assert len(seen - set(wish.nouns)) == 1
            return
    pytest.fail("no wish removes a thing")


def test_splits_share_no_wish_without_a_picture():
    found = {split: set() for split in ("train", "test")}
    for split, nouns in found.items():
        for one in samples(split, "rewrite", 200):
            if not one["images"]:
                nouns.add(tuple(sorted(one["facts"]["nouns"])))
    assert all(found.values())
    assert not found["train"] & found["test"]


def test_one_sample_has_its_first_picture_as_image():
    for seed in range(20):
        one = sample("val", "rewrite", seed)
        assert one["image"] is (one["images"][0] if one["images"] else None)
