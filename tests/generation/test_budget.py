"""The automatic draft budget: what it chooses from given costs, and that measuring leaves no trace."""

import json
from types import SimpleNamespace

import pytest
import torch
from transformers import GenerationConfig

from hf_mmspec.generation import cost_cache, costs, request_plan
from hf_mmspec.generation.budget import Acceptance, choose_budget, expected_length, forecast
from hf_mmspec.generation.costs import CostRecord, ForwardCosts, measure_verify
from hf_mmspec.generation.request_plan import plan_budget
from hf_mmspec.generation.steadiness import Timings
from hf_mmspec.modeling import DraftBudget, ViSpecDrafter
from tests.slow_parameters import others_slow

from .tiny import llava, llava_prompt, qwen

# Seconds in units of one decoding step; the two machines of the design document.
FLAT = {1: 1.0, 8: 1.1, 16: 1.2, 32: 1.3, 64: 1.6}
STEEP = {1: 1.0, 2: 1.65, 8: 1.7, 16: 2.0, 32: 2.5, 64: 3.5}
ORIGINAL_CACHE_FOLDER = cost_cache.cache_folder  # before the session fixture replaces it
GOOD = Acceptance.from_depths([0.8, 0.78, 0.75, 0.72, 0.7])
USELESS = Acceptance.from_depths([0.02])


def machine(growth, step=0.08):
    return ForwardCosts(tuple(growth.items()), first_level=0.1, level=((1, step), (10, 1.5 * step)), overhead=0.03)


def test_wide_tree_where_many_tokens_are_cheap_and_small_one_where_they_are_not():
    wide, small = choose_budget(machine(FLAT), GOOD), choose_budget(machine(STEEP), GOOD)
    assert wide.mode == small.mode == "tree"
    assert wide.total_tokens >= 32 and wide.top_k >= 3
    assert 2 <= small.total_tokens <= 24
    assert small.depth <= wide.depth and small.prices[15] > 2 * wide.prices[15]


def test_nothing_is_drafted_by_a_useless_drafter():
    assert choose_budget(machine(FLAT), USELESS).depth == 0
    assert choose_budget(machine(STEEP), USELESS).depth == 0


def test_slow_drafter_drafts_less():
    fast, slow = choose_budget(machine(FLAT, 0.02), GOOD), choose_budget(machine(FLAT, 0.5), GOOD)
    assert slow.depth < fast.depth


def test_a_large_batch_drafts_less_and_in_the_end_nothing():
    """v(n) of 1, 8 and 32 rows on a machine where a forward costs 1 + 0.02 steps for each token."""

    def batch(rows):
        return machine({n: 1 + 0.02 * rows * n for n in (1, 4, 16, 64)})

    sizes = [choose_budget(batch(rows), GOOD).total_tokens for rows in (1, 8, 32, 1024)]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > sizes[1] > sizes[3] == 1
    assert choose_budget(batch(1024), Acceptance.from_depths([0.3])).depth == 0


def test_a_batch_is_measured_with_its_rows(monkeypatch, tmp_path):
    """Once for each power of two, under a key of its own; the forwards have that many rows."""
    monkeypatch.setattr(cost_cache, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(Timings, "is_steady", True)
    monkeypatch.setattr(costs, "_are_credible", lambda numbers: True)
    cost_cache.forget()
    target, rows = llava(), []
    drafter = ViSpecDrafter.from_target(target)
    handle = target.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )
    for batch in (1, 3, 4):
        plan_budget(target, drafter, GenerationConfig(), 100, batch)
    handle.remove()
    assert set(rows) == {1, 4}
    verified = {int(file.stem.partition("-")[2] or 1) for file in tmp_path.iterdir()}
    assert verified == {1, 4} and len(list(tmp_path.iterdir())) == 4


def test_a_chain_where_siblings_are_never_right():
    only_first = Acceptance(((0.9, 0.0, 0.0),))
    chosen = choose_budget(machine(FLAT), only_first)
    assert chosen.mode == "chain" and chosen.total_tokens == chosen.depth + 1


