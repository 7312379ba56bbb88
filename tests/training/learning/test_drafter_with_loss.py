"""The loss of every family: per supervised token, whatever the padding and however a batch is split; and it falls."""

from dataclasses import replace

import pytest
import torch

from hf_mmspec.training.learning.collator import IGNORED, supervised_at
from hf_mmspec.training.learning.losses import feature_regression, soft_cross_entropy
from tests.generation import tiny
from tests.training.making import DRAFTERS, collated, gradients, llava_of_three_layers, module, record

every_drafter = pytest.mark.parametrize("name", DRAFTERS)


@pytest.fixture(scope="module")
def target():
    return llava_of_three_layers()


def two(name):
    """A short sample, and one that is far longer and has more pictures."""
    taps = name.startswith("eagle3")
    return record(18, 10, ((2, 5),), 0, taps), record(52, 31, ((3, 9), (9, 15), (20, 28)), 1, taps)


def supervised(batch):
    return int((batch["labels"] != IGNORED).sum())


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=2e-6, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@every_drafter
def test_neither_padding_nor_splitting_changes_loss_or_gradients(name, target):
    """SafeAILab/EAGLE issue 340: A alone, A beside a long B, A and B in two accumulation steps."""
    learning, (short, long) = module(name, target), two(name)
    batches = [collated(learning, *records) for records in ((short,), (long,), (short, long))]
    counts = [supervised(batch) for batch in batches]
    assert counts[0] + counts[1] == counts[2]
    alone = [gradients(learning, batch, counts[2]) for batch in batches[:2]]
    together = gradients(learning, batches[2])
    assert together[0] == pytest.approx(sum(loss for loss, _ in alone), rel=1e-5)
    names = together[1].keys()
    zero = torch.zeros(())
    same({n: sum(found.get(n, zero) for _, found in alone) for n in names}, together[1])
    assert sum(g.abs().sum() for g in together[1].values()) > 0.1
    # per supervised token: A's own loss is A's share of the whole
    assert gradients(learning, batches[0])[0] == pytest.approx(alone[0][0] * counts[2] / counts[0], rel=1e-5)


@every_drafter
def test_what_stands_in_the_padding_does_not_matter(name, target):
    learning, (short, long) = module(name, target), two(name)
    batch = collated(learning, short, long)
    expected = gradients(learning, batch)
    padded = ~batch["attention_mask"][0]
    batch["input_ids"][0, padded] = 7
    batch["features"][0, padded] = 50.0
    if "states" in batch:
        batch["states"][0, padded] = 50.0
    found = gradients(learning, batch)
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    same(found[1], expected[1])


@pytest.mark.parametrize("name", ["vispec", "eagle3"])
def test_records_of_the_drafters_own_words_are_no_other(name, target):
    """In them the loss begins inside the answer (`on_policy.own_records`)."""
    learning, (short, long) = module(name, target), two(name)
    own = replace(long, prompt_length=46)
    batches = [collated(learning, *records) for records in ((short,), (own,), (short, own))]
    assert supervised(batches[1]) == 5
    whole = supervised(batches[2])
    parts, together = [gradients(learning, each, whole) for each in batches[:2]], gradients(learning, batches[2])
    assert together[0] == pytest.approx(parts[0][0] + parts[1][0], rel=1e-5)
    same({n: parts[0][1].get(n, 0) + parts[1][1].get(n, 0) for n in together[1]}, together[1])


@every_drafter
def test_the_count_normalises(name, target):
    learning, (short, long) = module(name, target), two(name)
    batch = collated(learning, short, long)
    loss, found = gradients(learning, batch)
    for count in (2 * supervised(batch), torch.tensor(2 * supervised(batch))):
        halved = gradients(learning, batch, count)
        assert halved[0] == pytest.approx(loss / 2, rel=1e-6)
        same({n: 2 * g for n, g in halved[1].items()}, found)


