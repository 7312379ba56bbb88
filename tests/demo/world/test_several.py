"""Prompts of the same kinds about any number of pictures."""

import pytest

from hf_mmspec.data import Conversation
from hf_mmspec.demo.world.several import MOST, prompt

COUNTS = (0, 1, 2, 4)


def pixels(made):
    return [image.tobytes() for image in made["images"]]


@pytest.mark.parametrize("pictures", COUNTS)
def test_kinds_take_turns(pictures):
    made = [prompt("val", pictures, seed) for seed in range(6)]
    kinds = ["scene", "dialog", "rewrite"] if pictures else ["chat", "chat", "rewrite"]
    assert [each["task"] for each in made] == 2 * kinds
    for each in made:
        assert Conversation(each["messages"], each["images"]).text  # a place for each picture
        assert len(each["images"]) == pictures
        assert each["messages"][-1]["role"] == "user"


def test_more_pictures_come_before_the_others():
    for seed in range(3):
        four, two, one = (prompt("test", pictures, seed) for pictures in (4, 2, 1))
        assert pixels(four)[2:] == pixels(two)
        assert pixels(two)[1:] == pixels(one)
        assert len(set(pixels(four))) == 4


def test_the_last_question_of_a_dialog_stays():
    one, four = prompt("val", 1, 1), prompt("val", 4, 1)
    assert four["messages"][-3:] == one["messages"]
    assert len(four["messages"]) == 9


def test_prompts_come_back_from_their_seeds_and_differ():
    first, again, other, elsewhere = (
        prompt(split, 2, seed) for split, seed in (("val", 0), ("val", 0), ("val", 3), ("train", 0))
    )
    assert pixels(first) == pixels(again) and first["messages"] == again["messages"]
    assert pixels(first) != pixels(other)
    assert pixels(first) != pixels(elsewhere)


@pytest.mark.parametrize("pictures", [-1, MOST + 1])
def test_impossible_numbers(pictures):
    with pytest.raises(ValueError, match=f"0 to {MOST} pictures, not {pictures}"):
        prompt("val", pictures, 0)
