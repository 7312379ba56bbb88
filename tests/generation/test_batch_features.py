"""Batches together with what else a request may have: forced tokens, reused rows, compiled parts, conversations."""

import pytest
import torch
from transformers import LogitsProcessorList, StaticCache

from hf_mmspec.generation.conversation_cache import ConversationCache
from hf_mmspec.modeling import FAMILIES

from . import tiny
from .batches import answers_of, batch_of, generate, prompts
from .doubles import RandomDrafter
from .test_batches import assert_rows
from .test_draft_constraint import SHAPES, Rhythm, Silent
from .test_every_family import build

TREE = dict(draft_mode="tree", draft_depth=4, draft_top_k=3, draft_total_tokens=12)


@pytest.fixture(scope="module")
def model():
    return tiny.llava()


@pytest.fixture(scope="module")
def batch():
    singles = prompts("llava", 3)
    return singles, batch_of(singles)


@pytest.fixture(scope="module")
def plain(model, batch):
    """What `generate` gives under the rule without a drafter: the same for every one."""
    return constrained(model, batch[1], Rhythm, eos_token_id=None)


def constrained(model, inputs, kind, **kwargs):
    torch.manual_seed(5)
    processor = kind(inputs["input_ids"].shape[1])
    return generate(model, inputs, logits_processor=LogitsProcessorList([processor]), max_new_tokens=25, **kwargs)


@pytest.mark.parametrize("shape", ["tree", "chain", "none"])
@pytest.mark.parametrize("family", [*sorted(FAMILIES), "untold"])
def test_every_row_keeps_to_its_constraint(family, shape, model, batch, plain):
    """Runs of each row come by themselves; other rounds draft allowed tokens only; no token changes."""
    _, inputs = batch
    options = dict(eos_token_id=None)
    drafter = RandomDrafter(model) if family == "untold" else build(family, model)
    ours = constrained(model, inputs, Rhythm, assistant_model=drafter, **SHAPES[shape], **options)
    assert_rows(ours, plain, inputs, (family, shape))
    stats = ours.speculation
    assert len(stats.forced) == len(stats.accepted) == len(stats.row_of)
    assert all(forced <= accepted for forced, accepted in zip(stats.forced, stats.accepted, strict=True))
    silent = constrained(model, inputs, Silent, assistant_model=drafter, **SHAPES[shape], **options)
    assert sum(silent.speculation.forced) == 0 and stats.rounds < silent.speculation.rounds
    for row in range(3):
        assert sum(f for f, own in zip(stats.forced, stats.row_of, strict=True) if own == row) > 3


def test_rows_are_forced_at_different_places(model, batch, plain):
    """After uneven acceptance some rows stand before a run, while others draft freely beside them."""
    _, inputs = batch
    vocabulary = torch.tensor(sorted({token for row in answers_of(plain, inputs) for token in row}))
    drafter = build("eagle3", model, vocabulary)
    ours = constrained(model, inputs, Rhythm, assistant_model=drafter, eos_token_id=None, **TREE)
    assert_rows(ours, plain, inputs, "places")
    stats, rounds = ours.speculation, {}
    for row in range(3):
        own = [f for f, at in zip(stats.forced, stats.row_of, strict=True) if at == row]
        rounds[row] = own
    together = list(zip(*rounds.values(), strict=False))
    assert any(0 in forced and max(forced) > 0 for forced in together)


@pytest.mark.parametrize("name", ["eagle", "vispec"])
def test_reused_rows(name, model, batch):
    """Each row keeps the columns of its own accepted tokens: as many drafts are right as when each is alone."""
    singles, inputs = batch
    options = dict(eos_token_id=None, max_new_tokens=24)
    plain = generate(model, inputs, **options)
    torch.manual_seed(1)
    fields = dict(accepted_rows="reuse", initializer_range=0.3)
    drafter = FAMILIES[name][1].from_target(model, **fields)
    wide = dict(draft_mode="tree", draft_depth=4, draft_top_k=20, draft_total_tokens=100)
    ours = generate(model, inputs, assistant_model=drafter, **wide, **options)
    assert_rows(ours, plain, inputs, name)
    assert max(ours.speculation.accepted) > 0
    for row, single in enumerate(singles):
        alone = generate(model, single, assistant_model=drafter, **wide, **options).speculation
        stats = ours.speculation
        assert [n for n, at in zip(stats.accepted, stats.row_of, strict=True) if at == row] == alone.accepted


def test_compiled_parts_run_uncompiled(batch, monkeypatch):
    _, inputs = batch
    model, graphs = tiny.llava(), []
    plain = generate(model, inputs)
    drafter = build("vispec", model)

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    warnings = []
    monkeypatch.setattr("hf_mmspec.generation.strategy.logger.warning_once", warnings.append)
    model.forward = torch.compile(model.forward, backend=backend)
    drafter.compile(backend=backend)
    ours = generate(model, inputs, assistant_model=drafter, **TREE)
    assert_rows(ours, plain, inputs, "compiled")
    assert not graphs and len(warnings) == 1 and "uncompiled" in warnings[0]
    torch._dynamo.reset()


def test_a_static_cache_is_filled_for_every_row(model, batch):
    _, inputs = batch
    caches = [StaticCache(config=model.config.get_text_config(), max_cache_len=80) for _ in range(2)]
    options = dict(eos_token_id=None, max_new_tokens=12)
    plain = generate(model, inputs, cache=caches[0], disable_compile=True, **options)
    drafter = build("vispec", model)
    ours = generate(model, inputs, cache=caches[1], assistant_model=drafter, **TREE, **options)
    assert_rows(ours, plain, inputs, "static")
    filled = inputs["input_ids"].shape[1] + 11
    for mine, theirs in zip(caches[1].layers, caches[0].layers, strict=True):
        mask = inputs["attention_mask"].bool()
        for row in range(3):
            columns = torch.cat([mask[row].nonzero().flatten(), torch.arange(mask.shape[1], filled)])
            torch.testing.assert_close(mine.keys[row, :, columns], theirs.keys[row, :, columns], atol=1e-4, rtol=1e-4)


def test_a_conversation_has_one_row(model, batch):
    _, inputs = batch
    with pytest.raises(ValueError, match=r"ConversationCache, which holds one conversation, but there are 3 rows"):
        generate(model, inputs, cache=ConversationCache(model.config), assistant_model=build("vispec", model))