def test_a_forecast_is_what_the_chosen_tree_promises():
    costs = machine(FLAT)
    promise = forecast(costs, GOOD)
    depth, width, tokens = promise.budget.depth, promise.budget.top_k, promise.budget.total_tokens
    assert promise.length == expected_length(GOOD, depth, width)[tokens - 1] > 3
    assert promise.growth == costs.growth(tokens)
    assert promise.speedup == pytest.approx(promise.length / costs.round_seconds(tokens, depth, width))
    useless = forecast(costs, USELESS)
    assert (useless.budget.depth, useless.length, useless.speedup) == (0, 1.0, 1.0)


def test_expected_length_of_a_chain_is_the_geometric_sum():
    lengths = expected_length(Acceptance(((0.5,), (0.4,))), depth=3, top_k=1)
    assert lengths == pytest.approx([1, 1.5, 1.7, 1.78])


def test_expected_length_counts_the_most_probable_nodes_first():
    lengths = expected_length(Acceptance(((0.6, 0.3), (0.5, 0.1))), depth=2, top_k=2)
    assert lengths == pytest.approx([1, 1.6, 1.9, 2.2, 2.35, 2.41, 2.44])


def test_expected_length_agrees_with_a_simulation():
    """Draw the target's rank at each depth and walk the tree of all nodes."""
    rates, top_k, depth = (0.6, 0.25), 2, 3
    generator = torch.Generator().manual_seed(0)
    ranks = torch.multinomial(torch.tensor([*rates, 0.15]), 20_000 * depth, replacement=True, generator=generator)
    accepted = (ranks.view(-1, depth) < top_k).long().cumprod(1).sum(1)
    # With two beams of two children each, all eight paths of depth 3 cannot be there: level 3 has four nodes.
    assert expected_length(Acceptance((rates,)), 2, top_k)[-1] == pytest.approx(
        1 + accepted.clamp(max=2).float().mean().item(), abs=0.02
    )


@pytest.mark.parametrize(
    "given",
    [
        {"depth": 2},
        {"top_k": 5},
        {"total_tokens": 7},
        {"mode": "chain"},
        {"depth": 3, "top_k": 2},
        {"depth": 1, "total_tokens": 4},
        {"depth": 2, "mode": "tree"},
    ],
)
def test_what_is_given_stays_as_given(given):
    chosen = choose_budget(machine(FLAT), GOOD, **given)
    assert {name: getattr(chosen, name) for name in given} == given
    assert chosen.depth > 0


def test_room_for_the_root_alone_drafts_nothing():
    assert choose_budget(machine(FLAT), GOOD, total_tokens=1).levels == 0


@pytest.mark.parametrize("given", [{"depth": 3}, {"total_tokens": 6}])
def test_an_explicit_wish_to_draft_is_honoured_even_if_it_does_not_pay(given):
    assert choose_budget(machine(STEEP), USELESS, **given).depth > 0


@pytest.mark.parametrize("given", [{"depth": -1}, {"top_k": 0}, {"total_tokens": 0}, {"mode": "bush"}, {"depth": 1.5}])
def test_impossible_wishes_are_errors(given):
    with pytest.raises(ValueError, match="draft budget"):
        choose_budget(machine(FLAT), GOOD, **given)


def test_acceptance_by_rank_is_preferred_to_acceptance_by_depth_and_to_the_prior():
    def of(**fields):
        return Acceptance.of(SimpleNamespace(config=SimpleNamespace(**fields)))

    assert of(acceptance_by_rank=[[0.6, 0.2]], acceptance_by_depth=[0.5]).at(4, 2) == (0.6, 0.2)
    assert of(acceptance_by_depth=[0.5]).at(1, 1) == (0.5,)
    assert 0 < of().at(1, 1)[0] < 1
    assert all(sum(ranks) <= 1 for ranks in of(acceptance_by_depth=[0.99, 0.5, 0.01]).by_rank)


def test_no_depth_is_chosen_that_the_drafter_cannot_draft():
    limited = Acceptance(GOOD.by_rank, max_levels=2)
    assert choose_budget(machine(FLAT), GOOD).depth > 4
    assert choose_budget(machine(FLAT), limited).depth == 2
    assert expected_length(limited, 6, 3) == expected_length(limited, 2, 3)


