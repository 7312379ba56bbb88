"""Pictures and texts are made of facts alone: reproducible, and split by content."""

import numpy as np
import pytest

from hf_mmspec.demo import samples
from hf_mmspec.demo.world import chart, scene
from hf_mmspec.demo.world.samples import TASKS, sample
from hf_mmspec.demo.world.scene import Scene, Thing
from hf_mmspec.demo.world.splits import SPLITS, content_key, draw_chart, draw_scene, split_of
from hf_mmspec.demo.world.sprites import sprite
from hf_mmspec.demo.world.words import NOUNS


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


def _pixels(sample):
    return [image.tobytes() for image in sample["images"]]


def _words(sample):
    return {key: value for key, value in sample.items() if key not in ("image", "images")}


@pytest.mark.parametrize("task", TASKS)
def test_a_sample_is_reproduced_by_its_seed(task):
    first, again, other = sample("test", task, 5), sample("test", task, 5), sample("test", task, 6)
    assert _pixels(first) == _pixels(again)
    assert _pixels(first) != _pixels(other)
    assert _words(first) == _words(again) != _words(other)
    assert {image.size for image in first["images"]} <= {(192, 192)}
    assert {image.mode for image in first["images"]} <= {"RGB"}


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


def test_every_icon_is_on_the_sheet():
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
