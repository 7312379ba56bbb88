"""The processor is a stock LLaVA one; training conversations are token for token what it makes."""

import pytest
import torch
from transformers import AutoProcessor, LlavaProcessor

from hf_mmspec.demo import samples
from hf_mmspec.demo.conversation import VISUAL_TOKENS, conversation, encode
from hf_mmspec.demo.evaluate import with_image
from hf_mmspec.demo.pictures import to_pixels
from hf_mmspec.demo.processor import build_processor
from hf_mmspec.demo.visual_words import VisualWords
from hf_mmspec.demo.words import PATCH_WORDS


@pytest.fixture(scope="module")
def processor(tokenizer):
    return build_processor(tokenizer)


def _inputs(processor, sample):
    messages = with_image(sample["messages"], sample["image"])
    return processor.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )


def test_vocabulary_keeps_its_size_and_ends(processor):
    tokenizer = processor.tokenizer
    assert len(tokenizer) == 49152
    assert tokenizer.encode("<image>", add_special_tokens=False) == [16]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id) == (2, 2, 1)
    assert tokenizer.decode(tokenizer.encode("A dog's café, 12.5 km\n\n away")) == "A dog's café, 12.5 km\n\n away"


def test_images_become_144_tokens_and_our_pixels(processor):
    sample = next(samples("val", n=1))
    inputs = _inputs(processor, sample)
    assert (inputs["input_ids"] == 16).sum() == VISUAL_TOKENS
    assert torch.equal(inputs["pixel_values"][0], to_pixels(sample["image"]))


def test_training_ids_equal_the_processors(processor):
    for sample in samples("val", n=6):
        texts = [message["content"][-1]["text"] for message in sample["messages"]] + [sample["answer"]]
        ids, labels = encode(processor.tokenizer, list(zip(texts[::2], texts[1::2], strict=True)))
        prompt = _inputs(processor, sample)["input_ids"][0]
        assert torch.equal(ids[: len(prompt)], prompt)
        assert labels[len(prompt) - 1] == -100
        assert labels[-1] == processor.tokenizer.eos_token_id


def test_conversations_are_reproducible(processor):
    first, again = (conversation(processor.tokenizer, "train", 7) for _ in range(2))
    assert torch.equal(first.input_ids, again.input_ids)
    assert (first.patches.words == again.patches.words).all()


def test_round_trip_through_a_folder(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(loaded, LlavaProcessor)
    sample = next(samples("val", task="dialog", n=1))
    first, second = _inputs(processor, sample), _inputs(loaded, sample)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_every_visual_word_is_one_token(processor):
    words = VisualWords(processor.tokenizer, torch.randn(49152, 8))
    target = words.targets(torch.tensor([[0, 1]]), torch.tensor([[[-1, -1], [0, 3]]]))
    assert target.shape == (1, 2, 8)
    assert words.words.shape == (len(PATCH_WORDS), 8)
    assert torch.allclose(target[0, 0], words.norm * words.words[0])
