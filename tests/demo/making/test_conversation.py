"""Training conversations are token for token what the processor makes of the same messages."""

import torch

from hf_mmspec.demo import samples
from hf_mmspec.demo.making.conversation import conversation, encode
from hf_mmspec.demo.making.visual_words import VisualWords
from hf_mmspec.demo.world.words import PATCH_WORDS
from tests.demo.inputs import inputs_of


def test_training_ids_equal_the_processors(processor):
    for sample in samples("val", n=6):
        texts = [message["content"][-1]["text"] for message in sample["messages"]] + [sample["answer"]]
        ids, labels = encode(processor.tokenizer, list(zip(texts[::2], texts[1::2], strict=True)))
        prompt = inputs_of(processor, sample)["input_ids"][0]
        assert torch.equal(ids[: len(prompt)], prompt)
        assert labels[len(prompt) - 1] == -100
        assert labels[-1] == processor.tokenizer.eos_token_id


def test_conversations_are_reproducible(processor):
    first, again = (conversation(processor.tokenizer, "train", 7) for _ in range(2))
    assert torch.equal(first.input_ids, again.input_ids)
    assert (first.patches.words == again.patches.words).all()


def test_every_visual_word_is_one_token(processor):
    words = VisualWords(processor.tokenizer, torch.randn(49152, 8))
    target = words.targets(torch.tensor([[0, 1]]), torch.tensor([[[-1, -1], [0, 3]]]))
    assert target.shape == (1, 2, 8)
    assert words.words.shape == (len(PATCH_WORDS), 8)
    assert torch.allclose(target[0, 0], words.norm * words.words[0])
