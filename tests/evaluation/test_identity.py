"""The checker proves ties and calls everything else a failure."""

import functools
import math

import pytest
import torch
from transformers import LogitsProcessorList

from hf_mmspec.evaluation.contenders import STOCK, Contender, answer
from hf_mmspec.evaluation.identity import (
    find_difference,
    next_scores,
    reading_noise,
    scores_read_in_pieces,
    tie_epsilon,
)
from tests.generation import packed
from tests.generation.tiny import llava, llava_prompt, qwen, qwen_prompt


def plain(target, inputs, count=8):
    return answer(target, inputs, Contender(STOCK), count).tokens


@pytest.mark.parametrize(("family", "prompt"), [(llava, llava_prompt), (qwen, qwen_prompt)])
@pytest.mark.parametrize("images", [0, 1, 2])
def test_running_the_prefix_again_gives_the_scores_of_that_step(family, prompt, images):
    target, inputs = family(), prompt(seed=3, images=images)
    output = target.generate(
        **inputs, max_new_tokens=6, do_sample=False, output_scores=True, return_dict_in_generate=True
    )
    tokens = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    for position in (0, 3, len(tokens) - 1):
        again = next_scores(target, inputs, tokens[:position])
        torch.testing.assert_close(again, output.scores[position][0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 1.7},
        {"suppress_tokens": [5, 7]},
        {"min_new_tokens": 4},
        {"min_length": 33},  # five more than the prompt
        {"min_new_tokens": 4, "min_length": 35},
    ],
)
def test_ties_are_judged_by_what_tokens_are_chosen_from(settings):
    """Two tokens that tie after a penalty are far apart before it, and a suppressed token may be the best one."""
    target, inputs = llava(), llava_prompt()
    target.generation_config.update(**settings, eos_token_id=9)
    options = {"max_new_tokens": 8, "do_sample": False, "output_scores": True, "return_dict_in_generate": True}
    output = target.generate(**inputs, **options)
    tokens = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    for position in range(len(tokens)):
        again = next_scores(target, inputs, tokens[:position])
        torch.testing.assert_close(again, output.scores[position][0], atol=1e-4, rtol=1e-4)


def test_tokens_that_tie_only_after_the_penalty_are_a_tie(monkeypatch):
    """A repetition penalty brings the best token down to the second one, give or take rounding."""
    target, inputs = llava(), llava_prompt()
    penalized = int(inputs["input_ids"][0, -1])
    other = next(token for token in range(50, 128) if token not in inputs["input_ids"][0].tolist())
    logits = torch.zeros(target.config.text_config.vocab_size)
    logits[penalized], logits[other] = 20.0, 20.0 / 1.05
    head = target.get_output_embeddings()
    monkeypatch.setattr(head, "forward", lambda hidden: logits.expand(*hidden.shape[:-1], -1))
    assert not find_difference(target, inputs, [penalized], [other]).is_near_tie
    target.generation_config.repetition_penalty = 1.05
    assert find_difference(target, inputs, [penalized], [other]).is_near_tie


def test_a_tie_among_what_a_processor_of_the_call_leaves():
    """A grammar allows few tokens; the target's best one is seldom among them."""
    target, inputs = llava(), llava_prompt(seed=3)
    worst = next_scores(target, inputs, []).argsort()[:2].tolist()

    def only_those(input_ids, scores):
        return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor(worst), 1.0)

    assert not find_difference(target, inputs, worst[:1], worst[1:]).is_near_tie
    options = {"logits_processor": LogitsProcessorList([only_those])}
    assert find_difference(target, inputs, worst[:1], worst[1:], **options).is_near_tie


@pytest.mark.parametrize("is_everything", [False, True])
def test_a_forbidden_token_is_infinitely_far_from_a_tie(is_everything):
    target, inputs = llava(), llava_prompt()
    size = target.config.text_config.vocab_size
    target.generation_config.suppress_tokens = list(range(size)) if is_everything else [5]
    difference = find_difference(target, inputs, [5], [7])
    assert difference.gap == math.inf and not difference.is_near_tie


def test_equal_answers_have_no_difference():
    target, inputs = llava(), llava_prompt()
    tokens = plain(target, inputs)
    assert find_difference(target, inputs, tokens, list(tokens)) is None


def test_first_difference_is_located_and_a_worse_token_is_a_failure():
    target, inputs = llava(), llava_prompt()
    tokens = plain(target, inputs)
    worse = [*tokens[:3], (tokens[3] + 1) % 100 + 3, *tokens[4:]]
    difference = find_difference(target, inputs, tokens, worse)
    assert difference.position == 3 and difference.tokens == (tokens[3], worse[3])
    assert difference.gap > difference.epsilon and not difference.is_near_tie


