"""`mmspec bench` from outside: any data, several drafters and temperatures, files, exit codes."""

import json

import pytest
from PIL import Image

from hf_mmspec.console import bench as flow
from hf_mmspec.evaluation import bench as protocol
from hf_mmspec.evaluation import budgets, contenders


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(protocol, "_VERIFY_SECONDS", 0.05)


@pytest.fixture
def data(tmp_path):
    """Pictures and a table of prompts, one of them unusable."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for number, size in enumerate([(40, 30), (90, 90), (30, 60)]):
        Image.new("RGB", size, "green").save(folder / f"{number}.png")
    rows = [{"image": f"{i % 3}.png", "question": f"What is {i}?", "task": ("see", "read")[i % 2]} for i in range(6)]
    rows[1]["image"] = "lost.png"
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def bench(run, *options):
    return run("bench", "--quick", "--no-memory", "--max-new-tokens", 8, *options)


def test_json_and_markdown_of_the_embedded_data(run, loaded, tmp_path):
    result = bench(run, "--samples", 1, "--json", "b.json", "--markdown", "b.md")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "b.json").read_text())
    assert report["summary"]["vispec"]["identical"] is True
    assert list(report["summary"]["vispec"]["tasks"]) == ["scene", "chart", "dialog", "rewrite", "chat"]
    assert report["settings"]["samples"] == 1 and report["settings"]["repetitions"] == 1
    assert "| vispec | scene |" in (tmp_path / "b.md").read_text()
    assert "vispec" in result.output and loaded == [None, "the default drafter"]


def test_own_data_two_drafters_two_temperatures_and_the_blind_ones(run, loaded, data, tmp_path):
    options = ["--data", data, "--model", "m", "--drafter", "x/a", "--drafter", "x/b", "--blind", "--json", "b.json"]
    result = bench(run, *options, "--temperature", 0, "--temperature", 1, "--samples", 1, "--plots", "plots")
    assert result.exit_code == 0, result.output
    assert loaded == ["m", "x/a", "x/b"]
    report = json.loads((tmp_path / "b.json").read_text())
    names = ["loop", "prompt_lookup", "a", "b", "a without images", "b without images"]
    assert list(report["summary"]) == names + [f"{name}@1" for name in names]
    assert [report["summary"][name]["identical"] for name in ("a", "b without images", "a@1")] == [True, True, None]
    fields = {"decode_speedup", "end_to_end_speedup", "acceptance_length", "verify_growth", "loop_efficiency"}
    assert all(fields <= set(report["summary"][name]) for name in ("a", "b@1", "a without images"))
    row = report["rows"][-1]
    assert (row["drafter"], row["task"], row["temperature"], row["batch"]) == ("b without images", "read", 1.0, 1)
    assert {"n", "identical", "peak_memory_ratio", *fields} <= set(row) and row["accuracy"] is None
    settings = report["settings"]
    assert settings["splits"] == {str(data): None} and settings["temperatures"] == [0, 1]
    assert settings["skipped"] == {"picture missing": 1} and settings["prompts"] == {"see": 1, "read": 1}
    assert settings["processors"]["0"] == ["SuppressTokensLogitsProcessor()"] and len(settings["processors"]["1"]) > 1
    assert {"cpu", "amx", "threads", "dtype"} <= set(report["machine"])
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == ["acceptance.png", "round.png", "speed.png"]
    assert "Skipped: 1 x picture missing" in result.output


def test_a_text_only_drafter_may_stand_alone(run, loaded, data, tmp_path):
    options = ["--data", data, "--model", "m", "--text-only", "eagle", "--task", "see", "--samples", 1]
    assert bench(run, *options, "--json", "b.json").exit_code == 0
    report = json.loads((tmp_path / "b.json").read_text())
    assert list(report["summary"]) == ["loop", "prompt_lookup", "vispec without images"]
    assert report["settings"]["drafters"] == [
        {"name": "vispec without images", "source": "eagle", "blind": True, "int8": False}
    ]


def test_an_unknown_task_is_one_line(run, loaded, data):
    result = bench(run, "--data", data, "--task", "poetry")
    assert result.exit_code == 2 and "its tasks are see, read" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.output


@pytest.mark.parametrize("option", ["--json", "--markdown", "--plots"])
def test_a_place_that_cannot_be_written_costs_nothing(run, loaded, tmp_path, option):
    (tmp_path / "file").touch()
    result = bench(run, option, "file/deep/x")
    assert result.exit_code == 2 and not loaded and "file" in result.stderr and result.stderr.count("\n") == 1
    (tmp_path / "folder").mkdir()
    assert bench(run, option, "file" if option == "--plots" else "folder").exit_code == 2 and not loaded


def test_a_wrong_answer_fails_the_command(run, loaded, monkeypatch, tmp_path):
    def with_a_wrong_token(*arguments):
        found = contenders.answer(*arguments)
        if found.speculation is not None:
            found.tokens[3] = 4 if found.tokens[3] != 4 else 5
        return found

    monkeypatch.setattr(protocol, "answer", with_a_wrong_token)
    result = bench(run, "--task", "scene", "--samples", 1, "--markdown", "b.md")
    assert result.exit_code == 1 and "0 of 1, **1 failed**" in (tmp_path / "b.md").read_text()


def test_memory_is_asked_for_each_drafter_with_the_users_sources(run, loaded, data, monkeypatch, tmp_path):
    asked = []

    def ratios(question, entries):
        asked.append(question)
        return {entry.name: 1.0 + number for number, entry in enumerate(entries)}

    monkeypatch.setattr(flow, "peak_memory_ratios", ratios)
    options = ["--model", "m", "--drafter", "d", "--blind", "--data", data, "--prompt-column", "question"]
    options += ["--revision", "abc"]  # which a table here has not
    assert run("bench", "--quick", *options, "--samples", 1, "--max-new-tokens", 4, "--json", "b.json").exit_code == 0
    assert (asked[0].model, asked[0].source.data, asked[0].source.columns.prompt) == ("m", str(data), "question")
    assert asked[0].source.revision == "abc"
    report = json.loads((tmp_path / "b.json").read_text())
    assert report["summary"]["vispec"]["peak_memory_ratio"] == 1.0
    assert report["summary"]["vispec without images"]["peak_memory_ratio"] == 2.0
    assert report["summary"]["loop"]["peak_memory_ratio"] is None


def test_batches_limits_by_task_and_tasks_together_at_two_temperatures(run, loaded, tmp_path):
    options = ["--batch", 2, "--max-new-tokens", "8,chart=5", "--together", "scene,chart", "--plots", "plots"]
    options += ["--task", "scene", "--task", "chart", "--temperature", 0, "--temperature", 1, "--json", "b.json"]
    result = run("bench", "--quick", "--no-memory", "--markdown", "b.md", *options)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "b.json").read_text())
    rows = {(row["drafter"], row["task"], row["temperature"]): row for row in report["rows"]}
    assert list(report["summary"]) == ["loop", "vispec", "loop@1", "vispec@1"]
    greedy = rows["vispec", "scene + chart", 0.0]
    assert greedy["n"] == 8 and greedy["batch"] == 2 and greedy["identical_samples"] == 8
    assert rows["vispec", "scene + chart", 1.0]["identical"] is None
    assert rows["loop", "scene", 0.0]["mean_new_tokens"] > rows["loop", "chart", 0.0]["mean_new_tokens"] == 5
    assert report["settings"]["samples"] == 4 and report["settings"]["task_max_new_tokens"] == {"chart": 5}
    text = (tmp_path / "b.md").read_text()
    assert "Answers end after 8 new tokens (chart 5)" in text and "Batches: 2 prompts" in text


@pytest.mark.parametrize("task", [[], ["--task", "see"]])
def test_a_limit_for_a_task_that_is_not_there_is_one_line(run, loaded, data, task):
    result = run("bench", "--data", data, *task, "--max-new-tokens", "8,poetry=5")
    assert result.exit_code == 2 and "the task 'poetry' is not measured" in result.stderr.splitlines()[-1]
    assert bool(loaded) is (not task)


def test_the_grid_is_measured_beside_the_automatic_choice(run, loaded, monkeypatch, tmp_path):
    monkeypatch.setattr(budgets, "_grid", lambda: ["depth=1,top_k=1,total_tokens=2", "top_k=2,total_tokens=3"])
    result = bench(
        run, "--task", "scene", "--samples", 1, "--budget", "grid", "--json", "b.json", "--markdown", "b.md"
    )
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "b.json").read_text())
    assert report["settings"]["budgets"] == ["depth=1,top_k=1,total_tokens=2", "top_k=2,total_tokens=3"]
    choice = report["summary"]["vispec"]["budget_choice"][0]
    best = report["summary"][f"vispec {choice['best_budget']}"]["tasks"]["scene"]["decode_speedup"]
    assert choice["best"] == best and choice["automatic_share"] == pytest.approx(choice["automatic"] / best)
    assert report["summary"]["loop"]["budget_choice"] == []
    assert (
        f"| vispec | scene | {choice['automatic']:.2f}x | {choice['best_budget']} |" in (tmp_path / "b.md").read_text()
    )
