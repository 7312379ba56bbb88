"""Records in which the drafter spoke: an answer up to somewhere, then the drafter's own proposal, read by the target.

So the drafter learns behind its own words too, not only behind the target's. Needs the target at hand, whatever else
comes from disk. Knows no family.
"""

import random
import zlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

import torch

from hf_mmspec.generation.visual_spans import visual_token_ids
from hf_mmspec.modeling import DraftBudget, TargetPrompt
from hf_mmspec.modeling.binding import unwrap

from ..answers.answering import end_tokens
from ..features.reading import Answered
from ..features.record import Record
from ..features.source import RecordSource
from ..recipes.stage import OnPolicy
from .collator import collate
from .drafter_with_loss import DrafterWithLoss


@torch.no_grad()
def own_records(
    module: DrafterWithLoss, source: RecordSource, indices: Sequence[int], records: Sequence[Record], policy: OnPolicy
) -> list[Record]:
    """One record more for a share of `records` (those of `source` at `indices`, pictures included). Only what the
    drafter said carries loss in them.

    The same batch gives the same cuts and draws, so that a resumed run repeats them.
    """
    seed = zlib.crc32(repr(list(indices)).encode())
    rng = random.Random(seed)
    chosen = rng.sample(range(len(indices)), max(round(policy.share * len(indices)), 1))
    model = unwrap(source.reader.model)  # no picture that is not there, and nothing behind the end
    forbidden = {*visual_token_ids(model.config).values(), *end_tokens(model)}
    spoken, cuts = [], []
    was_training = module.drafter.training
    module.drafter.eval()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for number in sorted(chosen):
            record, asked = records[number], source.answered([indices[number]])[0]
            cut = rng.randint(record.prompt_length + 1, len(record.ids) - 1)
            said = list(takewhile(lambda token: token not in forbidden, propose(module, record, cut, policy)))
            if said:
                ids = [*record.ids[:cut].tolist(), *said]
                spoken.append(Answered(asked.conversation, ids, asked.prompt_length))
                cuts.append(cut)
    module.drafter.train(was_training)
    found = source.reader.read(spoken) if spoken else []
    return [replace(record, prompt_length=cut - 1) for record, cut in zip(found, cuts, strict=True)]


def propose(module: DrafterWithLoss, record: Record, cut: int, policy: OnPolicy) -> list[int]:
    """What the drafter says behind the first `cut` tokens of a record: a chain, drawn."""
    known = record.cut_to(cut)
    batch = collate([replace(known, prompt_length=0)], device=module.drafter.device)
    ids, drafter = batch["input_ids"], module.drafter
    embeds = module.merged_embeds(batch) if drafter.embed_tokens is None else drafter.embed(ids, module.parts.borrowed)
    prompt = TargetPrompt(ids, embeds, batch["features"], record.spans)
    state = drafter.prefill(prompt, record.ids[cut - 1 : cut].to(drafter.device), module.parts.borrowed)
    budget = DraftBudget(policy.depth, 1, policy.depth + 1, "chain")
    return drafter.propose(state, budget, policy.temperature or None).tokens[1:].tolist()
