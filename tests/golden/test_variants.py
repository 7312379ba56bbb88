"""Recordings that differ in what means nothing are accepted: fewer rows of logits, other padding, another order.

Derived from the cases kept here; where a number that means something is wrong, they still fail.
"""

from collections.abc import Callable

import pytest
import torch

from tests.golden import eagle2
from tests.golden.case import Case
from tests.golden.conftest import OWN_CASES
from tests.golden.losses import eagle_losses
from tests.golden.test_golden import CHECKS, fails

WITH_LOGITS = ("eagle2/eagle2_base", "eagle3/eagle3_d2t", "eagle3/eagle3_samevocab", "msd/llava_img9")
# padded case -> beginnings of its inputs, its mask, outputs by position
BATCHES = {
    "msd/llava_train_batch": ("in.", "in.attention_mask", ("a.fused_input", "a.out_hidden")),
    "eagle3/eagle3_ttt": ("in.", "in.attention_mask", tuple(f"out.hidden_step{step}" for step in range(7))),
    "flash/specflash": ("batch/", "batch/attention_mask", ("batch/pred",)),
}
Tensors = dict[str, torch.Tensor]
batches = pytest.mark.parametrize("sample", BATCHES)


def check(sample: str, change: Callable[[Tensors], None]) -> None:
    """The case's check on a changed copy; a complaint fails the test."""
    case = Case.read(OWN_CASES / f"{sample}.safetensors")
    change(case.tensors)
    CHECKS[case.family](case)
    case.insist_all_used()


# ---- fewer rows of logits ------------------------------------------------------------------------------------------


def keep_rows(rows: slice) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.update({"a.logits": tensors["a.logits"][:, rows]})


@pytest.mark.parametrize("sample", WITH_LOGITS)
@pytest.mark.parametrize("count", [1, 3])
def test_the_last_rows_of_logits_are_enough(sample, count):
    check(sample, keep_rows(slice(-count, None)))


@pytest.mark.parametrize("sample", WITH_LOGITS)
def test_other_rows_of_logits_are_not(sample):
    assert fails(sample, keep_rows(slice(0, 3)))
    assert fails(sample, keep_rows(slice(-4, -1)))
    assert fails(sample, keep_rows(slice(0, 0)))
    assert fails(sample, lambda tensors: tensors.update({"a.logits": tensors["a.logits"].repeat(1, 2, 1)}))


@pytest.mark.parametrize("row", [-1, -3])
def test_each_of_the_last_rows_counts(row):
    def spoil(tensors):
        keep_rows(slice(-3, None))(tensors)
        tensors["a.logits"][0, row, 5] += 0.01

    assert fails("msd/llava_img9", spoil)


# ---- any padding ---------------------------------------------------------------------------------------------------


def by_position(sample: str, tensors: Tensors) -> list[str]:
    """Names of the batch's tensors `(B, L, ...)`, the mask last."""
    inputs, mask, outputs = BATCHES[sample]
    return [*(name for name in tensors if name.startswith(inputs) and name not in (mask, *outputs)), *outputs, mask]