def test_a_token_that_the_target_likes_as_much_is_a_tie():
    target, inputs = llava(), llava_prompt()
    tokens = plain(target, inputs)
    twin = 111 if 111 not in tokens else 112
    with torch.no_grad():
        target.lm_head.weight[twin] = target.lm_head.weight[tokens[2]]
    tokens = plain(target, inputs)
    position = next(i for i, token in enumerate(tokens) if token in (twin, tokens[2]))
    other = twin if tokens[position] != twin else tokens[2]
    difference = find_difference(target, inputs, tokens, [*tokens[:position], other])
    assert difference.gap == 0 and difference.is_near_tie


def test_two_tokens_far_below_the_best_one_are_no_tie():
    """Both answers wrong in the same way is still wrong: the gap is counted from the target's best token."""
    target, inputs = llava(), llava_prompt()
    worst = next_scores(target, inputs, []).argsort()[:2].tolist()
    assert not find_difference(target, inputs, [worst[0]], [worst[1]]).is_near_tie


def test_an_answer_that_ends_early_is_a_failure():
    target, inputs = llava(), llava_prompt()
    tokens = plain(target, inputs)
    difference = find_difference(target, inputs, tokens, tokens[:-2])
    assert difference.position == len(tokens) - 2
    assert difference.gap == math.inf and not difference.is_near_tie


@pytest.fixture
def wavering():
    """A bfloat16 target that prefers 7, and 5 when it reads more than `least` tokens behind the prompt at once."""

    def make(least):
        target, inputs = llava().to(torch.bfloat16), llava_prompt(images=1)
        length, forward = inputs["input_ids"].shape[1], target.forward

        @functools.wraps(forward)  # `generate` looks at its arguments
        def leaning(*arguments, input_ids=None, **options):
            output = forward(*arguments, input_ids=input_ids, **options)
            output.logits[..., 7] = 40.0
            output.logits[..., 5] = 45.0 if least < input_ids.shape[1] < length else 35.0
            return output

        target.forward = leaning
        return target, {**inputs, "pixel_values": inputs["pixel_values"].to(torch.bfloat16)}

    return make


def test_either_token_by_the_number_that_is_read_at_once_is_a_tie(wavering):
    target, inputs = wavering(least=2)
    difference = find_difference(target, inputs, [7] * 9, [7] * 8 + [5])
    assert difference.gap == 5.0 > difference.epsilon
    assert difference.chosen == (7, 5) and difference.is_near_tie


@pytest.mark.parametrize("other", [5, 9])
def test_a_token_that_the_target_chooses_in_no_reading_is_a_failure(wavering, other):
    target, inputs = wavering(least=2 if other == 9 else 100)
    difference = find_difference(target, inputs, [7] * 9, [7] * 8 + [other])
    assert other not in difference.chosen and not difference.is_near_tie


def test_what_the_target_does_not_say_one_by_one_proves_nothing(wavering):
    """The baseline's token is not the target's: neither answer is right."""
    target, inputs = wavering(least=2)
    difference = find_difference(target, inputs, [7] * 8 + [5], [7] * 9)
    assert difference.chosen == () and not difference.is_near_tie


def test_in_float32_rounding_is_no_excuse(wavering):
    target, inputs = wavering(least=2)
    inputs = {**inputs, "pixel_values": inputs["pixel_values"].float()}
    assert not find_difference(target.float(), inputs, [7] * 9, [7] * 8 + [5]).is_near_tie


def test_pieces_are_read_as_the_whole_prefix_is():
    target, inputs = llava(), llava_prompt(seed=3, images=1)
    tokens = plain(target, inputs)
    for size in (1, 3, 8, 20):
        for count in (0, 1, 7, 8):
            found = scores_read_in_pieces(target, inputs, tokens[:count], size)
            torch.testing.assert_close(found, next_scores(target, inputs, tokens[:count]), atol=1e-4, rtol=1e-4)


def test_epsilon_follows_the_precision_of_the_dtype():
    assert tie_epsilon(20.0, torch.bfloat16) == tie_epsilon(-9.0, torch.bfloat16) == 0.25
    assert tie_epsilon(64.0, torch.bfloat16) == 0.5
    assert tie_epsilon(20.0, torch.float32) < 4e-6


@pytest.mark.parametrize(("family", "prompt"), [("llava", llava_prompt), ("qwen", qwen_prompt)])
def test_packed_weights_set_the_epsilon_themselves(tmp_path, family, prompt):
    """A float target reads its answer at once as it wrote it; one of eight bits does not, and that is its epsilon."""
    full, inputs = packed.save_full(family, tmp_path), prompt(seed=1, images=1)
    assert reading_noise(full, inputs, 4) < 1e-3
    target = packed.load(tmp_path, "int8 with outliers")
    noise = reading_noise(target, inputs, 4)
    assert noise > 10 * tie_epsilon(32.0, torch.float32)
    tokens = plain(target, inputs)
    other = [*tokens[:3], next_scores(target, inputs, tokens[:3]).argmin().item()]
    difference = find_difference(target, inputs, tokens, other)
    assert difference.epsilon >= noise and not difference.is_near_tie
    assert find_difference(full, inputs, tokens, other).epsilon < 1e-5
