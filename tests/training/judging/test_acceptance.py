"""True acceptance, through the code that serves: what was learned by heart is accepted there."""

from collections import Counter

import pytest
import torch

import hf_mmspec  # noqa: F401  (teaches `generate` about drafters)
from hf_mmspec.modeling import FAMILIES
from hf_mmspec.training.answers.answering import Answering, answer_batch
from hf_mmspec.training.features.reading import Reader
from hf_mmspec.training.judging import acceptance
from hf_mmspec.training.judging.acceptance import AcceptanceJudge, accepted_tokens, lengths
from hf_mmspec.training.judging.ranks import measure_ranks
from hf_mmspec.training.learning.drafter_with_loss import DrafterWithLoss
from hf_mmspec.training.learning.target_parts import TargetParts
from hf_mmspec.training.recipes import Stage
from tests.training.making import collated, conversation

TAPS, TOKENS = (0, 1), 10
FIELDS = {
    "vispec": {},
    "flash": {"num_latents": 4, "dropout": 0.0, "num_slots": 3},
    "eagle3": {"feature_layers": list(TAPS)},
}
LEARNING = {"vispec": (20, 3e-2), "flash": (25, 3e-2), "eagle3": (35, 1e-2)}  # steps and rate that are enough
ASKED = [conversation(seed, pictures, "ab"[seed % 2]) for seed, pictures in enumerate((1, 0, 2))]
TREE = {"draft_depth": 3, "draft_top_k": 3, "draft_total_tokens": 12, "draft_mode": "tree"}


def chain(depth):
    return {"draft_depth": depth, "draft_top_k": 1, "draft_total_tokens": depth + 1, "draft_mode": "chain"}


@pytest.fixture(scope="module", params=FIELDS)
def learned(request, qwen):
    """A drafter that has learned four answers by heart, and their records."""
    target, processor = qwen
    torch.manual_seed(0)
    drafter = FAMILIES[request.param][1].from_target(target, **FIELDS[request.param])
    learning = DrafterWithLoss(drafter, TargetParts.of(target, drafter), Stage("s", unroll=3, unroll_decay=1.0))
    answered = answer_batch(target, processor, ASKED, Answering(max_new_tokens=TOKENS))
    records = Reader(target, processor, TAPS if request.param == "eagle3" else None).read(answered)
    batch = collated(learning, *records)
    steps, rate = LEARNING[request.param]
    optimizer = torch.optim.AdamW(learning.drafter.parameters(), lr=rate, betas=(0.9, 0.95))
    for _ in range(steps):
        loss = learning.train()(**batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return learning.eval(), records


def judged(qwen, learning, **budget):
    return AcceptanceJudge(*qwen, ASKED, TOKENS, budget=budget)(learning.drafter)


def test_overfit_answers_are_accepted_in_serving(qwen, learned):
    """SpecForge issue 455."""
    found = judged(qwen, learned[0], **TREE)
    assert found["acceptance_length"] > 2.3  # at most 3: nine tokens in rounds of four
    assert set(found) == {"acceptance_length", "acceptance_length/a", "acceptance_length/b"}


@pytest.mark.parametrize("depth", [1, 3])
def test_chain_acceptance_by_ranks_equals_serving(qwen, learned, depth):
    """The quick measure from records and the true one through `generate`: the same rounds. Where an answer ends inside
    a round, its last token counts as the target's own in serving and as a draft in the records."""
    learning, records = learned
    length = judged(qwen, learning, **chain(depth))["acceptance_length"]
    rounds = sum(len(record.answer) - 1 for record in records) / length
    excess = (measure_ranks(learning, [records], depth=depth).chain - (length - 1)) * rounds
    assert length > 1.3
    assert round(excess) in range(len(records) + 1)
    assert excess == pytest.approx(round(excess), abs=1e-3)


def test_tasks_are_pooled_by_rounds():
    """Tokens over forwards: a task of many rounds weighs more than one of few."""
    found = lengths(Counter(a=30, b=10), Counter(a=10, b=10, c=0))
    assert found == {"acceptance_length": 2.0, "acceptance_length/a": 3.0, "acceptance_length/b": 1.0}
    assert lengths(Counter(), Counter()) == {"acceptance_length": 0.0}


def test_without_drafts_L_is_one(qwen):
    drafter = FAMILIES["eagle"][1].from_target(qwen[0])
    tokens, rounds = accepted_tokens(*qwen, drafter, ASKED[:2], 6, draft_depth=0)
    assert tokens == rounds == {"a": 5, "b": 5}  # the first token is the prefill's


def test_the_drafter_that_is_trained_stays_as_it_is(qwen, monkeypatch):
    seen = []
    monkeypatch.setattr(
        acceptance, "accepted_tokens", lambda m, p, drafter, *_, **b: seen.append((drafter, b)) or EMPTY
    )
    drafter = FAMILIES["eagle"][1].from_target(qwen[0]).to(torch.bfloat16).train()
    assert AcceptanceJudge(*qwen, ASKED)(drafter) == {"acceptance_length": 0.0}
    ((candidate, budget),) = seen
    assert (candidate.dtype, candidate.training) == (torch.float32, False)  # the target's
    assert (drafter.dtype, drafter.training) == (torch.bfloat16, True)
    assert budget == acceptance.BUDGET


EMPTY = (Counter(), Counter())


def test_processes_share_the_prompts(qwen, monkeypatch):
    asked = []
    monkeypatch.setattr(
        acceptance, "accepted_tokens", lambda m, p, d, mine, *_, **b: asked.append([c.key for c in mine]) or EMPTY
    )
    gathered = []
    monkeypatch.setattr(
        acceptance, "gather_object", lambda found: gathered.append(found) or [Counter(a=3), Counter(a=1)]
    )
    drafter = FAMILIES["eagle"][1].from_target(qwen[0])
    for process in (0, 1):
        found = AcceptanceJudge(*qwen, ASKED, process=process, processes=2)(drafter)
        assert found == {"acceptance_length": 1.0, "acceptance_length/a": 1.0}
    assert asked == [["a/0", "a/2"], ["b/1"]]
