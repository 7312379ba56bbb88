"""What the tower learns from: pixels as the processor makes them, labelled patch by patch."""

import numpy as np
import torch

from hf_mmspec.demo import samples
from hf_mmspec.demo.making.patches import DETAIL_WORDS, label_chart, label_scene
from hf_mmspec.demo.making.pictures import batch, to_pixels
from hf_mmspec.demo.model.tower import GRID, VISUAL_TOKENS
from hf_mmspec.demo.world.chart import Bar, Chart
from hf_mmspec.demo.world.scene import Scene, Thing
from hf_mmspec.demo.world.words import PATCH_WORDS
from tests.demo.inputs import inputs_of


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


def test_a_batch_has_the_shapes_that_the_tower_learns_from():
    pixels, words, details = batch("val", 4, 3)
    assert pixels.shape == (3, 3, 192, 192)
    assert words.shape == (3, 144)
    assert details.shape == (3, 144, 2)
    assert pixels.abs().max() <= 1


def test_images_become_144_tokens_and_our_pixels(processor):
    sample = next(samples("val", n=1))
    inputs = inputs_of(processor, sample)
    assert (inputs["input_ids"] == 16).sum() == VISUAL_TOKENS
    assert torch.equal(inputs["pixel_values"][0], to_pixels(sample["image"]))
