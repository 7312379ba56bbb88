"""The real embedded default: it loads offline, and its text depends on the image."""

import pytest
import torch
from transformers import ImageTextToTextPipeline, LlavaForConditionalGeneration, LlavaProcessor, pipeline

from hf_mmspec.demo import grade, load_default, samples
from hf_mmspec.demo.making.evaluate import answer, images_for, with_images
from hf_mmspec.demo.model.base_model import MissingBaseError
from hf_mmspec.evaluation.loading import default_drafter
from tests.demo.inputs import inputs_of

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


@pytest.mark.parametrize("counts", [(1, 1, 1), (0, 2, 1, 0, 2), (2, 1, 0, 1, 2, 2)])
def test_another_image_is_never_the_samples_own(counts):
    """Samples of one task differ in their numbers of images."""
    drawn = [{"images": [f"{number}.{place}" for place in range(count)]} for number, count in enumerate(counts)]
    for number, (sample, shown) in enumerate(zip(drawn, images_for(drawn, "other"), strict=True)):
        assert len(shown) == len(sample["images"])
        assert all(not name.startswith(f"{number}.") for name in shown)


def test_it_sees(default):
    drawn = list(samples("val", task="scene", n=6))
    scores = {}
    for condition in ("right", "blank"):
        images = images_for(drawn, condition)
        asked = [with_images(sample["messages"], image) for sample, image in zip(drawn, images, strict=True)]
        rows, _ = answer(*default, asked)
        texts = default[1].batch_decode(rows, skip_special_tokens=True)
        scores[condition] = sum(grade(s, text)["score"] for s, text in zip(drawn, texts, strict=True)) / len(drawn)
    assert scores["right"] >= 0.7
    assert scores["blank"] <= scores["right"] / 3


def test_in_a_pipeline_with_the_committed_drafter(default):
    """Float32, where the text with a drafter is that without one to the letter."""
    model, processor = load_default("float32")
    pipe = pipeline("image-text-to-text", model=model, processor=processor, assistant_model=default_drafter())
    without = ImageTextToTextPipeline(model=model, processor=processor, task="image-text-to-text")
    for sample in samples("test", n=3):
        messages = with_images(sample["messages"], sample["images"])
        options = {"max_new_tokens": 40, "return_full_text": False}
        assert pipe(messages, **options)[0]["generated_text"] == without(messages, **options)[0]["generated_text"]
    assert pipe.assistant_model.dtype == torch.float32


def test_what_the_processor_gives_can_be_generated_from(default):
    model, processor = default
    sample = next(samples("val", task="dialog", n=1))
    inputs = inputs_of(processor, sample)
    output = model.generate(**inputs, do_sample=False, max_new_tokens=3)
    assert output.shape == (1, inputs["input_ids"].shape[1] + 3)
