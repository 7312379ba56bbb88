"""The protocol on tiny models: what is run, what is found, and what the report says about it."""

import json
from weakref import WeakKeyDictionary

import pytest
import torch
from rich.console import Console

from hf_mmspec.console import bench as flow
from hf_mmspec.data import Source
from hf_mmspec.data.embedded import TASKS
from hf_mmspec.evaluation import bench as protocol
from hf_mmspec.evaluation import loading
from hf_mmspec.evaluation.bench import Settings, run_bench
from hf_mmspec.evaluation.budgets import GRID, expand_budgets, parse_budget
from hf_mmspec.evaluation.contenders import LOOP, PROMPT_LOOKUP, STOCK, Clock, Contender, Run, answer, contenders_with
from hf_mmspec.evaluation.drafters import Entry
from hf_mmspec.evaluation.machine import machine_facts
from hf_mmspec.evaluation.markdown import to_markdown
from hf_mmspec.evaluation.prompts import collect_prompts, open_data
from hf_mmspec.evaluation.report import make_report
from hf_mmspec.generation import Speculation, acceptance_memory
from hf_mmspec.whole_file import write_json
from tests.generation.doubles import OracleDrafter

SETTINGS = Settings(samples=2, repetitions=2, max_new_tokens=10)
ONCE = Settings(samples=1, repetitions=1, max_new_tokens=10)


