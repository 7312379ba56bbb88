"""Reused rows change what is drafted, never what is generated: round after round, the target's own distribution."""

import pytest
import torch
from scipy.stats import chisquare

from hf_mmspec.generation.answer import Answer
from hf_mmspec.generation.loop import walk
from hf_mmspec.modeling import DraftBudget, EagleConfig, EagleDrafter

from . import tiny
from .test_every_family import SHAPES, VOCAB, WIDTH, MarkovTarget, build
from .test_lossless_greedy import run
from .test_sampling import ToyConfig

DRAWS, TOKENS, TEMPERATURE = 250, 4, 0.9


def drawn(target, drafter) -> tuple[list[int], int]:
    """Some tokens after token 0 and how many of them had been drafted; one state goes through all rounds."""
    answer = Answer(
        torch.tensor([[1, 0]]),
        lambda ids, scores: scores / TEMPERATURE,
        lambda ids, scores: torch.tensor([ids.shape[1] >= 2 + TOKENS]),
        ToyConfig,
        None,
    )
    state, accepted = target.state(drafter, [1, 0]), 0
    while True:
        tree = drafter.propose(state, DraftBudget(2, 1, 3, "chain"), TEMPERATURE)
        path, tokens = walk(tree, target.verified(tree), answer)
        accepted += len(path) - 1
        if answer.finished:
            return answer.ids[0, 2:].tolist(), accepted
        drafter.extend(state, target.features[tree.tokens[path]][None], torch.tensor([tokens]))


def test_sampled_chains_over_reused_rows_keep_the_targets_distribution():
    """Chi-square of the last two of four tokens against the exact distribution."""
    torch.manual_seed(2)
    sizes = dict(vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=32, num_attention_heads=2)
    drafter = EagleDrafter(EagleConfig(**sizes, initializer_range=0.05, accepted_rows="reuse")).eval()
    target, counts, accepted = MarkovTarget(), torch.zeros(VOCAB, VOCAB, dtype=torch.double), 0
    for _ in range(DRAWS):
        (*_, third, fourth), drafted = drawn(target, drafter)
        counts[third, fourth] += 1
        accepted += drafted
    assert accepted > DRAWS / 2
    step = (target.table / TEMPERATURE).softmax(-1).double()
    expected = ((step @ step @ step)[0][:, None] * step).flatten() * DRAWS
    common = expected >= 5
    observed, wanted = (torch.cat([each[common], each[~common].sum()[None]]) for each in (counts.flatten(), expected))
    assert chisquare(observed, wanted / wanted.sum() * observed.sum()).pvalue > 1e-3


def rows_read(model, name, shape, monkeypatch):
    """Rows of drafted and accepted tokens that a drafter reads again, and how many of them there are, over prompts."""
    read = accepted = 0
    for images in range(3):
        inputs = tiny.llava_prompt(images, images=images)
        ids = run(model, inputs)[0].sequences
        drafter, rows = build(name, model, ids[0, inputs["input_ids"].shape[1] :].unique()), []
        project = type(drafter).project
        with monkeypatch.context() as patch:
            patch.setattr(
                type(drafter), "project", lambda self, x, do=project, rows=rows: rows.append(x.shape[1]) or do(self, x)
            )
            output, _ = run(model, inputs, assistant_model=drafter, **SHAPES[shape])
        assert output.sequences.tolist() == ids.tolist()
        # What is accepted is read when a later round drafts.
        last_drafted = max(number for number, levels in enumerate(output.speculation.levels) if levels)
        per_round = output.speculation.accepted[:last_drafted]
        read += sum(rows[1:]) - len(per_round)  # without the prompt and without the bonus tokens
        accepted += sum(per_round)
    return read, accepted


@pytest.mark.parametrize("shape", SHAPES)
def test_fewer_rows_are_read(shape, monkeypatch):
    """Else the identity of answers would say nothing about reuse."""
    model = tiny.llava()
    read, accepted = rows_read(model, "vispec", shape, monkeypatch)
    assert read == accepted > 0
    read, accepted = rows_read(model, "vispec_reusing", shape, monkeypatch)
    assert read < accepted
