"""The words of each family that a user's text must not hold, from its real processor and config."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    Gemma3Config,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    Idefics3Config,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    LlavaConfig,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessorPil,
    SmolVLMConfig,
    SmolVLMProcessor,
)
from transformers.models.smolvlm import processing_smolvlm

from hf_mmspec.data import Conversation, PlaceholderError, check_text, find_placeholder, user_message
from hf_mmspec.data.placeholders import placeholders
from tests.evaluation.tiny import tiny_processor

ORDINARY = ("<end>", "<|im_end|>", "Ġthe")


def tokenizer(special, **named):
    """One token per byte, `<end>`, then `special` from id 300 on; `named` are attributes, as `image_token`."""
    alphabet = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *ORDINARY]
    alphabet += [f"<unused{index}>" for index in range(300 - len(alphabet))]
    vocabulary = {token: index for index, token in enumerate([*alphabet, *special])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens([*special, *ORDINARY[:2]])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<end>", pad_token="<end>", extra_special_tokens=named
    )


def llava():
    return tiny_processor(), LlavaConfig(image_token_id=3), {"<image>"}


def qwen():
    words = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
    config = Qwen2_5_VLConfig(
        image_token_id=300, video_token_id=301, vision_start_token_id=302, vision_end_token_id=303
    )
    return Qwen2_5_VLProcessor(Qwen2VLImageProcessorPil(), tokenizer(words)), config, set(words)


def gemma():
    words = ["<image_soft_token>", "<start_of_image>", "<end_of_image>"]
    named = dict(zip(("image_token", "boi_token", "eoi_token"), words, strict=True))
    config = Gemma3Config(image_token_index=300, boi_token_index=301, eoi_token_index=302)
    return Gemma3Processor(Gemma3ImageProcessorPil(), tokenizer(words, **named)), config, set(words)


def gemma_by_its_config():
    """Its tokenizer alone, without names: the config's ids tell."""
    words = ["<image_soft_token>", "<start_of_image>", "<end_of_image>"]
    config = Gemma3Config(image_token_index=300, boi_token_index=301, eoi_token_index=302)
    return tokenizer(words), config, set(words)


def idefics():
    words = ["<fake_token_around_image>", "<image>", "<global-img>"]
    config = Idefics3Config(image_token_id=301)
    return Idefics3Processor(Idefics3ImageProcessorPil(), tokenizer(words), 4), config, set(words)


def smolvlm():
    words = ["<fake_token_around_image>", "<image>", "<global-img>"]
    processor = SmolVLMProcessor(Idefics3ImageProcessorPil(), tokenizer(words), None, 4)
    return processor, SmolVLMConfig(image_token_id=301), {*words, "<video>"}


@pytest.fixture(autouse=True)
def without_videos(monkeypatch):
    """Processors of videos need torchvision and num2words, which these tests do not."""
    monkeypatch.setattr(ProcessorMixin, "check_argument_for_proper_class", lambda *_: None)
    monkeypatch.setattr(processing_smolvlm, "num2words", str)


FAMILIES = {each.__name__: each for each in (llava, qwen, gemma, gemma_by_its_config, idefics, smolvlm)}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_word_of_a_family_is_found(family):
    processor, config, words = FAMILIES[family]()
    assert placeholders(processor, config) == words
    for word in words:
        assert find_placeholder(processor, config, f"What does {word} mean?") == word
        with pytest.raises(PlaceholderError, match="which this model reads as a place for a picture") as caught:
            check_text(processor, config, word)
        assert repr(word) in str(caught.value) and "\n" not in str(caught.value)
    for text in ("", "an image", "<img>", "the <end>", "<|im_end|>", "image_token", "Ġthe"):
        assert find_placeholder(processor, config, text) is None
        check_text(processor, config, text)


@pytest.mark.parametrize("config", [{"image_token_index": -200}, {"image_token_index": 10**9}])
def test_ids_that_are_no_tokens_are_none(config):
    assert placeholders(tokenizer([]), LlavaConfig(**config)) == set()


def test_an_id_of_an_ordinary_token_forbids_nothing():
    """Some models reuse a letter; a text cannot do without."""
    assert placeholders(tokenizer([]), LlavaConfig(image_token_id=40)) == set()


def test_the_first_word_is_named_and_the_longer_of_two():
    processor = tokenizer(["<image>", "<image>+"], image_token="<image>", video_token="<image>+")
    config = LlavaConfig(image_token_id=300)
    assert find_placeholder(processor, config, "a <image>+ <image>") == "<image>+"
    assert find_placeholder(processor, config, "a <image> <image>+") == "<image>"


def test_the_whole_text_of_a_conversation_is_looked_at():
    conversation = Conversation(
        [user_message("Look", pictures=0), {"role": "assistant", "content": [{"type": "text", "text": "<image>"}]}]
    )
    assert find_placeholder(*llava()[:2], conversation.text) == "<image>"
