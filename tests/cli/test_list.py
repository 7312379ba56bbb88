"""`mmspec list` from outside: a table, one line offline, strangers' names as they are."""

import pytest
from huggingface_hub import HfApi, ModelInfo
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from hf_mmspec.hub import listing
from hf_mmspec.hub.listing import Listed


def answering(monkeypatch, answer):
    monkeypatch.setattr(HfApi, "list_models", lambda self, **_: answer())


def test_the_table_names_drafters_with_their_numbers(run, monkeypatch):
    tags = ["speculative-decoding", "vispec"]
    answering(monkeypatch, lambda: [ModelInfo(id="a/b", tags=tags, downloads=12), ModelInfo(id="c/d", tags=[])])
    result = run("list", "org/big")
    assert result.exit_code == 0
    rows = [line.split() for line in result.output.splitlines() if "/" in line]
    assert rows == [["a/b", "vispec", "12"], ["c/d", "another", "kind"]]


def test_names_from_the_hub_are_no_markup_and_no_control_sequences(run, monkeypatch):
    answering(monkeypatch, lambda: [ModelInfo(id="a/[red]b\x1b[2J\n[/]", tags=[])])
    result = run("list", "org/big")
    assert result.exit_code == 0 and "a/[red]b\N{REPLACEMENT CHARACTER}[2J [/]" in result.output
    assert "\x1b" not in result.output


NETWORK_ERROR = next(each for each in HfHubHTTPError.__bases__ if not issubclass(each, OSError))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OfflineModeIsEnabled("offline mode is enabled"), "HF_HUB_OFFLINE is set"),
        (NETWORK_ERROR("[Errno -2] Name or service not known\nmore"), "([Errno -2] Name or service not known)"),
    ],
)
def test_without_the_hub_one_line_says_so_and_the_cache_is_shown(run, monkeypatch, error, words):
    def fail():
        raise error

    answering(monkeypatch, fail)
    monkeypatch.setattr(listing, "in_cache", lambda target: [Listed("a/b", "msd", (2.5, 3.0), (1.5, 1.5))])
    result = run("list", "org/big")
    assert result.exit_code == 0
    first, *table = result.output.splitlines()
    assert "could not be asked" in first and words in first
    assert ["a/b", "msd", "2.50–3.00", "1.50x"] in [line.split() for line in table]


def test_nothing_found_is_said(run, monkeypatch):
    answering(monkeypatch, lambda: [])
    assert "no drafter on the Hub names org/big as its target" in run("list", "org/big").output


def test_a_bad_name_is_one_line(run):
    result = run("list", "a/b/c")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
