"""A bench whose calls answer several prompts: the same tasks, the same checks, row by row."""

import pytest
import torch

from hf_mmspec.evaluation import bench as protocol
from hf_mmspec.evaluation.batches import in_batches
from hf_mmspec.evaluation.bench import Settings, run_bench
from hf_mmspec.evaluation.contenders import LOOP, STOCK, Contender, answer, contenders_with
from hf_mmspec.evaluation.machine import machine_facts
from hf_mmspec.evaluation.markdown import to_markdown
from hf_mmspec.evaluation.prompts import collect_prompts, open_data
from hf_mmspec.evaluation.report import make_report

SETTINGS = Settings(samples=3, repetitions=2, max_new_tokens=10, batch=2, together=(("scene", "chat"),))


@pytest.fixture(scope="module", autouse=True)
def hurry():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "_VERIFY_SECONDS", 0.05)
        yield


@pytest.fixture(scope="module")
def prompts(target, processor):
    return collect_prompts(target, processor, open_data(["embedded"], 3), 3, ["scene", "chat"]).by_task


@pytest.fixture(scope="module")
def greedy(target, processor, drafter, prompts):
    return run_bench(target, processor, contenders_with({"d": drafter}, batch=2), prompts, SETTINGS)


def test_prompts_are_padded_on_the_left_and_the_last_batch_is_what_is_left(target, processor, prompts):
    mixed = [prompts["scene"][0], prompts["chat"][1], prompts["scene"][2]]
    first, last = in_batches(target, processor, mixed, 2)
    assert [len(each.prompts) for each in (first, last)] == [2, 1]
    for prompt, ids, mask in zip(
        first.prompts, first.inputs["input_ids"], first.inputs["attention_mask"], strict=True
    ):
        assert torch.equal(ids[mask.bool()], prompt.inputs["input_ids"][0]) and mask[-1] == 1
    alone = in_batches(target, processor, mixed, 1)
    assert [each.inputs for each in alone] == [prompt.inputs for prompt in mixed]


def test_rows_of_a_batch_answer_as_alone(target, greedy, prompts):
    assert list(greedy.runs) == [STOCK, LOOP, "d"]  # stock prompt lookup takes one prompt only
    for task, members in prompts.items():
        alone = [answer(target, prompt.inputs, Contender(STOCK), 10).tokens for prompt in members]
        for repetition in greedy.runs["d"][task]:
            assert [len(run.rows) for run in repetition] == [2, 1]
            assert [row for run in repetition for row in run.rows] == alone


def test_the_report_counts_prompts_and_takes_tasks_together(greedy):
    report = make_report([greedy], SETTINGS, machine_facts())
    rows = {row["task"]: row for row in report["rows"] if row["drafter"] == "d"}
    assert list(rows) == ["scene", "chat", "scene + chat"]
    both = rows["scene + chat"]
    assert (both["n"], both["batch"], both["identical_samples"]) == (6, 2, 6)
    assert both["accuracy"] is None and rows["scene"]["accuracy"] == rows["scene"]["baseline_accuracy"]
    assert both["decode_tokens_per_second"] > 0 and 1 <= both["acceptance_length"] <= 3
    summary = report["summary"]["d"]
    assert summary["together"]["scene + chat"]["decode_speedup"] == summary["decode_speedup"]
    assert summary["slowest_prompt"]["number"] in (0, 1) and summary["slowest_prompt"]["task"] in ("scene", "chat")
    assert summary["strata"] == {"answer_length": [], "image_tokens": []} and report["settings"]["batch"] == 2
    text = to_markdown(report)
    assert "| d | scene + chat | 0 | 6 x 2 |" in text and "* Batches: 2 prompts of a task" in text
    assert "tokens of the answer" not in text


def test_the_first_call_of_each_size_is_outside_of_the_clock(target, processor, drafter, prompts, monkeypatch):
    sizes = []

    def note(target, inputs, *rest):
        sizes.append(inputs["input_ids"].shape[0])
        return answer(target, inputs, *rest)

    monkeypatch.setattr(protocol, "answer", note)
    settings = Settings(repetitions=1, max_new_tokens=3, batch=2)
    run_bench(target, processor, [Contender(STOCK)], {"scene": prompts["scene"]}, settings)
    assert sorted(sizes[:2]) == [1, 2] and sizes[2:] == [2, 1]


def test_one_wrong_row_of_a_batch_is_found(target, processor, prompts, monkeypatch):
    def with_a_wrong_row(*arguments):
        run = answer(*arguments)
        if arguments[2].name == "cheat" and len(run.rows) == 2:
            run.rows[1][3] = 4 if run.rows[1][3] != 4 else 5
        return run

    monkeypatch.setattr(protocol, "answer", with_a_wrong_row)
    settings, cheat = Settings(repetitions=1, max_new_tokens=10, batch=2), [Contender(STOCK), Contender("cheat")]
    found = run_bench(target, processor, cheat, {"chat": prompts["chat"]}, settings)
    differences = found.differences["cheat"]["chat"]
    assert [each is None for each in differences] == [True, False, True]
    assert differences[1].position == 3 and not differences[1].is_near_tie


def test_sampled_batches_are_not_compared(target, processor, drafter, prompts):
    settings = Settings(repetitions=1, max_new_tokens=6, batch=2)
    scene = {"scene": prompts["scene"]}
    found = run_bench(target, processor, contenders_with({"d": drafter}, batch=2), scene, settings, temperature=0.8)
    row = make_report([found], settings, machine_facts())["rows"][-1]
    assert row["identical"] is None and row["n"] == 3 and row["temperature"] == 0.8 and row["acceptance_length"] >= 1