@pytest.fixture(scope="module", autouse=True)
def hurry():
    """What the tiny target's forwards cost is not what is tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "_VERIFY_SECONDS", 0.05)
        yield


@pytest.fixture(scope="module")
def prompts(target, processor):
    return collect_prompts(target, processor, open_data(["embedded"], 2), 2).by_task


@pytest.fixture(scope="module")
def scene(prompts):
    return {"scene": prompts["scene"][:1]}


@pytest.fixture(scope="module")
def results(target, processor, drafter, prompts):
    return run_bench(target, processor, contenders_with({"vispec": drafter}), prompts, SETTINGS)


@pytest.fixture(scope="module")
def report(results):
    return make_report([results], SETTINGS, machine_facts(torch.float32), {"vispec": 1.05})


def test_every_contender_answers_every_prompt_in_every_repetition(results):
    assert list(results.runs) == [STOCK, LOOP, PROMPT_LOOKUP, "vispec"]
    for by_task in results.runs.values():
        assert list(by_task) == list(TASKS)
        assert all(len(rows) == 2 and all(len(row) == 2 for row in rows) for rows in by_task.values())


def test_contenders_take_turns_and_none_is_always_first(target, processor, drafter, prompts, monkeypatch):
    order = []

    def note(target, inputs, contender, *rest):
        order.append(contender.name)
        return answer(target, inputs, contender, *rest)

    monkeypatch.setattr(protocol, "answer", note)
    contenders = contenders_with({"vispec": drafter})[:2]
    run_bench(target, processor, contenders, {"scene": prompts["scene"]}, Settings(repetitions=1, max_new_tokens=3))
    assert order == [STOCK, LOOP, STOCK, LOOP, LOOP, STOCK]  # the first two warm up


def test_report_has_the_agreed_names(report):
    assert set(report) == {"machine", "settings", "definitions", "warnings", "rows", "summary"}
    assert {"cpu", "amx", "avx512_bf16", "threads", "dtype", "versions", "git_revision", "command"} <= set(
        report["machine"]
    )
    assert [(row["drafter"], row["task"]) for row in report["rows"]] == [
        (name, task) for name in (LOOP, PROMPT_LOOKUP, "vispec") for task in TASKS
    ]
    row = report["rows"][-1]
    names = "drafter task temperature batch n acceptance_length decode_speedup end_to_end_speedup identical"
    assert set(names.split()) <= set(row)
    assert row["n"] == 2 and row["batch"] == 1 and row["temperature"] == 0
    assert row["time_to_first_token"] > 0 and row["stock_time_to_first_token"] > 0
    assert report["summary"]["vispec"]["peak_memory_ratio"] == 1.05
    assert {"decode_speedup", "end_to_end_speedup", "acceptance_length", "verify_growth", "loop_efficiency"} <= set(
        report["summary"]["vispec"]
    )


def test_answers_of_all_contenders_are_identical_and_graded_alike(report):
    for row in report["rows"]:
        assert row["identical"] is True and row["identical_samples"] == row["n"] and row["failures"] == 0
        assert row["accuracy"] == row["baseline_accuracy"]


def test_loop_efficiency_is_what_the_definitions_say(report):
    for name in (LOOP, "vispec"):
        row = report["summary"][name]
        assert row["loop_efficiency"] == row["round_shares"]["verify"]
        assert row["loop_efficiency_measured"] == pytest.approx(
            row["decode_speedup"] * row["verify_growth_measured"] / row["acceptance_length"]
        )
    assert report["summary"][LOOP]["acceptance_length"] == 1.0
    assert report["summary"][LOOP]["verify_growth_measured"] == 1.0


def test_growth_from_the_rounds_gives_the_share_of_verification(target, drafter):
    """Three tokens a round of 0.3 s, 0.24 of them in the target; stock needs 0.2 s a token."""
    speculation = Speculation([2] * 4, [5] * 4, {"prefill": 0.5, "draft": 0.2, "verify": 0.96, "other": 0.04})
    ours, stock = Run([[1] * 13], 2.0, 1.2, 12, speculation=speculation), Run([[1] * 13], 3.0, 2.4, 12, 13)
    results = protocol.Results(
        0.0,
        {STOCK: {"all": [[stock]]}, "vispec": {"all": [[ours]]}},
        {STOCK: {"all": [None]}, "vispec": {"all": [None]}},
        {STOCK: {"all": None}, "vispec": {"all": None}},
        {"vispec": 1.1},
        {"all": [144]},
    )
    row = make_report([results], ONCE, machine_facts())["summary"]["vispec"]
    assert row["decode_speedup"] == pytest.approx(2.0) and row["acceptance_length"] == 3
    assert row["verify_growth"] == pytest.approx(0.24 / 0.2)
    assert row["loop_efficiency"] == pytest.approx(0.8) == pytest.approx(2.0 * row["verify_growth"] / 3)
    assert row["loop_efficiency_measured"] == pytest.approx(2.0 * 1.1 / 3)


def test_an_oracle_has_a_long_acceptance(target, processor, scene):
    tokens = answer(target, scene["scene"][0].inputs, Contender(STOCK), 30).tokens
    budget = {"draft_depth": 4, "draft_top_k": 2, "draft_total_tokens": 9}
    oracle = Contender("oracle", {"assistant_model": OracleDrafter(target, tokens), **budget})
    settings = Settings(samples=1, repetitions=1, max_new_tokens=30)
    found = run_bench(target, processor, [Contender(STOCK), oracle], scene, settings)
    row = make_report([found], settings, machine_facts())["rows"][0]
    assert row["acceptance_length"] > 4 and row["identical"] and row["acceptance_by_position"][0] == 1


def test_a_contender_that_changes_the_answer_fails(target, processor, scene):
    tokens = answer(target, scene["scene"][0].inputs, Contender(STOCK), 10).tokens
    cheat = Contender("cheat", {"suppress_tokens": [0, 2, 3, tokens[4]]})
    found = run_bench(target, processor, [Contender(STOCK), cheat], scene, ONCE)
    report = make_report([found], ONCE, machine_facts())
    row = report["rows"][0]
    assert row["identical"] is False and row["failures"] == 1
    assert row["differences"][0]["position"] <= 4
    assert "failed" in to_markdown(report)


def test_two_drafters_at_two_temperatures(target, processor, drafter, scene):
    """Each temperature is a run of its own; sampled answers are not compared, and their seed is the prompt's."""
    contenders = contenders_with({"a": drafter, "b": drafter}, ["depth=1,mode=tree"])
    found = [run_bench(target, processor, contenders, scene, ONCE, temperature) for temperature in (0.0, 0.7)]
    report = make_report(found, ONCE, machine_facts(), {"a": 1.1, "b": 1.2})
    names = [LOOP, PROMPT_LOOKUP, "a", "a depth=1,mode=tree", "b", "b depth=1,mode=tree"]
    assert list(report["summary"]) == names + [f"{name}@0.7" for name in names]
    assert [row["identical"] for row in report["rows"]] == [True] * 6 + [None] * 6
    assert {row["temperature"] for row in report["rows"] if row["drafter"] == "a"} == {0.0, 0.7}
    summary = report["summary"]["b@0.7"]
    assert summary["peak_memory_ratio"] == 1.2 and summary["tasks"]["scene"]["acceptance_length"] >= 1
    assert "| b | scene | 0.7 |" in to_markdown(report) and "sampled" in to_markdown(report)
    sampled = found[1].runs
    assert sampled["a depth=1,mode=tree"]["scene"][0][0].tokens == sampled[STOCK]["scene"][0][0].tokens


