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

# A round is taken to end where none of this many first choices is right: about the width of trees in use.
_ROUND_WIDTH = 3


@dataclass(frozen=True)
class Ranks:
    """Rank statistics at depth 1, 2, ...: all conditional on the path so far being in the tree.

    Args:
        by_rank: `[depth - 1][rank - 1]`: of the rounds that came so deep, the share in which the target's token is the
            drafter's child of that rank.
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
    """Replay the target's own answers in rounds, as serving would, and note at which rank each token comes.

    A round ends at a token that is none of the first `_ROUND_WIDTH` choices; the next one starts behind it. So what is
    counted at depth 1 follows a surprise, and is harder than a token anywhere in a text.
    """
    hits, seen = torch.zeros(depth, top_k), torch.zeros(depth, 1)
    chain_accepted, chain_rounds = 0, 0
    for start in range(0, len(records), batch_size):
        batch = collate(records[start : start + batch_size], parts.embed, drafter.dtype)
        ranks = torch.stack(_ranks_by_step(drafter, batch, depth))
        for answer, mask in zip(ranks.unbind(1), batch.loss_mask, strict=True):
            rows = answer[:, mask]
            for round_ in replay(rows, _ROUND_WIDTH):
                for level, rank in enumerate(round_):
                    seen[level] += 1
                    if rank < top_k:
                        hits[level, rank] += 1
            rounds = replay(rows, 1)
            chain_rounds += len(rounds)
            chain_accepted += sum(rank == 0 for round_ in rounds for rank in round_)
    shares = hits / seen.clamp(min=1)
    return Ranks([[round(x, 4) for x in row] for row in shares.tolist()], chain_accepted / max(chain_rounds, 1))


def replay(ranks: torch.Tensor, width: int) -> list[list[int]]:
    """Cut an answer into rounds of drafting.

    Args:
        ranks: `int64 (depth, n)`: [d, j] is the rank of token j when it is drafted at depth d + 1, token j - d being
            the first of its round.
        width: a token is accepted when it is among the first `width` choices.

    Returns:
        The ranks that each round looks at, depth by depth; the last one of a round is a miss unless the depth or the
        answer ends there. The token after a round without a miss is the target's own and belongs to no round.
    """
    rounds, start, (depth, length) = [], 0, ranks.shape
    table = ranks.tolist()
    while start < length:
        looked: list[int] = []
        for level in range(min(depth, length - start)):
            looked.append(table[level][start + level])
            if looked[-1] >= width:
                break
        rounds.append(looked)
        start += len(looked) + (looked[-1] < width)
    return rounds


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
