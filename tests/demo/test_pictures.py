"""Pictures are made of facts alone: reproducible, split by content, labelled patch by patch."""

import numpy as np
import pytest

from hf_mmspec.demo import chart, samples, scene
from hf_mmspec.demo.chart import Bar, Chart
from hf_mmspec.demo.patches import DETAIL_WORDS, GRID, label_chart, label_scene
from hf_mmspec.demo.pictures import batch
from hf_mmspec.demo.samples import TASKS, sample
from hf_mmspec.demo.scene import Scene, Thing
from hf_mmspec.demo.splits import SPLITS, content_key, draw_chart, draw_scene, split_of
from hf_mmspec.demo.words import NOUNS, PATCH_WORDS


@pytest.mark.parametrize("draw", [draw_scene, draw_chart])
def test_splits_share_no_content(draw):
    keys = {split: {content_key(draw(split, seed)) for seed in range(150)} for split in SPLITS}
    assert all(split_of(draw(split, seed)) == split for split in SPLITS for seed in range(20))
    assert not keys["train"] & keys["test"]
    assert not keys["train"] & keys["val"]
    assert not keys["val"] & keys["test"]


def test_content_ignores_layout_and_background():
    first = Scene("grass", (Thing("dog", 30, 30, 50), Thing("cat", 90, 90, 50)), 1)
    second = Scene("snow", (Thing("cat", 30, 90, 60), Thing("dog", 160, 30, 44)), 2)
    assert content_key(first) == content_key(second)


@pytest.mark.parametrize("task", TASKS)
def test_a_sample_is_reproduced_by_its_seed(task):
    first, again, other = sample("test", task, 5), sample("test", task, 5), sample("test", task, 6)
    assert np.array_equal(np.asarray(first["image"]), np.asarray(again["image"]))
    assert not np.array_equal(np.asarray(first["image"]), np.asarray(other["image"]))
    assert {k: v for k, v in first.items() if k != "image"} == {k: v for k, v in again.items() if k != "image"}
    assert first["image"].size == (192, 192)
    assert first["image"].mode == "RGB"


def test_samples_take_the_tasks_in_turn_and_can_start_anywhere():
    drawn = list(samples("val", n=5))
    assert [s["task"] for s in drawn] == ["scene", "chart", "dialog", "scene", "chart"]
    assert next(iter(samples("val", n=1, start=4)))["answer"] == drawn[4]["answer"]
    assert all(s["task"] == "chart" for s in samples("val", task="chart", n=3))


def test_messages_carry_one_image_and_the_first_turn_of_a_dialog():
    dialog = sample("test", "dialog", 0)
    assert [m["role"] for m in dialog["messages"]] == ["user", "assistant", "user"]
    parts = [part["type"] for message in dialog["messages"] for part in message["content"]]
    assert parts == ["image", "text", "text", "text"]


def test_unknown_split_or_task_is_an_error():
    with pytest.raises(ValueError, match="unknown split"):
        next(samples("dev"))
    with pytest.raises(ValueError, match="unknown task"):
        next(samples("test", task="poem"))


def _words(labels):
    return np.array(PATCH_WORDS)[labels.words].reshape(GRID, GRID)


def test_scene_labels_say_what_and_where():
    facts = Scene("snow", (Thing("pizza", 160, 32, 64),), 0)
    labels = label_scene(facts)
    words = _words(labels)
    assert words[2, 10] == "pizza"
    assert words[8, 2] == "snow"
    where = [DETAIL_WORDS[i] for i in labels.details[2 * GRID + 10]]
    assert where == ["top", "right"]
    assert (labels.details >= 0).all()


def test_chart_labels_say_how_many():
    facts = Chart((Bar("dog", 4, 16, 32), Bar("cat", 9, 112, 32)), "red", 146, 40, 0)
    labels = label_chart(facts)
    words, numbers = _words(labels), labels.details[:, 0].reshape(GRID, GRID)
    assert words[8, 1] == "red"
    assert DETAIL_WORDS[numbers[8, 1]] == "one"
    assert DETAIL_WORDS[numbers[5, 1]] == "four"
    assert words[4, 1] == "paper"
    assert DETAIL_WORDS[numbers[10, 7]] == "nine"
    assert words[10, 7] == "cat"


def test_every_icon_is_on_the_sheet():
    from hf_mmspec.demo.sprites import sprite

    for noun in NOUNS:
        assert np.asarray(sprite(noun, 48))[:, :, 3].mean() > 20, noun


def test_things_stay_inside_and_do_not_repeat():
    for seed in range(100):
        things = draw_scene("train", seed).things
        assert len({thing.noun for thing in things}) == len(things)
        for thing in things:
            half = thing.side // 2
            assert half <= thing.x <= scene.SIZE - half
            assert half <= thing.y <= scene.SIZE - half


def test_charts_have_different_values_that_fit():
    for seed in range(100):
        bars = draw_chart("train", seed).bars
        assert len({bar.value for bar in bars}) == len(bars)
        assert max(bar.value for bar in bars) * chart.UNIT <= 146


def test_a_batch_has_the_shapes_that_the_tower_learns_from():
    pixels, words, details = batch("val", 4, 3)
    assert pixels.shape == (3, 3, 192, 192)
    assert words.shape == (3, 144)
    assert details.shape == (3, 144, 2)
    assert pixels.abs().max() <= 1
