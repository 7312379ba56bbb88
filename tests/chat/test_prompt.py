"""What of a prompt's tensors belongs to which picture."""

import pytest
import torch

from hf_mmspec.chat import Chat
from hf_mmspec.chat import prompt as prompts
from hf_mmspec.chat.prompt import digest, render, without_first_pictures

from . import tiny
from .test_history import ask


def test_one_entry_for_each_picture():
    pixels = {"pixel_values": torch.arange(3)[:, None], "image_sizes": torch.arange(6).view(3, 2)}
    assert without_first_pictures(pixels, 0, 3) == pixels
    rest = without_first_pictures(pixels, 2, 3)
    assert rest["pixel_values"].tolist() == [[2]] and rest["image_sizes"].tolist() == [[4, 5]]


def test_patches_of_all_pictures_in_one_row():
    grid = torch.tensor([[1, 2, 2], [1, 2, 3]])
    rest = without_first_pictures({"pixel_values": torch.arange(10), "image_grid_thw": grid}, 1, 2)
    assert rest["pixel_values"].tolist() == list(range(4, 10)) and rest["image_grid_thw"].tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    "pixels",
    [
        {"pixel_values": torch.zeros(1, 7, 3)},  # tiles of all pictures of a row (SmolVLM)
        {"pixel_values": torch.zeros(5, 3)},  # tiles of all pictures (InternVL)
        {"pixel_values": torch.zeros(9), "image_grid_thw": torch.tensor([[1, 2, 2], [1, 2, 3]])},
        {"pixel_values": torch.zeros(10), "image_grid_thw": torch.tensor([[1, 2, 2], [1, 2, 3]]), "x": torch.zeros(1)},
    ],
)
def test_other_layouts_are_not_guessed(pixels):
    assert without_first_pictures(pixels, 1, 2) is None


@pytest.mark.parametrize("family", ["llava", "qwen"])
def test_pixels_of_later_pictures_are_those_of_the_whole_prompt(family, request):
    model, processor = request.getfixturevalue(family)
    images = [{"type": "image", "image": tiny.picture(each, (16 + 8 * each, 24))} for each in range(3)]
    message = {"role": "user", "content": [*images, {"type": "text", "text": "?"}]}
    prompt = render(model, processor, [message])
    alone = render(model, processor, [{"role": "user", "content": [images[2], {"type": "text", "text": "?"}]}])
    request_ = prompt.request(2)
    assert torch.equal(request_["pixel_values"], alone.inputs["pixel_values"])
    assert request_["input_ids"].shape == prompt.inputs["input_ids"].shape
    assert not {"pixel_values", "image_grid_thw"} & set(prompt.request(3))
    assert set(prompt.request()) == {*prompt.inputs, "position_ids"}


def test_where_pictures_cannot_be_told_apart_all_is_read_again(chat, monkeypatch):
    ask(chat, "One", [tiny.picture(0)])
    monkeypatch.setattr(prompts, "without_first_pictures", lambda pixels, known, total: None if known else pixels)
    assert ask(chat, "Two", [tiny.picture(1)]).reused == 0
    assert ask(chat, "Three").reused > 144  # no new picture, nothing to tell apart


def test_a_model_that_cannot_go_on_reads_all(llava, monkeypatch):
    """Layers with a running state, or a prompt that sees itself: the same answers, without a cache."""
    monkeypatch.setattr("hf_mmspec.chat.chat.ConversationCache.fits", lambda model: False)
    chat = Chat(*llava, tiny.build_drafter("vispec", llava[0]))
    for question in ("One", "Two"):
        assert ask(chat, question, [tiny.picture(0)]).reused == 0


def test_digests():
    assert digest(tiny.picture(0)) == digest(tiny.picture(0).copy()) != digest(tiny.picture(1))
    assert digest(tiny.picture(0, (8, 4))) != digest(tiny.picture(0, (4, 8)))
