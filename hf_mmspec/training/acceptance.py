"""How good a drafter is: ranks of the target's tokens along its own answers, and true acceptance in serving.

The first needs records only and takes seconds; the second goes through `generate`, the code that users run.
"""

from dataclasses import dataclass
from typing import Any

import torch

from hf_mmspec.modeling import Drafter
from hf_mmspec.modeling.autoregressive import AutoregressiveDrafter

from .batches import Batch, collate
from .distil import Prompt
from .records import Record
from .trainer import TargetParts


@dataclass(frozen=True)
class Ranks:
    """Rank statistics at depth 1, 2, ...: all conditional on the path so far being in the tree.

    Args:
        by_rank: `[depth - 1][rank - 1]`: share of positions where the target's token is the drafter's child of that
            rank.
        chain: mean number of accepted drafts per round of a greedy chain of that many levels.
    """

    by_rank: list[list[float]]
    chain: float

    @property
    def by_depth(self) -> list[float]:
        """Share of positions where the first child is right."""
        return [row[0] for row in self.by_rank]


@torch.no_grad()
def measure_ranks(
    drafter: AutoregressiveDrafter,
    parts: TargetParts,
    records: list[Record],
    depth: int = 8,
    top_k: int = 10,
    batch_size: int = 16,
) -> Ranks:
    """Follow the target's own answers with unrolled drafting and note at which rank each of its tokens comes."""
    hits = torch.zeros(depth, top_k)
    seen = torch.zeros(depth, 1)
    chain_accepted, chain_rounds = 0, 0
    for start in range(0, len(records), batch_size):
        batch = collate(records[start : start + batch_size], parts.embed, drafter.dtype)
        alive, greedy = batch.loss_mask.clone(), batch.loss_mask.clone()
        chain_rounds += int(greedy.sum())
        for step, ranks in enumerate(_ranks_by_step(drafter, batch, depth)):
            in_answer = batch.loss_mask_at(step)
            if step:
                alive, greedy = _moved_on(alive), _moved_on(greedy)
            alive, greedy = alive & in_answer, greedy & in_answer
            reached = ranks[alive]
            seen[step] += len(reached)
            hits[step] += torch.bincount(reached.clamp(max=top_k), minlength=top_k + 1)[:top_k]
            alive, greedy = alive & (ranks < top_k), greedy & (ranks == 0)
            chain_accepted += int(greedy.sum())
    shares = hits / seen.clamp(min=1)
    return Ranks([[round(x, 4) for x in row] for row in shares.tolist()], chain_accepted / max(chain_rounds, 1))


def _ranks_by_step(drafter: AutoregressiveDrafter, batch: Batch, depth: int) -> list[torch.Tensor]:
    """0-based ranks `(B, N)` of the next tokens, by unrolled step; a token that cannot be drafted ranks last."""
    out = drafter(
        batch.features, batch.inputs_embeds, batch.spans, batch.attention_mask, depth, unroll_from=batch.first_slots
    )
    draft_ids = torch.full((drafter.config.vocab_size,), -1)
    own = torch.arange(drafter.config.draft_vocab_size or drafter.config.vocab_size)
    draft_ids[drafter.to_target_ids(own)] = own
    wanted = draft_ids[batch.next_tokens]
    ranks = []
    for hidden in out.hidden_states or ():
        rank = torch.full(wanted.shape, len(own))
        rows = batch.loss_mask & (wanted >= 0)
        logits = drafter.draft_logits(hidden[rows]).float()
        rank[rows] = (logits > logits.gather(-1, wanted[rows][:, None])).sum(-1)
        ranks.append(rank)
    return ranks


def _moved_on(mask: torch.Tensor) -> torch.Tensor:
    """What held at slot j - 1."""
    return torch.nn.functional.pad(mask[:, :-1], (1, 0))


@torch.inference_mode()
def acceptance_length(
    model, processor, drafter: Drafter, prompts: list[Prompt], max_new_tokens: int = 200, **budget: Any
) -> dict[str, float]:
    """L by task and over `"all"`: emitted tokens per target forward after the prefill, pooled over the prompts.

    Args:
        budget: `draft_depth`, `draft_top_k`, `draft_total_tokens`, `draft_mode`; left out, the usual choice is made.
    """
    tokens: dict[str, int] = {}
    rounds: dict[str, int] = {}
    for prompt in prompts:
        inputs = processor.apply_chat_template(
            prompt.messages,
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
            processor_kwargs={"return_tensors": "pt"},
        ).to(model.device, model.dtype)
        out = model.generate(
            **inputs,
            assistant_model=drafter,
            do_sample=False,
            max_new_tokens=max_new_tokens,
            return_dict_in_generate=True,
            **budget,
        )
        for task in (prompt.source.get("task", "text"), "all"):
            tokens[task] = tokens.get(task, 0) + sum(out.speculation.accepted) + out.speculation.rounds
            rounds[task] = rounds.get(task, 0) + out.speculation.rounds
    return {task: tokens[task] / max(rounds[task], 1) for task in sorted(tokens)}
