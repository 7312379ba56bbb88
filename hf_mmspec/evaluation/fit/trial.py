"""A self-test: a few tokens of a neutral prompt through `generate`, with and without the drafter.

A sample of this size proves that drafting works and says little about speed; `mmspec bench` measures that.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image, ImageDraw
from transformers import PreTrainedModel

from hf_mmspec.data import Conversation, model_inputs, user_message
from hf_mmspec.generation.visual_spans import visual_token_ids
from hf_mmspec.modeling import Drafter

from ..identity import Difference, find_difference
from ..prompts import to_target
from .finding import FAIL, OK, WARN, Finding

TOKENS = 20
_BUDGET = {"draft_depth": 4, "draft_top_k": 4, "draft_total_tokens": 16, "draft_mode": "tree"}
# Below this drafting does not pay on any machine that was measured.
_LEAST_LENGTH = 1.5


@dataclass(frozen=True)
class Trial:
    """What happened.

    Args:
        tokens: how many the target gave alone.
        length: L; nan where the first token ended the answer.
        difference: from the target alone; None where there is none.
        broken: whose logits were not finite, or no one's.
    """

    tokens: int
    length: float
    difference: Difference | None
    broken: str | None


def prompts(target: PreTrainedModel, processor: Any) -> dict[str, Conversation]:
    """By name: one without a picture, and one with where the target sees."""
    found = {"text": Conversation([user_message("Write two sentences about a walk by the sea.")])}
    if "image" in visual_token_ids(target.config) and getattr(processor, "image_processor", None) is not None:
        asked = user_message("Describe this picture in two sentences.", pictures=1)
        found["picture"] = Conversation([asked], [picture()])
    return found


def picture() -> Image.Image:
    """A red disc and a blue square on a grey gradient, 256 pixels wide."""
    canvas = Image.linear_gradient("L").convert("RGB")
    pen = ImageDraw.Draw(canvas)
    pen.ellipse((30, 40, 120, 130), fill="red")
    pen.rectangle((150, 120, 220, 190), fill="blue")
    return canvas


def try_out(drafter: Drafter, target: PreTrainedModel, inputs: dict[str, Any]) -> Trial:
    """Answer a prompt greedily, without and with the drafter.

    Raises:
        ValueError: `generate` refuses this pair.
    """
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": TOKENS, "return_dict_in_generate": True}
    start = inputs["input_ids"].shape[1]
    alone = target.generate(**inputs, **options, output_logits=True)
    with _heard(drafter) as heard:
        drafted = target.generate(**inputs, **options, **_BUDGET, assistant_model=drafter)
    tokens, others = (output.sequences[0, start:].tolist() for output in (alone, drafted))
    sound = {
        "the target": all(_is_sound(logits) for logits in alone.logits),
        "the drafter": all(heard),
    }
    broken = next((name for name, is_sound in sound.items() if not is_sound), None)
    difference = None if broken else find_difference(target, inputs, tokens, others)
    return Trial(len(tokens), drafted.speculation.acceptance_length, difference, broken)


def report_trials(drafter: Drafter, target: PreTrainedModel, processor: Any) -> Iterator[Finding]:
    """Lines for each prompt."""
    for name, conversation in prompts(target, processor).items():
        check = f"self-test, {name}"
        try:
            inputs = to_target(model_inputs(processor, [conversation]), target)
        except ValueError as error:
            yield Finding(check, "the processor refuses the prompt", WARN, str(error))
            continue
        try:
            trial = try_out(drafter, target, inputs)
        except ValueError as error:
            yield Finding(check, "`generate` refuses this pair", FAIL, str(error))
            return
        yield from _judge(check, trial)


def _judge(check: str, trial: Trial) -> Iterator[Finding]:
    if trial.broken:
        advice = "use a wider dtype: --dtype bfloat16 or float32"
        yield Finding(check, f"logits of {trial.broken} are not finite", FAIL, advice)
        return
    if math.isnan(trial.length):
        yield Finding(check, "the first token ends the answer", WARN, "nothing could be drafted: try your own prompts")
        return
    few = trial.length < _LEAST_LENGTH
    advice = "few drafts are accepted: is it the drafter of this target and its weights? `mmspec bench` measures more"
    yield Finding(check, f"L {trial.length:.2f} over {trial.tokens} tokens", WARN if few else OK, advice * few)
    yield _lossless(f"lossless, {check.rpartition(' ')[2]}", trial.difference)


def _lossless(check: str, difference: Difference | None) -> Finding:
    if difference is None:
        return Finding(check, "the same tokens as without the drafter")
    found = f"token {difference.position + 1} differs, {difference.gap:.3g} below the best logit"
    if difference.is_near_tie:
        return Finding(check, f"{found}: a tie in this dtype")
    return Finding(
        check, found, FAIL, "this should never be: report it with both models' names; --dtype float32 helps"
    )


def _is_sound(numbers: torch.Tensor) -> bool:
    """Impossible tokens may have minus infinity; nothing may have more, or be no number."""
    return not bool(numbers.isnan().any()) and bool(numbers.max() < math.inf)


@contextmanager
def _heard(drafter: Drafter) -> Iterator[list[bool]]:
    """Whether each of the drafter's logits inside the `with` block were sound. Trees do not tell: what is no number is
    left out of them."""
    draft_logits, sound = drafter.draft_logits, list[bool]()

    def listening(*arguments: Any, **options: Any) -> torch.Tensor:
        logits = draft_logits(*arguments, **options)
        sound.append(_is_sound(logits))
        return logits

    drafter.draft_logits = listening  # type: ignore[method-assign]
    try:
        yield sound
    finally:
        del drafter.draft_logits