def test_accuracy_is_left_out_where_nothing_can_grade(target, processor, drafter, scene):
    prompt = scene["scene"][0]
    plain = protocol.Prompt(
        type(prompt.conversation)(prompt.conversation.messages, prompt.conversation.pictures), prompt.inputs
    )
    found = run_bench(target, processor, contenders_with({"a": drafter}), {**scene, "mine": [plain]}, ONCE)
    report = make_report([found], ONCE, machine_facts())
    by_task = report["summary"]["a"]["tasks"]
    assert by_task["mine"]["accuracy"] is None and by_task["scene"]["accuracy"] is not None
    assert report["summary"]["a"]["accuracy"] is None
    assert "| a | mine |" in to_markdown(report)


def test_the_grid_has_chains_and_trees_with_and_without_thresholds(drafter):
    parsed = [parse_budget(each) for each in expand_budgets(["depth=2", GRID, "depth=2"])]
    assert parsed[0] == {"draft_depth": 2} and len(parsed) == 23
    fixed = [each for each in parsed[1:] if "draft_depth" in each]
    assert {each["draft_top_k"] for each in fixed} == {1, 2, 3, 4}
    assert {each["draft_total_tokens"] for each in fixed} == {8, 16, 32}
    assert all(each["draft_depth"] == each["draft_total_tokens"] - 1 for each in fixed if each["draft_top_k"] == 1)
    assert [{**each, "draft_depth": None} for each in fixed] == [{**each, "draft_depth": None} for each in parsed[12:]]


def test_a_budget_that_is_given_twice_counts_once(drafter):
    names = [each.name for each in contenders_with({"vispec": drafter}, ["depth=2", "top_k=2,depth=3", "depth=2"])]
    assert names == [STOCK, LOOP, PROMPT_LOOKUP, "vispec", "vispec depth=2", "vispec top_k=2,depth=3"]


@pytest.mark.parametrize("text", ["", "depth", "depth=x", "breadth=2", "depth=2;top_k=3"])
def test_a_budget_that_cannot_be_read_is_an_error(drafter, text):
    with pytest.raises(ValueError, match="name=value"):
        contenders_with({"vispec": drafter}, [text])


def test_growth_is_interpolated_where_a_slow_target_was_not_timed(target, monkeypatch):
    monkeypatch.setattr(protocol, "measure_verify", lambda *_, **__: {1: 2.0, 9: 4.0})
    run = Run([[1]], 1.0, 1.0, 1, speculation=Speculation(accepted=[0], drafted=[4]))
    assert protocol._verify_growth(target, {"vispec": [run]}) == {"vispec": 1.5}


def test_the_largest_size_is_timed_early_so_that_the_rest_lies_between(target, monkeypatch):
    asked = []

    def only_the_first_three(_, sizes, **__):
        asked.extend(sizes)
        return {size: 9.0 + size for size in sizes[:3]}

    monkeypatch.setattr(protocol, "measure_verify", only_the_first_three)
    drafted = {"a": 3, "b": 7, "c": 15, "d": 31}
    rows = {name: [Run([[1]], 1.0, 1.0, 1, speculation=Speculation([0], [count]))] for name, count in drafted.items()}
    growth = protocol._verify_growth(target, rows)
    assert asked == [1, 32, 16, 8, 4]
    assert growth == pytest.approx({"a": 1.3, "b": 1.7, "c": 2.5, "d": 4.1})


def test_results_are_kept_when_all_tasks_in_them_were_measured_equally_often(target, processor, prompts):
    seen = []

    def keep(found):
        seen.append({task: len(repetitions) for task, repetitions in found.runs[STOCK].items()})

    two = {task: prompts[task][:1] for task in ("scene", "chart")}
    settings = Settings(repetitions=2, max_new_tokens=3)
    run_bench(target, processor, [Contender(STOCK)], two, settings, keep=keep)
    assert seen == [{"scene": 1}, {"scene": 1, "chart": 1}, {"scene": 2, "chart": 2}]