@torch.no_grad()
@every_drafter
def test_the_loss_is_its_definition(name, target):
    """Every pass: the target's distribution at the position that is drafted, weighed by decay, over one count."""
    learning = module(name, target, loss={"soft_cross_entropy": 1.0}, unroll_decay=0.5)
    (short, long) = two(name)
    batch = collated(learning, short, long)
    total = 0.0
    for step, hidden in enumerate(learning.hidden_states(batch)):
        for row, each in enumerate((short, long)):
            states = each.features if each.states is None else each.states
            for slot in supervised_at(batch["labels"], step)[row].nonzero()[:, 0].tolist():
                said = target.lm_head(states[slot + 1])[learning.parts.draft_ids]
                draft = learning.drafter.draft_logits(hidden[row, slot], learning.parts.borrowed)
                total += 0.5**step * soft_cross_entropy(draft[None], said[None]).item()
    assert learning(**batch)["loss"].item() == pytest.approx(total / supervised(batch), rel=1e-5)


@torch.no_grad()
def test_regression_is_towards_the_state_that_the_head_reads(target):
    learning = module("eagle3", target, loss={"feature_regression": 1.0}, unroll=1)
    each = record(taps=True)
    batch = collated(learning, each)
    (hidden,) = learning.hidden_states(batch)
    rows = supervised_at(batch["labels"], 0)[0].nonzero()[:, 0]
    expected = feature_regression(hidden[0, rows], each.states[rows + 1]).mean()
    torch.testing.assert_close(learning(**batch)["loss"], expected)


@torch.no_grad()
def test_pictures_are_read_from_the_record(target):
    """Merged embeddings at pictures are what the target saw there."""
    learning, (short, long) = module("vispec", target), two("vispec")
    embeds = learning.merged_embeds(collated(learning, short, long))
    assert torch.equal(embeds[0, 2:5], short.image_embeds)
    assert torch.equal(embeds[1, 20:28], long.image_embeds[12:])
    assert torch.equal(embeds[1, 28:51], target.get_input_embeddings().weight[long.ids[28:51]])


def test_noise_is_for_training_alone(target):
    learning = module("eagle", target, noise=0.2)
    each = record()
    batch = collated(learning, each, record(18, 10, (), seed=1))
    assert learning.noisy(batch["features"], batch["attention_mask"]) is batch["features"]
    learning.train()
    added = learning.noisy(batch["features"], batch["attention_mask"]) - batch["features"]
    for row, length in enumerate((29, 17)):
        widest = added[row, :length].abs().max().item()
        assert 0.9 < widest / (0.1 * 512 / length) <= 1.0 + 1e-4  # uniform, 0.2 * 512 / length wide


def test_scheduled_sampling_follows_the_stage(target):
    """FLASH's refiner reads the drafter's own tokens more and more; in evaluation never."""
    learning = module("flash", target, own_token_rate=1.0, own_token_from=0.5)
    batch = collated(learning, record())
    plain = learning(**batch)["loss"].item()
    assert learning(**batch, progress=1.0)["loss"].item() == plain
    learning.train()
    assert learning(**batch, progress=0.4)["loss"].item() == plain
    assert learning(**batch, progress=1.0)["loss"].item() != plain


def test_only_the_drafter_is_trained_saved_and_moved(target):
    learning = module("vispec", target)
    assert {name.split(".")[0] for name in learning.state_dict()} == {"drafter"}
    own = {id(parameter) for parameter in learning.parameters()}
    assert own == {id(parameter) for parameter in learning.drafter.parameters()}
    assert learning.accepts_loss_kwargs  # Trainer then gives the count of the whole step


@every_drafter
def test_the_loss_falls(name, target):
    learning = module(name, target, torch.arange(3, 110), noise=0.01).train()
    batch = collated(learning, two(name)[0])
    optimizer = torch.optim.AdamW(learning.parameters(), lr=3e-2)
    losses = []
    for _ in range(6):
        loss = learning(**batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


def test_tokens_outside_the_draft_vocabulary_are_out_of_the_loss(target):
    each = record()
    answer = each.ids[20:]
    learning = module("vispec", target, answer[:6].unique(), unroll=1)
    batch = collated(learning, each)
    sayable = int(torch.isin(answer[1:], answer[:6]).sum())
    assert supervised(batch) == sayable < len(answer) - 1
    assert tiny.IMAGE_TOKEN not in batch["labels"]
