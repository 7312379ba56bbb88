"""The growing answer: the one place where a token is chosen, recorded, streamed and judged by the stopping criteria.

Exactly one token at a time, as `generate` does without a drafter, so that processors and criteria never see a block
and everything that is returned ends at the same token. Knows nothing about trees or drafters.
"""

from dataclasses import dataclass

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer
from transformers.utils import ModelOutput

from hf_mmspec.modeling.inverse_cdf import draw

from .same_draw import multinomial


@dataclass
class StepStates:
    """The target's optional outputs at one position: a tuple over layers each, or None when not asked for."""

    hidden_states: tuple[torch.Tensor | None, ...] | None = None
    attentions: tuple[torch.Tensor | None, ...] | None = None

    @classmethod
    def of_row(cls, outputs: ModelOutput, row: int) -> "StepStates":
        """Those of one row of a forward's outputs."""
        return cls(states_of_row(outputs.get("hidden_states"), row), attentions_of_row(outputs.get("attentions"), row))


def states_of_row(layers: tuple[torch.Tensor | None, ...] | None, row: int) -> tuple[torch.Tensor | None, ...] | None:
    """One row `(1, T, H)` of every layer's hidden states `(B, T, H)`; of `(S, B, T, H)` where a model has S streams
    (Gemma 3n)."""
    return layers and tuple(None if layer is None else layer.narrow(-3, row, 1) for layer in layers)


def attentions_of_row(
    layers: tuple[torch.Tensor | None, ...] | None, row: int
) -> tuple[torch.Tensor | None, ...] | None:
    """One row `(1, heads, T, S)` of every layer's `(B, heads, T, S)`."""
    return layers and tuple(None if layer is None else layer[row : row + 1] for layer in layers)


class Answer:
    """One row's token ids `(1, length)`, prompt included, with all that `generate` returns beside them.

    Args:
        input_ids: `(1, L)`, the prompt.
        logits_processor, stopping_criteria: they see this row alone.
        streamer: gets every token at once; None where the row is one of several, which `Answers` streams.
        goes_on: whether the row is extended beyond its stop, up to the length limit; `stopped_at` says where it was.
    """

    def __init__(
        self,
        input_ids: torch.Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        streamer: BaseStreamer | None,
        goes_on: bool = False,
    ):
        def wanted(flag: bool | None) -> tuple | None:
            return () if generation_config.return_dict_in_generate and flag else None

        self.ids = input_ids
        self.finished = False
        self.stopped_at: int | None = None
        self.scores = wanted(generation_config.output_scores)
        self.logits = wanted(generation_config.output_logits)
        self.hidden_states = wanted(generation_config.output_hidden_states)
        self.attentions = wanted(generation_config.output_attentions)
        self.max_length = generation_config.max_length
        self._do_sample = generation_config.do_sample
        self._processor = logits_processor
        self._criteria = stopping_criteria
        self._streamer = streamer
        self._goes_on = goes_on

    @property
    def processors(self) -> LogitsProcessorList:
        """Those of this row."""
        return self._processor

    @property
    def tokens_left(self) -> int:
        """How many more tokens the length limit allows."""
        return self.max_length - self.ids.shape[1]

    def append(
        self,
        logits: torch.Tensor,
        states: StepStates,
        draft: tuple[int, torch.Tensor] | None = None,
    ) -> int:
        """Choose the next token from the target's `logits` `(1, V)` and append it; returns its id.

        Args:
            draft: a token that was drawn from a proposal distribution q `(V,)`, and q: the token is then accepted or
                replaced by speculative sampling (Leviathan et al. 2023, algorithm 1). Without it, the token is the
                target's own choice, whatever was drafted.
        """
        raw = logits.to(copy=True, dtype=torch.float32, device=self.ids.device)
        scores = self._processor(self.ids, raw)
        if scores is None:
            raise TypeError("a logits processor returned None: return its scores at the end of `__call__`.")
        self._record(raw, scores, states)
        token = self._choose(scores) if draft is None else self._accept_or_replace(scores, *draft)
        self.ids = torch.cat([self.ids, token[:, None]], dim=-1)
        stops = self._is_stopped()
        if stops and self.stopped_at is None:
            self.stopped_at = self.ids.shape[1]
        self.finished = self.tokens_left <= 0 if self._goes_on else stops
        if self._streamer is not None:
            self._streamer.put(token.cpu())
        return int(token)

    def _is_stopped(self) -> bool:
        stops = self._criteria(self.ids, self.scores)
        if stops.numel() != 1:
            raise ValueError(
                f"a stopping criterion returned shape {tuple(stops.shape)} for a row: return one bool for each row of "
                "`input_ids`."
            )
        return bool(stops)

    def _choose(self, scores: torch.Tensor) -> torch.Tensor:
        """Greedy or multinomial choice `(1,)`: of the same numbers the same as in `GenerationMixin._sample`, random
        ones included, so that a seed means the same with a tree."""
        if self._do_sample:
            return multinomial(scores.softmax(dim=-1)).squeeze(1)
        return scores.argmax(dim=-1)

    def _accept_or_replace(self, scores: torch.Tensor, token: int, proposal: torch.Tensor) -> torch.Tensor:
        """Keep `token` ~ q with probability min(1, p/q), else draw from the residual max(p - q, 0)."""
        target = scores.softmax(dim=-1)
        proposal = proposal.to(target)[None]
        if torch.rand((), device=target.device) * proposal[0, token] < target[0, token]:
            return torch.full((1,), token, dtype=torch.long, device=self.ids.device)
        residual = (target - proposal).clamp(min=0)
        # p = q up to rounding leaves nothing: then p itself is the residual's limit.
        weights = residual if residual.sum() > 0 else target
        return draw(weights).squeeze(1)

    def _record(self, raw: torch.Tensor, scores: torch.Tensor, states: StepStates) -> None:
        if self.scores is not None:
            self.scores += (scores,)
        if self.logits is not None:
            self.logits += (raw,)
        if self.hidden_states is not None:
            self.hidden_states += (states.hidden_states,)
        if self.attentions is not None:
            self.attentions += (states.attentions,)
