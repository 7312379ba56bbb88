"""True acceptance: L on held-out prompts through `generate`, the code that users run.

What chooses a checkpoint. Several processes share the prompts.
"""

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils import gather_object

from hf_mmspec.data import Conversation, model_inputs
from hf_mmspec.modeling import Drafter

# The tree that drafters are compared with while they train: the same on every machine.
BUDGET: dict[str, Any] = {"draft_depth": 6, "draft_top_k": 8, "draft_total_tokens": 30, "draft_mode": "tree"}


@dataclass(frozen=True)
class AcceptanceJudge:
    """Measures drafters of one target.

    Args:
        model, processor: the target.
        conversations: held-out prompts.
        max_new_tokens: of each answer.
        process, processes: which share of the prompts is this process's.
        budget: how much is drafted in a round.
    """

    model: Any
    processor: Any
    conversations: Sequence[Conversation]
    max_new_tokens: int = 200
    process: int = 0
    processes: int = 1
    budget: dict[str, Any] = field(default_factory=lambda: dict(BUDGET))

    def __call__(self, drafter: Drafter) -> dict[str, float]:
        """`acceptance_length` over all prompts, and `acceptance_length/TASK` for each task."""
        candidate = copy.deepcopy(drafter).to(self.model.dtype).eval()
        mine = self.conversations[self.process :: self.processes]
        tokens, rounds = accepted_tokens(
            self.model, self.processor, candidate, mine, self.max_new_tokens, **self.budget
        )
        if self.processes > 1:
            tokens, rounds = (sum(gather_object([each]), Counter()) for each in (tokens, rounds))
        return lengths(tokens, rounds)


def lengths(tokens: Counter[str], rounds: Counter[str]) -> dict[str, float]:
    """L by name: emitted tokens over target forwards."""
    by_task = {f"acceptance_length/{task}": tokens[task] / rounds[task] for task in sorted(rounds) if rounds[task]}
    return {"acceptance_length": tokens.total() / max(rounds.total(), 1), **by_task}


@torch.inference_mode()
def accepted_tokens(
    model: Any,
    processor: Any,
    drafter: Drafter,
    conversations: Sequence[Conversation],
    max_new_tokens: int = 200,
    **budget: Any,
) -> tuple[Counter[str], Counter[str]]:
    """Tokens emitted after the prefill, and target forwards for them, by task; greedy decoding.

    Args:
        budget: `draft_depth`, `draft_top_k`, `draft_total_tokens`, `draft_mode`; left out, the usual choice is made.
    """
    tokens, rounds = Counter[str](), Counter[str]()
    for conversation in conversations:
        inputs = model_inputs(processor, [conversation]).to(model.device, model.dtype)
        out = model.generate(
            **inputs,
            assistant_model=drafter,
            do_sample=False,
            max_new_tokens=max_new_tokens,
            return_dict_in_generate=True,
            **budget,
        )
        tokens[conversation.task] += sum(out.speculation.accepted) + out.speculation.rounds
        rounds[conversation.task] += out.speculation.rounds
    return tokens, rounds
