"""Proves that two answers are the same, or that they part at a tie that the target itself cannot tell apart.

Half precision rounds differently for one token and for a tree of tokens, so two equally good tokens may swap. Such a
swap is shown by the target, not assumed: it is run once more on the common prefix, and both tokens must be its best
ones within a stated epsilon. Anything else is a failure.

Packed layers round what enters them (to eight bits, or to bfloat16 whatever the model's dtype), which enlarges the
last bits of one layer to whole steps of the next. How far that goes is asked of the target too: it reads its own
answer token by token and at once, and the margin of its two best tokens moves by so much.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel

from hf_mmspec.quantise import quantisation_of

# Best logits of language models lie around here. Rounding in the layers below is of that height whatever the best
# logit of one step happens to be, so epsilon does not shrink with a smaller one.
LOGIT_HEIGHT = 32.0
_NOISE_TOKENS = 32
_PIECES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)  # tokens that are read at once


@dataclass(frozen=True)
class Difference:
    """Where two answers part.

    Args:
        position: index of the first different token among the new tokens.
        tokens: the baseline's token and the contender's (None: that answer has ended).
        gap: how far the worse of the two lies below the target's best processed logit on the common prefix (inf: not a
            token, or a forbidden one).
        epsilon: the largest gap that counts as a tie.
        chosen: the tokens that the target chose here by itself when it read the common prefix in pieces; asked only
            where the gap is larger than epsilon.
    """

    position: int
    tokens: tuple[int | None, int | None]
    gap: float
    epsilon: float
    chosen: tuple[int, ...] = ()

    @property
    def is_near_tie(self) -> bool:
        return math.isfinite(self.gap) and (self.gap <= self.epsilon or set(self.tokens) <= set(self.chosen))


def find_difference(
    target: PreTrainedModel,
    inputs: Mapping[str, torch.Tensor],
    baseline: Sequence[int],
    other: Sequence[int],
    **options: Any,
) -> Difference | None:
    """None where the new tokens of both answers are equal, else the first difference, judged by `target`.

    Args:
        options: what both calls of `generate` had besides the inputs and decides between tokens: processors, the end.
    """
    for position, pair in enumerate(zip_longest(baseline, other)):
        if pair[0] != pair[1]:
            return _judge(target, inputs, list(baseline[:position]), pair, options)
    return None


def tie_epsilon(best_logit: float, dtype: torch.dtype) -> float:
    """The relative spacing of `dtype` times 32, or times the best logit where it is larger.

    0.25 in bfloat16, which is two of its steps between 16 and 32; 0.03 in float16; 4e-6 in float32, where a difference
    is therefore a failure in practice.
    """
    return torch.finfo(dtype).eps * max(LOGIT_HEIGHT, abs(best_logit))


def _judge(
    target: PreTrainedModel,
    inputs: Mapping[str, Any],
    prefix: list[int],
    pair: tuple[int | None, int | None],
    options: Mapping[str, Any],
) -> Difference:
    scores = next_scores(target, inputs, prefix, **options)
    best = scores.max().item()
    epsilon = tie_epsilon(best, target.dtype)
    if quantisation_of(target) is not None:
        epsilon = max(epsilon, reading_noise(target, inputs, len(prefix) + 1))
    if pair[0] is None or pair[1] is None:
        return Difference(len(prefix), pair, math.inf, epsilon)
    gap = best - min(scores[pair[0]].item(), scores[pair[1]].item())
    if not math.isfinite(gap):  # every token may be forbidden: infinity less infinity is not a number
        return Difference(len(prefix), pair, math.inf, epsilon)
    chosen = _chosen(target, inputs, prefix, pair, options) if gap > epsilon else ()
    return Difference(len(prefix), pair, gap, epsilon, chosen)


def _chosen(
    target: PreTrainedModel,
    inputs: Mapping[str, Any],
    prefix: list[int],
    pair: tuple[int | None, int | None],
    options: Mapping[str, Any],
) -> tuple[int, ...]:
    """The tokens that the target chooses behind `prefix` by itself, depending on how many it reads at once.

    Nothing where that proves nothing: in float32, where rounding is no excuse; where positions are counted by
    pictures, which a continued cache does not tell; where reading one by one is not what the baseline did.
    """
    if torch.finfo(target.dtype).bits > 16 or hasattr(getattr(target, "model", target), "get_rope_index"):
        return ()
    chosen: list[int] = []
    for size in _PIECES:
        chosen.append(int(scores_read_in_pieces(target, inputs, prefix, size, **options).argmax()))
        if chosen[0] != pair[0]:
            return ()
        if pair[1] in chosen:
            break
    return tuple(dict.fromkeys(chosen))


def scores_read_in_pieces(
    target: PreTrainedModel, inputs: Mapping[str, Any], prefix: list[int], size: int, **options: Any
) -> torch.Tensor:
    """As `next_scores`, but the prompt is read first, and then the prefix behind it, `size` tokens at once."""
    cache = DynamicCache(config=target.config.get_text_config(decoder=True))
    scores = next_scores(target, inputs, [], cache=cache, **options)
    growing = {name: value for name, value in inputs.items() if _grows(value, inputs["input_ids"])}
    for end in [*range(size, len(prefix), size), *([len(prefix)] if prefix else [])]:
        scores = next_scores(target, growing, prefix[:end], cache=cache, **options)
    return scores


@torch.no_grad()
def reading_noise(target: PreTrainedModel, inputs: Mapping[str, Any], count: int) -> float:
    """By how much the margin between the two best logits of a step moves at most, over the first tokens of the
    target's own greedy answer, when it reads them all at once instead of one by one. No drafter has a part in it.

    Args:
        count: tokens of the answer; a few more are taken where that is less than `_NOISE_TOKENS`.
    """
    options = {"do_sample": False, "max_new_tokens": max(count, _NOISE_TOKENS)}
    output = target.generate(**inputs, **options, output_logits=True, return_dict_in_generate=True)
    start = inputs["input_ids"].shape[1]
    answer = output.sequences[0, start:].tolist()
    one_by_one = torch.cat(output.logits).float()
    longer = {name: _lengthened(name, value, inputs["input_ids"], answer[:-1]) for name, value in inputs.items()}
    at_once = target(**longer).logits[0, start - 1 :].float().to(one_by_one.device)
    best, second = one_by_one.topk(2).indices.T.unsqueeze(-1)
    return (_margin(one_by_one, best, second) - _margin(at_once, best, second)).abs().max().item()


def _margin(logits: torch.Tensor, best: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return logits.gather(1, best) - logits.gather(1, second)


def next_scores(
    target: PreTrainedModel, inputs: Mapping[str, torch.Tensor], prefix: list[int], **further: Any
) -> torch.Tensor:
    """The target's logits `(V,)` after the prompt and `prefix`, from one prefill without a drafter, and processed as
    its generation config says (repetition penalty, suppressed tokens): tokens are chosen from these.

    The prefix counts as prompt here. `min_new_tokens` is corrected for that; settings that tell the prompt from the
    answer otherwise (`begin_suppress_tokens`, `forced_eos_token_id`, `exponential_decay_length_penalty`, `encoder_*`,
    `guidance_scale`) are not, so a tie under one of them may be judged wrongly.

    Args:
        further: options of `generate`.
    """
    longer = {name: _lengthened(name, value, inputs["input_ids"], prefix) for name, value in inputs.items()}
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": 1, **further}
    least = target.generation_config.min_new_tokens
    if least is not None:  # only then: even a zero would overrule `min_length`
        options["min_new_tokens"] = int(least > len(prefix))
    output = target.generate(**longer, **options, output_scores=True, return_dict_in_generate=True)
    return output.scores[0][0].float()


def _lengthened(name: str, value: Any, input_ids: torch.Tensor, prefix: list[int]) -> Any:
    """An input with one entry per token grows with the prefix: ids by it, masks by ones, token types by zeros."""
    if not _grows(value, input_ids):
        return value
    fill = {"input_ids": prefix, "attention_mask": [1] * len(prefix)}.get(name, [0] * len(prefix))
    return torch.cat([value, torch.tensor([fill], dtype=value.dtype, device=value.device)], dim=1)


def _grows(value: Any, input_ids: torch.Tensor) -> bool:
    return isinstance(value, torch.Tensor) and value.shape == input_ids.shape
