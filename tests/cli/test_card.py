"""`mmspec card` from outside."""

import json

from tests.evaluation.tiny import tiny_drafter, tiny_target


def test_a_bench_becomes_a_card(run, loaded, tmp_path):
    """From the bench's own JSON, by commands alone."""
    tiny_drafter(tiny_target()).save_pretrained(tmp_path / "my-drafter")
    options = ["--drafter", "my-drafter", "--quick", "--no-memory", "--samples", 1, "--max-new-tokens", 8]
    assert run("bench", *options, "--json", "b.json").exit_code == 0
    result = run("card", "my-drafter", "--bench", "b.json")
    assert result.exit_code == 0 and "my-drafter/README.md" in result.output
    text = (tmp_path / "my-drafter" / "README.md").read_text()
    row = next(row for row in json.loads((tmp_path / "b.json").read_text())["rows"] if row["drafter"] == "vispec")
    assert f"| {row['task']} | 0 | 1 | {row['acceptance_length']:.2f} | {row['decode_speedup']:.2f}x |" in text
    assert "load_default()" in text and (tmp_path / "my-drafter" / "speed.png").exists()
    assert run("card", "my-drafter").exit_code == 0
    assert (tmp_path / "my-drafter" / "README.md").read_text() == text


def test_what_is_no_drafter_or_no_bench_is_one_line(run, tmp_path):
    tiny_drafter(tiny_target()).save_pretrained(tmp_path / "d")
    for arguments in (["nowhere"], ["d", "--bench", "nowhere.json"], ["d", "--bench", "d/config.json"]):
        result = run("card", *arguments)
        assert (
            result.exit_code == 2 and result.stderr.count("\n") == 1 and arguments[-1].split("/")[-1] in result.stderr
        )
    assert not (tmp_path / "d" / "README.md").exists()
