"""The trainer's loss takes any family whose target feature is the last hidden state, and falls."""

import pytest
import torch

from hf_mmspec.modeling import FAMILIES
from hf_mmspec.training.batches import collate
from hf_mmspec.training.records import Record
from hf_mmspec.training.trainer import Stage, TargetParts, unrolled_loss
from tests.generation import tiny

FAMILY_FIELDS = {
    "vispec": {},
    "msd": {},
    "eagle": {},
    "flash": {"num_latents": 4, "dropout": 0.0},
    "flash on vispec's rows": {"visual": "adaptor", "dropout": 0.0},
}


def record(seed: int) -> Record:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 110, (30 + seed,), generator=generator)
    return Record(
        ids=ids,
        prompt_length=20,
        features=torch.randn(len(ids) - 1, tiny.HIDDEN, generator=generator).bfloat16(),
        spans=[(4, 12)],
        image_embeds=torch.randn(8, tiny.HIDDEN, generator=generator).bfloat16(),
        source={},
    )


@pytest.mark.parametrize("name", FAMILY_FIELDS)
def test_the_loss_falls(name):
    target = tiny.llava()
    family = FAMILIES[name.split()[0]][1]
    drafter = family.from_target(target, torch.arange(3, 110), **FAMILY_FIELDS[name]).train()
    parts = TargetParts.of(target, drafter)
    batch, stage = collate([record(0), record(1)], parts.embed), Stage("all", epochs=1, unroll=3)
    optimizer = torch.optim.AdamW(drafter.parameters(), lr=2e-2)
    losses = []
    for _ in range(15):
        loss = unrolled_loss(drafter, batch, parts, stage)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
