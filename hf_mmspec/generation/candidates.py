"""Our drafters inside transformers' own assisted loop: a chain-mode `CandidateGenerator`.

For those who need the stock `_assisted_decoding` (chains only, no trees); our own loop does not use it.
"""

from typing import Any, cast

import torch
from transformers import PreTrainedModel
from transformers.generation.candidate_generator import CandidateGenerator

from hf_mmspec.modeling import DraftBudget, Drafter, DraftState, TargetPrompt

from .visual_spans import find_visual_spans


class ChainCandidateGenerator(CandidateGenerator):
    """Proposes a chain of drafts from the hidden states that the stock loop hands over.

    Return it from the target's `_get_candidate_generator`. One instance serves one request.

    Args:
        drafter: fits the target; reads its last hidden state (families with several feature taps need our own loop).
        target: the model whose `generate` runs.
        depth: drafts per round.
        max_length: no draft goes beyond this length; `generation_config.max_length` of the request.
    """

    requires_model_outputs = True
    model_kwargs_overrides = {"output_hidden_states": True}

    def __init__(self, drafter: Drafter, target: PreTrainedModel, depth: int, max_length: int):
        if drafter.feature_layers_of(target) is not None:
            raise ValueError(
                f"{type(drafter).__name__} reads several layers of the target, which the stock loop does not hand "
                "over; use `assistant_model=` with hf_mmspec imported instead."
            )
        self._drafter = drafter
        self._borrowed = drafter.bind(target)
        self._config = target.config
        self._budget = DraftBudget(depth=depth, top_k=1, total_tokens=depth + 1, mode="chain")
        self._max_length = max_length
        self._state: DraftState | None = None

    def get_candidates(
        self,
        input_ids: torch.LongTensor,
        model_kwargs: dict[str, Any] | None = None,
        model_outputs: Any = None,
        is_first_iteration: bool = False,
        n_last_matches: int = 0,
    ) -> tuple[torch.LongTensor, torch.FloatTensor | None]:
        """Extend `input_ids (1, length)` by the drafts. The first call, before the prefill, adds none.

        Returns:
            The extended ids, and None: proposals are deterministic, so the target's own choice decides.
        """
        if is_first_iteration:
            return input_ids, None
        hidden_states = model_outputs.hidden_states
        if self._state is None:
            ids, given = input_ids[0, :-1], model_kwargs or {}
            positions = given.get("position_ids")
            grid = None if positions is None or positions.dim() < 3 else positions[:, 0, : len(ids)]
            spans = find_visual_spans(ids, self._config, given.get("mm_encoder_outputs"), grid)
            prompt = TargetPrompt(input_ids[:, :-1], hidden_states[0], hidden_states[-1], spans)
            self._state = self._drafter.prefill(prompt, input_ids[:, -1:], self._borrowed)
        else:
            rows = int(n_last_matches) + 1
            self._drafter.extend(self._state, hidden_states[-1][:, :rows], input_ids[:, -rows:])
        levels = self._max_length - input_ids.shape[1] - 1
        tree = self._drafter.propose(self._state, self._budget.limited_to(levels))
        drafts = tree.tokens[None, 1:].to(input_ids.device)
        return cast(torch.LongTensor, torch.cat([input_ids, drafts], dim=-1)), None

    def update_candidate_strategy(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, num_matches: int):
        """The depth is fixed; nothing to adapt."""
