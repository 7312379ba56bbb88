"""Ranks of the target's own tokens along its answers, cut into rounds as serving cuts them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_mmspec.training.judging.ranks import Ranks, measure_ranks, replay
from tests.training.making import llava_of_three_layers, module, record

RECORDS = [record(18 + 5 * i, 10, ((2, 5),) if i else (), seed=i) for i in range(3)]


@pytest.fixture(scope="module")
def target():
    return llava_of_three_layers()


def test_replay_cuts_an_answer_into_rounds():
    """Width 2: a rank below 2 is accepted, a miss ends the round and its token is the target's own."""
    table = torch.tensor([[0, 1, 5, 0, 0, 1, 0], [0, 0, 9, 0, 7, 0, 0], [0, 0, 3, 0, 0, 0, 0]])
    assert replay(table, 2) == [[0, 0, 3], [0, 7], [1, 0]]
    assert replay(table, 10) == [[0, 0, 3], [0, 0, 0]]
    assert [len(round_) for round_ in replay(torch.zeros(3, 9, dtype=torch.long), 1)] == [3, 3, 1]


@given(st.integers(1, 4), st.lists(st.integers(0, 5), max_size=20), st.integers(1, 4))
def test_every_token_is_drafted_or_the_targets_own(depth, ranks, width):
    table = torch.tensor([ranks] * depth).reshape(depth, len(ranks))
    rounds = replay(table, width)
    looked = sum(map(len, rounds))
    own = sum(all(rank < width for rank in round_) for round_ in rounds)
    assert looked + own in (len(ranks), len(ranks) + 1)  # behind the last round there may be nothing
    assert all(rank < width for round_ in rounds for rank in round_[:-1])
    assert all(1 <= len(round_) <= depth for round_ in rounds)


@pytest.mark.parametrize("name", ["eagle", "flash"])
def test_ranks_are_those_of_the_drafters_logits(name, target):
    """Depth 1 of a chain of one level, against logits that are read by hand; the drafter has no head of its own."""
    learning = module(name, target)
    assert learning.drafter.lm_head is None
    (each,) = RECORDS[1:2]
    embeds = target.get_input_embeddings()(each.ids[None, :-1]).detach()
    embeds[0, 2:5] = each.image_embeds
    with torch.no_grad():
        hidden = learning.drafter(each.features[None], embeds, [each.spans]).hidden_states[0][0]
        logits = learning.drafter.draft_logits(hidden, learning.parts.borrowed)
    position, hits, rounds = each.prompt_length + 1, [], 0
    while position < len(each.ids):
        best = logits[position - 2].argsort(descending=True)[:3].tolist()
        rounds += 1
        token = int(each.ids[position])
        hits.append(best.index(token) if token in best else None)
        position += 2 if token in best else 1
    found = measure_ranks(learning, [[each]], depth=1, top_k=3)
    assert found.by_rank[0] == [round(hits.count(rank) / rounds, 4) for rank in range(3)]


def test_k_slots_give_k_levels(target):
    found = measure_ranks(module("flash", target), [RECORDS], depth=8)
    assert len(found.by_rank) == 4 < len(measure_ranks(module("eagle", target), [RECORDS], depth=5).by_rank)


@pytest.mark.parametrize("name", ["vispec", "eagle3, narrow"])
def test_what_cannot_be_said_is_a_miss(name, target):
    answer = torch.cat([each.ids[each.prompt_length :] for each in RECORDS])
    records = [record(18 + 5 * i, 10, (), i, "eagle3" in name) for i in range(3)]
    known = torch.tensor(sorted(set(range(3, 110)) - set(answer.tolist())))
    found = measure_ranks(module(name, target, known), [records], depth=2, top_k=5)
    assert found.chain == 0
    assert not any(map(any, found.by_rank))


def test_certain_drafters_are_right_at_every_depth(target):
    """A drafter that can say one token only, and answers of that token alone."""
    each = record(30, 20)
    each.ids[20:] = 7
    found = measure_ranks(module("vispec", target, torch.tensor([7])), [[each] * 2], depth=3, top_k=2)
    assert found.by_depth == [1.0, 1.0, 1.0]
    assert [row[1] for row in found.by_rank] == [0.0, 0.0, 0.0]
    # nine drafts in rounds of three, between which one token is the target's own: 3, 3 and 1
    assert found.chain == pytest.approx(7 / 3)


def test_measuring_is_without_noise_and_leaves_no_trace(target):
    """The stage's noise and scheduled sampling belong to training."""
    quiet = measure_ranks(module("eagle", target), [RECORDS])
    loud = module("eagle", target, noise=50.0)
    assert measure_ranks(loud, [RECORDS]) == quiet
    assert loud.stage.unroll == 3


def test_records_may_come_in_any_batches(target):
    learning = module("msd", target)
    one, all_ = (measure_ranks(learning, batches) for batches in ([[each] for each in RECORDS], [RECORDS]))
    assert one == all_
    assert Ranks([[0.5, 0.1], [0.25, 0.2]], 1.0).by_depth == [0.5, 0.25]