def test_growth_is_interpolated_and_goes_on_beyond_the_grid():
    measured = machine({1: 2.0, 9: 4.0, 17: 8.0})
    assert [measured.growth(n) for n in (1, 5, 9, 13, 25)] == pytest.approx([1, 1.5, 2, 3, 6])


def test_a_level_and_nodes_have_to_promise_what_they_cost_in_tokens():
    costs = ForwardCosts(((1, 1.0), (11, 1.5)), first_level=0.0, level=((1, 0.1), (10, 0.1)))
    chain = choose_budget(costs, Acceptance(((1.0, 0.0),)), depth=10, top_k=1, mode="tree", greedy=False)
    speed = 11 / (1.5 + 0.9)
    assert chain.level_threshold == pytest.approx(0.15 * speed)
    assert chain.prices == pytest.approx([0.05 * speed * n for n in range(chain.total_tokens)])


def test_a_greedy_target_accepts_more_than_the_drafter_believes_so_nodes_are_kept_longer():
    greedy, sampled = (choose_budget(machine(STEEP), GOOD, greedy=greedy) for greedy in (True, False))
    assert 0 < greedy.level_threshold == sampled.level_threshold < 1
    assert greedy.prices == sampled.prices and greedy.exponent < sampled.exponent == 1


def test_sampled_chains_have_no_thresholds_and_the_depth_of_the_average_round():
    greedy, sampled = (choose_budget(machine(FLAT), GOOD, mode="chain", greedy=greedy) for greedy in (True, False))
    assert (sampled.level_threshold, sampled.prices) == (0, ()) and sampled.mode == "chain"
    assert 0 < sampled.depth < greedy.depth


def test_a_dear_level_raises_its_threshold_and_dear_nodes_their_prices():
    cheap, dear = (choose_budget(machine(FLAT, step), GOOD, depth=4, top_k=2) for step in (0.02, 0.2))
    assert dear.level_threshold > 2 * cheap.level_threshold
    flat, steep = (choose_budget(machine(growth), GOOD, depth=4, top_k=2) for growth in (FLAT, STEEP))
    assert steep.prices[1] > flat.prices[1] > flat.prices[0] == 0


# -- with real models ------------------------------------------------------------------------------------------------


def untrained(target, **fields):
    return ViSpecDrafter.from_target(target, **fields).eval()


