"""The real embedded default: it loads offline, and its text depends on the image."""

import pytest
import torch
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from hf_mmspec.demo import grade, load_default, samples
from hf_mmspec.demo.base_model import MissingBaseError
from hf_mmspec.demo.evaluate import answer, images_for, with_image

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def default():
    try:
        return load_default()
    except MissingBaseError as missing:
        pytest.skip(str(missing))


def test_it_is_a_native_model_with_its_processor(default):
    model, processor = default
    assert isinstance(model, LlavaForConditionalGeneration)
    assert isinstance(processor, LlavaProcessor)
    assert model.config.get_text_config().vocab_size == len(processor.tokenizer) == 49152
    assert not model.training
    assert torch.equal(model.lm_head.weight, model.get_input_embeddings().weight)


def test_it_sees(default):
    drawn = list(samples("val", task="scene", n=6))
    scores = {}
    for condition in ("right", "blank"):
        images = images_for(drawn, condition, drawn)
        asked = [with_image(sample["messages"], image) for sample, image in zip(drawn, images, strict=True)]
        rows, _ = answer(*default, asked)
        texts = default[1].batch_decode(rows, skip_special_tokens=True)
        scores[condition] = sum(grade(s, text)["score"] for s, text in zip(drawn, texts, strict=True)) / len(drawn)
    assert scores["right"] >= 0.7
    assert scores["blank"] <= scores["right"] / 3
