"""The processor is a stock LLaVA one, and SmolLM2's vocabulary keeps its size."""

import torch
from transformers import AutoProcessor, LlavaProcessor

from hf_mmspec.demo import samples
from tests.demo.inputs import inputs_of


def test_vocabulary_keeps_its_size_and_ends(processor):
    tokenizer = processor.tokenizer
    assert len(tokenizer) == 49152
    assert tokenizer.encode("<image>", add_special_tokens=False) == [16]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id) == (2, 2, 1)
    assert tokenizer.decode(tokenizer.encode("A dog's café, 12.5 km\n\n away")) == "A dog's café, 12.5 km\n\n away"


def test_round_trip_through_a_folder(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(loaded, LlavaProcessor)
    sample = next(samples("val", task="dialog", n=1))
    first, second = inputs_of(processor, sample), inputs_of(loaded, sample)
    assert all(torch.equal(first[key], second[key]) for key in first)