def resolve(target, drafter, **given):
    config = GenerationConfig()
    for name, value in given.items():
        setattr(config, name, value)
    return plan_budget(target, drafter, config, tokens_left=100).next_budget()


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """An empty cache, on a machine that counts as quiet."""
    monkeypatch.setattr(cost_cache, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(Timings, "is_steady", True)
    monkeypatch.setattr(costs, "_are_credible", lambda numbers: True)
    return tmp_path


@pytest.fixture
def paper_machine(monkeypatch):
    """Sets the costs that every request starts from."""

    def use(growth):
        record = CostRecord(machine(growth), in_doubt=False, keys=("", ""))
        monkeypatch.setattr(request_plan, "cost_record", lambda *models: record)

    return use


@pytest.mark.parametrize("family", [llava, qwen])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_measuring_works_on_every_family_and_leaves_no_trace(family, attention, own_cache):
    target = family(attention)
    drafter = untrained(target)
    random_state, attributes = torch.get_rng_state(), set(vars(target)) | set(vars(target.model))
    measured = costs.cached_costs(target, drafter)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert set(vars(target)) | set(vars(target.model)) == attributes
    assert measured.verify_seconds(1) > 0 and measured.first_level > 0
    assert [n for n, _ in measured.verify] == [1, 2, 3, 4, 8, 16, 24, 32, 48, 64]
    assert list(measured.verify) == sorted(measured.verify, key=lambda point: point[1])


def test_slow_target_is_timed_at_the_essential_sizes_only():
    assert sorted(measure_verify(llava(), time_limit=0.0)) == [1, 8, 32]


def test_answers_do_not_change_by_measuring(own_cache):
    target, inputs = qwen(), llava_prompt(images=0)
    before = target.generate(**inputs, max_new_tokens=8, do_sample=False)
    costs.cached_costs(target, untrained(target))
    assert torch.equal(before, target.generate(**inputs, max_new_tokens=8, do_sample=False))


def test_measured_once_and_kept_on_disk(own_cache, monkeypatch):
    target = llava()
    drafter = untrained(target)
    first = costs.cached_costs(target, drafter)
    assert len(list(own_cache.glob("*.json"))) == 2 and not list(own_cache.glob("*.tmp"))
    monkeypatch.setattr(cost_cache, "_known", {})  # a new process
    monkeypatch.setattr(costs, "_time_verify", lambda *arguments: pytest.fail("measured again"))
    assert costs.cached_costs(target, drafter) == first


def test_forgotten_numbers_are_measured_again(own_cache):
    target = llava()
    costs.cached_costs(target, untrained(target))
    cost_cache.forget()
    assert not list(own_cache.glob("*.json"))
    costs.cached_costs(target, untrained(target))
    assert len(list(own_cache.glob("*.json"))) == 2


# what all counts as broken, `test_cost_cache` asks without measuring
@pytest.mark.parametrize("text", others_slow(["", "{", "[]", '{"1": "fast"}', "null", "{}"], ["{", '{"1": "fast"}']))
def test_a_broken_cache_file_is_measured_again(own_cache, monkeypatch, text):
    target = llava()
    drafter = untrained(target)
    costs.cached_costs(target, drafter)
    for path in own_cache.glob("*.json"):
        path.write_text(text)
    monkeypatch.setattr(cost_cache, "_known", {})
    assert costs.cached_costs(target, drafter).verify_seconds(1) > 0
    assert all(json.loads(path.read_text()) for path in own_cache.glob("*.json"))


def test_an_unwritable_cache_is_not_fatal(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(cost_cache, "cache_folder", lambda: tmp_path / "file")
    target = llava()
    assert costs.cached_costs(target, untrained(target)).verify_seconds(1) > 0


def test_key_knows_dtype_threads_attention_and_drafter():
    target = llava()
    keys = set(cost_cache.fingerprints(target, untrained(target)))
    keys.update(cost_cache.fingerprints(llava("eager")))
    keys.update(cost_cache.fingerprints(llava().bfloat16()))
    assert len(keys) == 4
    assert cost_cache.fingerprints(llava(seed=1)) == cost_cache.fingerprints(target)


def test_request_wins_over_drafter_and_drafter_over_the_machine(paper_machine):
    paper_machine(FLAT)
    target = llava()
    drafter = untrained(target, acceptance_by_depth=[0.8, 0.7])
    assert resolve(target, drafter).total_tokens > 1
    drafter.generation_config.draft_depth = 2
    assert resolve(target, drafter).depth == 2
    assert resolve(target, drafter, draft_depth=4).depth == 4
    assert resolve(target, drafter, draft_depth=0) == DraftBudget(0, 1, 1)
    assert resolve(target, drafter, draft_mode="chain") == DraftBudget(2, 1, 3, "chain")


def test_a_complete_wish_measures_nothing(monkeypatch):
    monkeypatch.setattr(request_plan, "cost_record", lambda *models: pytest.fail("measured"))
    target = llava()
    drafter = untrained(target)
    given = {"draft_depth": 3, "draft_top_k": 4, "draft_total_tokens": 12}
    assert resolve(target, drafter, **given) == DraftBudget(3, 4, 12, "tree")


def test_automatic_off_for_a_drafter_that_was_measured_to_be_useless(paper_machine):
    paper_machine(STEEP)
    target = llava()
    assert resolve(target, untrained(target, acceptance_by_depth=[0.01])).depth == 0


def test_cache_lives_in_the_hugging_face_home_or_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_MMSPEC_CACHE", raising=False)
    assert ORIGINAL_CACHE_FOLDER() == tmp_path / "hf_mmspec" / "costs"
    monkeypatch.setenv("HF_MMSPEC_CACHE", str(tmp_path / "mine"))
    assert ORIGINAL_CACHE_FOLDER() == tmp_path / "mine" / "costs"


def test_a_depth_beyond_all_measure_is_no_work():
    budget = choose_budget(machine(FLAT), GOOD, depth=10**9)
    assert budget.depth == 10**9 and 1 < budget.total_tokens <= 64
