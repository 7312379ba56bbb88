"""Vocabulary maps: offsets, checked both ways, never dropped; heads and tie flags."""

import pytest
import torch

from hf_mmspec import AutoDrafter
from hf_mmspec.hub import ConversionError, convert
from tests.hub.published import DRAFT_VOCAB, IDS, VOCAB, embeddings


def set_map(d2t, t2d=None):
    def change(config, tensors):
        tensors["d2t"] = d2t
        tensors.pop("t2d")
        if t2d is not None:
            tensors["t2d"] = t2d

    return change


def reachable(ids):
    return torch.zeros(VOCAB, dtype=torch.bool).index_fill(0, ids, True)


def test_slot_i_is_token_i_plus_d2t(write, tmp_path):
    convert(write("eagle3"), tmp_path / "ours")
    drafter = AutoDrafter.from_pretrained(tmp_path / "ours")
    assert torch.equal(drafter.to_target_ids(torch.arange(DRAFT_VOCAB)), IDS)


def test_zeros_are_the_identity(write, tmp_path):
    zeros = torch.zeros(DRAFT_VOCAB, dtype=torch.long)
    convert(write("eagle3", set_map(zeros, reachable(torch.arange(DRAFT_VOCAB)))), tmp_path / "ours")
    drafter = AutoDrafter.from_pretrained(tmp_path / "ours")
    assert torch.equal(drafter.to_target_ids(torch.arange(DRAFT_VOCAB)), torch.arange(DRAFT_VOCAB))


def test_a_full_vocabulary_needs_no_map(write, tmp_path):
    convert(write("eagle3_specforge"), tmp_path / "ours")
    drafter = AutoDrafter.from_pretrained(tmp_path / "ours")
    assert torch.equal(drafter.to_target_ids(torch.arange(VOCAB)), torch.arange(VOCAB))


def test_a_full_vocabulary_may_have_one(write, tmp_path):
    def add(config, tensors):
        tensors |= {"d2t": torch.zeros(VOCAB, dtype=torch.long), "t2d": torch.ones(VOCAB, dtype=torch.bool)}

    assert "d2t" in convert(write("eagle3_specforge", add), tmp_path / "ours").renamed


def test_int32_maps_become_int64(write, tmp_path):
    offsets = (IDS - torch.arange(DRAFT_VOCAB)).int()
    convert(write("eagle3", set_map(offsets, reachable(IDS))), tmp_path / "ours")
    assert AutoDrafter.from_pretrained(tmp_path / "ours").d2t.dtype == torch.long


OFFSETS = IDS - torch.arange(DRAFT_VOCAB)
BAD_MAPS = {
    "d2t holds target ids where offsets belong": set_map(IDS.clone(), reachable(IDS)),
    "stay within the target's 120 tokens": set_map(OFFSETS + 60),
    "ids reach from -5": set_map(torch.full((DRAFT_VOCAB,), -5)),
    "two draft ids map to the same target token": set_map(-torch.arange(DRAFT_VOCAB)),
    "d2t and t2d contradict each other": set_map(OFFSETS.clone(), reachable(IDS + 1)),
    "t2d must have an entry for each of 120": set_map(OFFSETS.clone(), torch.ones(7, dtype=torch.bool)),
    "d2t must be 24 whole numbers .* found .*float": set_map(OFFSETS.float()),
    r"d2t must be 24 whole numbers .* found \(23,\)": set_map(OFFSETS[1:].clone()),
}


@pytest.mark.parametrize("complaint", BAD_MAPS)
def test_bad_maps_are_refused(complaint, write, tmp_path):
    with pytest.raises(ConversionError, match=complaint):
        convert(write("eagle3", BAD_MAPS[complaint]), tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize("layout", ["eagle3", "eagle3_angelslim", "eagle3_speculators"])
def test_a_dropped_map_is_an_error(layout, write, tmp_path):
    """Also under another name, as when one program renames it and the next one looks for the old name."""
    with pytest.raises(ConversionError, match=r"d2t is missing: without this map|unexpected: draft_id_to_target_id"):
        convert(write(layout, lambda config, tensors: tensors.pop("d2t")), tmp_path / "ours")
    rename = lambda config, tensors: tensors.update(draft_id_to_target_id=tensors.pop("d2t"))  # noqa: E731
    with pytest.raises(ConversionError, match="unexpected: draft_id_to_target_id"):
        convert(write(layout, rename), tmp_path / "ours")


def test_the_head_s_rows_must_be_the_map_s(write, tmp_path):
    with pytest.raises(ConversionError, match="d2t must be 30"):
        convert(write("eagle3", lambda config, tensors: config.update(draft_vocab_size=30)), tmp_path / "ours")
    with pytest.raises(ConversionError, match="d2t must be 120"):
        convert(write("eagle3", lambda config, tensors: config.pop("draft_vocab_size")), tmp_path / "ours")


def test_the_target_s_tie_flag_does_not_touch_the_drafter_s_head(write, tmp_path):
    """AngelSlim copies `tie_word_embeddings: true` from the target; the drafter has a head of its own all the same."""
    convert(write("eagle3_angelslim"), tmp_path / "ours")
    drafter = AutoDrafter.from_pretrained(tmp_path / "ours")
    assert not drafter.config.tie_word_embeddings
    assert drafter.lm_head.weight.shape == (DRAFT_VOCAB, 32)


def test_a_tied_head_is_the_embeddings(write, tmp_path):
    def tie(config, tensors):
        del tensors["lm_head.weight"]
        config["tie_word_embeddings"] = True

    convert(write("eagle3_specforge", tie), tmp_path / "ours")
    drafter = AutoDrafter.from_pretrained(tmp_path / "ours")
    assert torch.equal(drafter.lm_head.weight, embeddings(torch.bfloat16))


@pytest.mark.parametrize("tied", [False, True])
def test_no_head_is_an_error_otherwise(tied, write, tmp_path):
    def drop(config, tensors):
        del tensors["lm_head.weight"]
        config["tie_word_embeddings"] = tied
        if tied:
            del tensors["embed_tokens.weight"]

    with pytest.raises(ConversionError, match=r"missing: lm_head\.weight"):
        convert(write("eagle3_specforge", drop), tmp_path / "ours")