def garbage(like: torch.Tensor, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if like.is_floating_point():
        return 3 * torch.randn(like.shape, generator=generator)
    return torch.randint(0, 2 if like.dtype == torch.bool else 95, like.shape, generator=generator).to(like.dtype)


def overwrite_tail(sample: str, tensors: Tensors, fill: Callable[[torch.Tensor, int], torch.Tensor] = garbage) -> None:
    *names, mask_name = by_position(sample, tensors)
    padding = tensors[mask_name] == 0
    assert padding.any()
    for seed, name in enumerate(names):
        tensors[name] = tensors[name].clone()
        tensors[name][padding] = fill(tensors[name][padding], seed)


def lengthen_tail(sample: str, tensors: Tensors, by: int = 5) -> None:
    """More padding for all samples. EAGLE-3's losses are means over all slots, hence smaller."""
    length = tensors[BATCHES[sample][1]].shape[1]
    for name in by_position(sample, tensors):
        tensor = tensors[name]
        tensors[name] = torch.cat([tensor, tensor.new_zeros(len(tensor), by, *tensor.shape[2:])], dim=1)
    for name in [name for name in tensors if name.startswith(("out.ploss", "out.loss", "grad."))]:
        tensors[name] = tensors[name] * length / (length + by)


def turn_order(sample: str, tensors: Tensors) -> None:
    for name in by_position(sample, tensors):
        tensors[name] = tensors[name].flip(0)


def no_numbers(like: torch.Tensor, seed: int) -> torch.Tensor:
    return torch.full_like(like, torch.nan) if like.is_floating_point() else garbage(like, seed)


def placeholders(like: torch.Tensor, seed: int) -> torch.Tensor:
    """Ids of FLASH's image, image positions of MSD's."""
    return garbage(like, seed) if like.is_floating_point() else torch.full_like(like, 90)


def outside(like: torch.Tensor, seed: int) -> torch.Tensor:
    """Ids that no table has."""
    return torch.full_like(like, -100) if like.dtype == torch.long else garbage(like, seed)


@batches
@pytest.mark.parametrize("fill", [garbage, no_numbers, placeholders, outside])
def test_what_stands_at_padding_means_nothing(sample, fill):
    check(sample, lambda tensors: overwrite_tail(sample, tensors, fill))


@batches
def test_padding_may_be_longer(sample):
    check(sample, lambda tensors: lengthen_tail(sample, tensors))

    def both(tensors):
        lengthen_tail(sample, tensors)
        overwrite_tail(sample, tensors)

    check(sample, both)


@batches
def test_samples_may_stand_in_any_order(sample):
    check(sample, lambda tensors: turn_order(sample, tensors))

    def both(tensors):
        turn_order(sample, tensors)
        overwrite_tail(sample, tensors)

    check(sample, both)


def test_the_sample_without_an_image_may_be_the_longer_one():
    """The other ends after its image, before its answer. What the longer text gives is our drafter's word, alone and
    without padding."""
    sample = "msd/llava_train_batch"

    @torch.no_grad()
    def lengthen_text(tensors, length=20):
        loaded = eagle2.load(Case.read(OWN_CASES / f"{sample}.safetensors"))
        generator = torch.Generator().manual_seed(1)
        ids = torch.randint(3, 95, (1, length + 1), generator=generator)
        features, embeds = torch.randn(1, length, 64, generator=generator), loaded.borrowed.embed_tokens(ids)
        values = {
            "in.shifted_input_ids_padded": ids[:, 1:],
            "in.target_hidden": features,
            "in.target_inputs_embeds": embeds[:, :-1],
            "in.shifted_inputs_embeds": embeds[:, 1:],
            "in.shifted_target": torch.nn.functional.pad(features[:, 1:], (0, 0, 0, 1)),
            "in.loss_mask": torch.ones(1, length),
            "in.attention_mask": torch.ones(1, length, dtype=torch.long),
            "a.fused_input": loaded.layer_inputs(features, embeds, [[]]),
            "a.out_hidden": loaded.outputs(features, embeds, [[]]),
        }
        for name, value in values.items():
            tensors[name][1, :length] = value[0]
        tensors["in.attention_mask"][0, 14:] = 0
        tensors["in.loss_mask"][:, 14:] = 0
        losses = eagle_losses(
            tensors["a.out_hidden"], tensors["in.shifted_target"], loaded.borrowed.lm_head, tensors["in.loss_mask"]
        )
        tensors |= {"loss.vloss": losses[0][None], "loss.ploss": losses[1][None]}
        tensors["loss.total"] = tensors["loss.vloss"] + 0.1 * tensors["loss.ploss"]
        overwrite_tail(sample, tensors)

    check(sample, lengthen_text)


# the last real position of the padded sample: what its slot must give, and what feeds it
@pytest.mark.parametrize(
    "sample, name, slot",
    [
        ("msd/llava_train_batch", "a.out_hidden", 10),
        ("msd/llava_train_batch", "a.fused_input", 10),
        ("msd/llava_train_batch", "in.shifted_inputs_embeds", 10),
        ("msd/llava_train_batch", "in.shifted_inputs_embeds", 9),
        ("msd/llava_train_batch", "in.target_hidden", 10),
        ("msd/llava_train_batch", "in.shifted_target", 9),
        ("msd/llava_train_batch", "in.shifted_input_ids_padded", 9),
        ("eagle3/eagle3_ttt", "out.hidden_step0", 13),
        ("eagle3/eagle3_ttt", "out.hidden_step6", 7),
        ("eagle3/eagle3_ttt", "in.target_hidden_cat3", 13),
        ("eagle3/eagle3_ttt", "in.input_ids", 14),
        ("flash/specflash", "batch/pred", 34),
        ("flash/specflash", "batch/target_embeds_shifted", 34),
    ],
)
def test_the_last_real_slot_counts(sample, name, slot):
    def spoil(tensors):
        overwrite_tail(sample, tensors)
        tensors[name][1, slot] += 1

    assert fails(sample, spoil)


@pytest.mark.parametrize("name", ["out.hidden_step0", "out.hidden_step6"])
def test_without_padding_the_last_slot_of_a_step_counts(name):
    """Past the end the authors read token 0, so that those slots are known."""
    assert fails("eagle3/eagle3_ttt", lambda tensors: tensors[name][0, -1].add_(1))
