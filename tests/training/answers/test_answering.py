"""The target's own answers: of a padded batch as of each prompt alone, cut at their ends, drawn by a seed."""

from dataclasses import replace

import pytest
import torch

from hf_mmspec.data import model_inputs
from hf_mmspec.training.answers.answering import Answering, answer_batch, answer_end, end_tokens
from tests.training.making import conversation

HOW = Answering(max_new_tokens=6)
ASKED = [conversation(seed, pictures) for seed, pictures in enumerate((1, 0, 2))]


def test_answers_of_a_batch_are_those_of_each_alone(pair):
    target, processor = pair
    for asked, answered in zip(ASKED, answer_batch(target, processor, ASKED, HOW), strict=True):
        inputs = model_inputs(processor, [asked])
        alone = target.generate(**inputs, do_sample=False, max_new_tokens=6)
        assert list(answered.ids) == alone[0].tolist()
        assert answered.prompt_length == inputs["input_ids"].shape[1]
        assert answered.conversation is asked


def test_drawn_answers_differ_and_repeat(qwen):
    drawn = Answering(temperature=1.0, max_new_tokens=6)
    first, again, other = ([a.ids for a in answer_batch(*qwen, ASKED, drawn, seed)] for seed in (1, 1, 2))
    assert first == again != other


def test_known_answers_need_no_decoding(qwen, monkeypatch):
    target, processor = qwen
    made = answer_batch(target, processor, ASKED, HOW)
    known = [replace(a.conversation, answer_ids=list(a.ids[a.prompt_length :])) for a in made]
    monkeypatch.setattr(target, "generate", None)
    again = answer_batch(target, processor, known, HOW)
    assert [(a.ids, a.prompt_length) for a in again] == [(a.ids, a.prompt_length) for a in made]


@pytest.mark.parametrize("ends, expected", [({2}, 4), ({6, 9}, 3), ({7}, 6), (set(), 6)])
def test_answer_end(ends, expected):
    """Behind the first end token of the answer; ends in the prompt do not count."""
    assert answer_end(torch.tensor([2, 5, 6, 2, 2, 9]), 1, ends) == expected


def test_end_tokens(qwen):
    target, _ = qwen
    assert end_tokens(target) == {1}
    config = target.generation_config
    target.generation_config = replace_eos(config, [1, 7])
    assert end_tokens(target) == {1, 7}
    target.generation_config = replace_eos(config, None)
    assert end_tokens(target) == set()
    target.generation_config = config


def replace_eos(config, eos):
    import copy

    other = copy.deepcopy(config)
    other.eos_token_id = eos
    return other


def test_an_answer_stops_at_its_end_in_a_batch_that_goes_on(qwen):
    """Padding behind the end belongs to no answer, though it is the end token again."""
    target, processor = qwen
    plain = answer_batch(target, processor, ASKED, HOW)
    first = plain[0].ids[plain[0].prompt_length :]
    config = target.generation_config
    target.generation_config = replace_eos(config, first[1])
    target.generation_config.pad_token_id = first[1]
    stopped = answer_batch(target, processor, ASKED, HOW)
    target.generation_config = config
    assert list(stopped[0].ids[stopped[0].prompt_length :]) == list(first[:2])
    for before, after in zip(plain, stopped, strict=True):
        assert list(after.ids) == list(before.ids[: len(after.ids)])
