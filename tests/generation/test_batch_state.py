"""What a batch keeps of each row after 30 uneven rounds: that of a fresh prefill of the row's own text."""

import pytest
import torch

from hf_mmspec.generation import loop
from hf_mmspec.generation.target import Target
from hf_mmspec.modeling import TargetPrompt

from . import tiny
from .batches import ScriptedAcceptance, answers_of, batch_of, generate, prompts
from .test_every_family import build

ROUNDS = 30
BUDGET = dict(draft_depth=5, draft_top_k=2, draft_total_tokens=11, eos_token_id=1)
CLOSE = dict(atol=1e-4, rtol=1e-4)


@pytest.fixture
def watched(monkeypatch):
    """The target of the last request, as it was after each round, and after `ROUNDS` of them."""
    seen = {"positions": []}

    class Watched(Target):
        def keep(self, paths):
            super().keep(paths)
            assert self.cache.get_seq_length() == max(self._lengths), "rejected columns were left"
            seen["positions"].append((list(self._lengths), self._last_position.clone()))
            if len(seen["positions"]) == ROUNDS:
                seen["layers"] = [(each.keys.clone(), each.values.clone()) for each in self.cache.layers]

    monkeypatch.setattr("hf_mmspec.generation.strategy.Target", Watched)
    return seen


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_uneven_acceptance_for_30_rounds(family, watched):
    """4, 0 and 2 drafts accepted in the same round, in turn: keys, values, positions and features of every row."""
    model, singles = tiny.FAMILIES[family](), prompts(family, 3)
    inputs = batch_of(singles)
    answers = answers_of(generate(model, inputs, max_new_tokens=100, eos_token_id=1), inputs)
    features = {row: [] for row in range(3)}

    class Reads(ScriptedAcceptance):
        def extend(self, state, features_of_row, next_tokens):
            row = next(i for i, key in enumerate(self.answers.values()) if key is state["answer"])
            features[row].append(features_of_row)
            super().extend(state, features_of_row, next_tokens)

    drafter = Reads(model, singles, answers)
    ours = generate(model, inputs, max_new_tokens=100, assistant_model=drafter, **BUDGET)
    assert answers_of(ours, inputs) == answers
    for row in range(3):
        accepted = [n for n, own in zip(ours.speculation.accepted, ours.speculation.row_of, strict=True) if own == row]
        assert accepted[:ROUNDS] == [(4, 0, 2)[(row + turn) % 3] for turn in range(ROUNDS)]

    lengths, positions = watched["positions"][ROUNDS - 1]
    padding = (inputs["attention_mask"] == 0).sum(-1).tolist()
    for row, single in enumerate(singles):
        count = lengths[row] - inputs["input_ids"].shape[1]
        text = torch.cat([single["input_ids"], torch.tensor([answers[row][:count]])], dim=1)
        fresh = single | {"input_ids": text, "attention_mask": torch.ones_like(text)}
        if "mm_token_type_ids" in fresh:
            fresh["mm_token_type_ids"] = torch.nn.functional.pad(fresh["mm_token_type_ids"], (0, count))
        step = model.generate(**fresh, max_new_tokens=1, return_dict_in_generate=True, output_hidden_states=True)
        for (keys, values), layer in zip(watched["layers"], step.cache.layers, strict=True):
            own = slice(padding[row], lengths[row])
            torch.testing.assert_close(keys[row : row + 1, :, own], layer.keys, **CLOSE)
            torch.testing.assert_close(values[row : row + 1, :, own], layer.values, **CLOSE)
        read = torch.cat(features[row][:ROUNDS], dim=1)
        torch.testing.assert_close(read, step.hidden_states[0][-1][:, -count:], **CLOSE)
        expected = model._prepare_position_ids_for_generation(text, fresh | {"input_ids": text})
        assert torch.equal(positions[..., row, -1], expected[..., 0, -1])


@pytest.mark.parametrize("name", ["vispec", "msd", "eagle3", "flash", "eagle_skipped"])
def test_the_drafters_rows_after_uneven_rounds(name):
    """Its cache and its last row are those of a prefill of the row's own text."""
    model = tiny.llava()
    drafter, borrowed = build(name, model), None
    borrowed = drafter.bind(model)
    width = tiny.HIDDEN * len(drafter.feature_layers_of(model) or (0,))
    generator = torch.Generator().manual_seed(0)

    def prompt(length, spans, images):
        embeds = torch.randn(1, length, tiny.HIDDEN, generator=generator)
        return TargetPrompt(None, embeds, torch.randn(1, length, width, generator=generator), spans[:images])

    rows = [prompt(9, [], 0), prompt(30, [(3, 19)], 1), prompt(45, [(2, 18), (20, 36)], 2)]
    tokens = [[torch.tensor([[5 + row]])] for row in range(3)]
    state = drafter.join([drafter.prefill(each, token[0], borrowed) for each, token in zip(rows, tokens, strict=True)])
    budget = loop.DraftBudget(4, 3, 12)
    features = [[each.features] for each in rows]
    for turn in range(6):
        drafter.propose_rows(state, [budget.limited_to((turn + row) % 5) for row in range(3)])
        counts = [1 + (4, 0, 2)[(turn + row) % 3] for row in range(3)]
        new = [torch.randn(1, count, width, generator=generator) for count in counts]
        ids = [torch.randint(3, 90, (1, count), generator=generator) for count in counts]
        drafter.extend_rows(state, new, ids)
        for row in range(3):
            features[row].append(new[row])
            tokens[row].append(ids[row])
    for row in (0, 1, 2):
        embeds = torch.cat([rows[row].inputs_embeds, borrowed.embed_tokens(torch.cat(tokens[row], dim=1)[:, :-1])], 1)
        whole = TargetPrompt(None, embeds, torch.cat(features[row], dim=1), rows[row].visual_spans)
        fresh = drafter.prefill(whole, tokens[row][-1][:, -1:], borrowed)
        length = fresh.cache.stable
        assert state.cache.lengths[row] == length and state.next_positions[row] == fresh.next_position
        torch.testing.assert_close(state.last_hidden[row], fresh.last_hidden[0], **CLOSE)
        for mine, theirs in zip(state.cache.rows(0), fresh.cache.rows(0), strict=True):
            torch.testing.assert_close(mine[row : row + 1, :, :length], theirs, **CLOSE)
        alone = drafter.propose(fresh, budget)
        together = drafter.propose_rows(state, [budget] * 3)[row]
        assert torch.equal(alone.tokens, together.tokens) and torch.equal(alone.parents, together.parents)
    state = drafter.select(state, [2, 0])
    assert torch.equal(drafter.propose_rows(state, [budget] * 2)[0].tokens, together.tokens)