def test_a_killed_bench_leaves_what_it_has_measured(target, processor, drafter, monkeypatch, tmp_path, capsys):
    turns = protocol._take_turns

    def killed_in_the_second_task(*arguments, **options):
        if (tmp_path / "bench.json").exists():
            raise KeyboardInterrupt
        return turns(*arguments, **options)

    monkeypatch.setattr(protocol, "_take_turns", killed_in_the_second_task)
    monkeypatch.setattr(loading, "load_target", lambda *_: (target, processor))
    monkeypatch.setattr(loading, "load_drafter", lambda *_: drafter)
    tasks = ("scene", "chart")
    settings = Settings(tasks=tasks, samples=1, repetitions=1, max_new_tokens=3, together=(tasks,))
    run = flow.Run(None, "auto", [Entry("vispec", "d")], settings, open_data(["embedded"], 1), Source(""))
    with pytest.raises(KeyboardInterrupt):
        flow.show_bench(run, Console(), flow.Files(tmp_path / "bench.json", tmp_path / "bench.md"))
    report = json.loads((tmp_path / "bench.json").read_text())
    assert {row["task"] for row in report["rows"]} == {"scene"}
    assert report["warnings"][0] == "not finished: so far scene at T = 0"
    assert "not finished" in (tmp_path / "bench.md").read_text()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["bench.json", "bench.md"]
    assert "scene at T = 0: repetition 1 of 1" in capsys.readouterr().err


def test_no_repetition_knows_the_acceptance_of_the_one_before(target, processor, drafter, prompts, monkeypatch):
    """These are the same prompts: what was learnt of them would flatter the automatic budget."""
    known = []
    turns = protocol._take_turns

    def remembering(*arguments, **options):
        known.append(len(acceptance_memory._experience))
        acceptance_memory._experience.setdefault(drafter, WeakKeyDictionary())  # as a request that drafted
        return turns(*arguments, **options)

    monkeypatch.setattr(protocol, "_take_turns", remembering)
    two = {task: prompts[task][:1] for task in ("scene", "chart")}
    run_bench(target, processor, [Contender(STOCK)], two, Settings(repetitions=2, max_new_tokens=3))
    assert known == [0, 1, 0, 1]


def test_drafters_with_a_budget_of_their_own_learn_for_themselves(drafter):
    """They share weights and nothing that is learnt, which is kept by drafter."""
    entered = {
        each.name: each.arguments.get("assistant_model") for each in contenders_with({"d": drafter}, ["top_k=2"])
    }
    assert entered["d"] is drafter and entered["d top_k=2"] is not drafter
    assert next(entered["d top_k=2"].parameters()) is next(drafter.parameters())


def test_json_is_valid_and_complete(report, tmp_path):
    write_json(tmp_path / "deep" / "bench.json", {**report, "nothing": float("nan")})
    read = json.loads((tmp_path / "deep" / "bench.json").read_text())
    assert read["nothing"] is None
    assert read["summary"]["vispec"]["identical"] is True


def test_markdown_says_plainly_when_drafting_loses(report):
    report["summary"]["vispec"]["decode_speedup"] = 0.8
    text = to_markdown(report)
    assert "slower than stock decoding here" in text
    assert "break-even at L" in text
    assert all(f"**{name}**" in text for name in ("acceptance_length", "loop_efficiency", "identical"))


def test_clock_leaves_the_prompt_out_and_passes_tokens_on():
    seen = []

    class Inner:
        put = staticmethod(lambda value: seen.append(value.numel()))
        end = staticmethod(lambda: seen.append("end"))

    clock = Clock(Inner())
    for value in (torch.zeros(1, 20), torch.zeros(1), torch.zeros(1, 3)):
        clock.put(value)
    clock.end()
    assert [count for _, count in clock.stamps] == [1, 3]
    assert seen == [20, 1, 3, "end"]


def test_stock_assisted_decoding_emits_once_per_forward(target, scene):
    run = answer(target, scene["scene"][0].inputs, Contender(PROMPT_LOOKUP, {"prompt_lookup_num_tokens": 4}), 12)
    assert 1 <= run.emissions <= len(run.tokens) == 12
    assert run.decode_tokens < 12 and 0 < run.decode_seconds < run.seconds
