"""Records in which the drafter spoke: its own words, judged by the target that really read them."""

from dataclasses import replace

import pytest
import torch

from hf_mmspec.modeling import FAMILIES, DraftBudget, TargetPrompt
from hf_mmspec.training.features.reading import Answered, Reader
from hf_mmspec.training.features.source import RecordSource
from hf_mmspec.training.learning import on_policy
from hf_mmspec.training.learning.batches import BatchMaker
from hf_mmspec.training.learning.collator import IGNORED, answer_labels
from hf_mmspec.training.learning.drafter_with_loss import DrafterWithLoss
from hf_mmspec.training.learning.on_policy import own_records, propose
from hf_mmspec.training.learning.order import Pick
from hf_mmspec.training.learning.target_parts import TargetParts
from hf_mmspec.training.recipes import OnPolicy, Stage
from tests.training.making import answers, collated, conversation, gradients

TAPS = (0, 1)
FIELDS = {"vispec": {}, "flash": {"num_latents": 4, "dropout": 0.0}, "eagle3": {"feature_layers": list(TAPS)}}
GREEDY = OnPolicy(share=1.0, depth=4, temperature=0.0)
DRAWN = replace(GREEDY, temperature=1.0)


def open_source(layers, qwen, folder):
    asked = [conversation(seed, pictures) for seed, pictures in enumerate((1, 0, 2))]
    kept = answers(folder / "a", *qwen, asked, layers=layers, keep=True, max_new_tokens=8)
    return RecordSource.open([kept], Reader(*qwen, layers), "stored")


@pytest.fixture(scope="module")
def source(qwen, tmp_path_factory):
    """As an EAGLE-3 drafter reads it: states apart from features."""
    return open_source(TAPS, qwen, tmp_path_factory.mktemp("taps"))


@pytest.fixture
def learning(qwen):
    return of_family("eagle3", qwen[0])


def of_family(family, target, **stage):
    torch.manual_seed(0)
    drafter = FAMILIES[family][1].from_target(target, **FIELDS[family])
    return DrafterWithLoss(drafter, TargetParts.of(target, drafter), Stage("s", unroll=2, **stage))


@torch.no_grad()
def test_what_is_said_is_what_serving_would_draft(source, learning, qwen):
    """Behind a prompt as the target's own prefill hands it over."""
    target, (record,) = qwen[0], source.records([2])
    learning.drafter.eval()
    cut = record.prompt_length + 3
    embeds = target.get_input_embeddings()(record.ids[None, : cut - 1])
    embeds[0, [i for start, stop in record.spans for i in range(start, stop)]] = record.image_embeds
    prompt = TargetPrompt(record.ids[None, : cut - 1], embeds, record.features[None, : cut - 1], record.spans)
    borrowed = learning.drafter.bind(target)
    state = learning.drafter.prefill(prompt, record.ids[cut - 1], borrowed)
    tree = learning.drafter.propose(state, DraftBudget(4, 1, 5, "chain"))
    assert propose(learning, record, cut, GREEDY) == tree.tokens[1:].tolist()


def test_the_records_hold_prompt_answer_and_proposal(source, learning):
    records = source.records(range(3))
    for own, record in zip(own_records(learning, source, range(3), records, GREEDY), records, strict=True):
        cut = own.prompt_length + 1  # the last token before the proposal is never drafted
        assert record.prompt_length < cut < len(record.ids)
        assert torch.equal(own.ids[:cut], record.ids[:cut])
        said = propose(learning, record, cut, GREEDY)
        assert own.ids[cut:].tolist() == said
        labels = answer_labels(own)
        assert labels[labels != IGNORED].tolist() == said
        assert own.spans == record.spans


def test_the_target_has_read_them(source, learning):
    """Features are those of a fresh forward over everything, the proposal included."""
    for number, own in enumerate(own_records(learning, source, range(3), source.records(range(3)), DRAWN)):
        asked = source.answered([number])[0]
        (fresh,) = source.reader.read([Answered(asked.conversation, own.ids.tolist(), asked.prompt_length)])
        for name in ("features", "states", "image_embeds"):
            expected = getattr(fresh, name)
            if expected is not None:
                torch.testing.assert_close(getattr(own, name), expected, atol=1e-3, rtol=1e-4)


def test_the_same_batch_gives_the_same_cuts_and_draws(source, learning):
    records = source.records(range(3))
    torch.manual_seed(5)
    first = own_records(learning, source, range(3), records, DRAWN)
    after = torch.rand(1)
    torch.manual_seed(6)
    again = own_records(learning, source, range(3), records, DRAWN)
    assert [own.ids.tolist() for own in first] == [own.ids.tolist() for own in again]
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))  # the training's own random numbers are left alone
    other = own_records(learning, source, [2, 1, 0], records[::-1], DRAWN)
    assert [own.prompt_length for own in other] != [own.prompt_length for own in first][::-1]


def test_the_share(source, learning, monkeypatch):
    monkeypatch.setattr(on_policy, "propose", lambda *_: [5])
    records = source.records(range(3))
    for share, expected in ((0.34, 1), (0.7, 2), (0.01, 1)):
        assert len(own_records(learning, source, range(3), records, replace(DRAWN, share=share))) == expected


def test_proposals_are_made_in_evaluation_mode(source, learning, monkeypatch):
    modes, records = [], source.records(range(3))
    monkeypatch.setattr(on_policy, "propose", lambda module, *_: modes.append(module.drafter.training) or [])
    for training in (True, False):
        learning.drafter.train(training)
        own_records(learning, source, range(3), records, DRAWN)
        assert learning.drafter.training is training
    assert modes == [False] * 6


def test_a_drafted_placeholder_never_reaches_the_target(source, learning, qwen, monkeypatch):
    image = qwen[0].config.image_token_id
    spoken = iter([[7, image, 8], [image, 8], [7, 8]])
    monkeypatch.setattr(on_policy, "propose", lambda *_: next(spoken))
    own = own_records(learning, source, range(3), source.records(range(3)), DRAWN)
    assert [each.ids[each.prompt_length + 1 :].tolist() for each in own] == [[7], [7, 8]]
    assert [len(each.spans) for each in own] == [1, 2]


def test_nothing_spoken_gives_no_record(source, learning, monkeypatch):
    monkeypatch.setattr(on_policy, "propose", lambda *_: [])
    assert own_records(learning, source, range(3), source.records(range(3)), DRAWN) == []


def test_batches_have_them_beside_the_answers(source, qwen):
    learning = of_family("eagle3", qwen[0], on_policy=DRAWN)
    picks = [Pick(2, False), Pick(0, True), Pick(1, True)]
    found = BatchMaker(source, learning).records(picks)
    assert [len(record.spans) for record in found[:3]] == [0, 1, 0]  # pictures are cut out where they are not seen
    assert [len(record.spans) for record in found[3:]] == [2, 1, 0]
    assert len(BatchMaker(source, of_family("eagle3", qwen[0])).records(picks)) == 3


@pytest.mark.parametrize("family", ["vispec", "flash"])
def test_padding_does_not_change_what_they_teach(family, qwen, tmp_path):
    source = open_source(None, qwen, tmp_path)
    learning = of_family(family, qwen[0], on_policy=DRAWN).eval()
    records = BatchMaker(source, learning).records([Pick(0, True), Pick(2, True)])
    assert [len(each.ids) - each.prompt_length - 1 for each in records[2:]] == [4, 4]
    together = gradients(learning, collated(learning, *records))
    whole = sum(int((answer_labels(record) != IGNORED).sum()) for record in records)
    parts = [gradients(learning, collated(learning, record), whole) for record in records]
    assert together[0] == pytest.approx(sum(loss for loss, _ in parts), rel=1e-4)
    for name, gradient in together[1].items():
        total = sum(found.get(name, 0) for _, found in parts)
        torch.testing.assert_close(total, gradient, atol=1e-5 * max(gradient.abs().max().item(), 1), rtol=1e-3)
