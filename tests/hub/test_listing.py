"""Drafters of a target, from answers of the Hub and from a cache."""

import huggingface_hub
import pytest
from huggingface_hub import HfApi, ModelInfo

from hf_mmspec.hub import listing
from hf_mmspec.hub.listing import Listed, check_target, in_cache, on_hub

TARGET = "org/big"


def metric(kind, value, config):
    return {
        "task": {"type": "image-text-to-text"},
        "dataset": {"name": "d", "type": "d", "config": config},
        "metrics": [{"type": kind, "value": value}],
    }


INDEX = [
    {
        "name": "x",
        "results": [
            metric("acceptance_length", 4.5, "all tasks, temperature 0"),
            metric("acceptance_length", 3.5, "see, temperature 0"),
            metric("decode_speedup", 2.5, "see, temperature 0"),
            metric("decode_speedup", 3.0, "read, temperature 0"),
            metric("decode_speedup", "fast", "write, temperature 0"),
        ],
    }
]
TAGS = ["speculative-decoding", "draft-model", "vispec", "hf_mmspec"]


def answering(monkeypatch, *infos):
    """The Hub's answer, and what it was asked."""
    asked = []
    monkeypatch.setattr(HfApi, "list_models", lambda self, **question: asked.append(question) or iter(infos))
    return asked


def test_the_hub_is_asked_for_drafters_of_the_target(monkeypatch):
    asked = answering(monkeypatch, ModelInfo(id="a/b", tags=TAGS, downloads=7, **{"model-index": INDEX}))
    assert on_hub(TARGET) == [Listed("a/b", "vispec", (4.5,), (2.5, 3.0), 7)]
    assert asked[0]["filter"] == ["speculative-decoding", "base_model:org/big"]
    assert {"cardData", "downloads", "tags", "model-index"} == set(asked[0]["expand"])


def test_a_model_index_within_the_card_counts_too(monkeypatch):
    answering(monkeypatch, ModelInfo(id="a/b", tags=["dflash"], cardData={"model-index": INDEX}))
    assert on_hub(TARGET) == [Listed("a/b", None, (4.5,), (2.5, 3.0), None)]


@pytest.mark.parametrize("index", [[{"name": "x"}], ["text"], [{"name": "x", "results": [{"task": None}]}], 3])
def test_a_malformed_model_index_says_nothing(monkeypatch, index):
    answering(monkeypatch, ModelInfo(id="a/b", tags=None, **{"model-index": index}))
    assert on_hub(TARGET) == [Listed("a/b", None)]


def cache(folder, monkeypatch, **cards):
    """A cache as huggingface_hub lays it out, a repository for each card."""
    for name, text in cards.items():
        snapshot = folder / f"models--org--{name}" / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
        snapshot.mkdir(parents=True)
        blob = folder / f"models--org--{name}" / "blobs" / "1"
        blob.parent.mkdir()
        blob.write_text(text)
        (snapshot / ("README.md" if text else "config.json")).symlink_to(blob)
    monkeypatch.setattr(listing, "scan_cache_dir", lambda: huggingface_hub.scan_cache_dir(folder))


def test_the_cache_is_read_card_by_card(tmp_path, monkeypatch):
    tags = "tags: [speculative-decoding, msd]"
    cache(
        tmp_path,
        monkeypatch,
        fits=f"---\nbase_model: org/big\n{tags}\n---\n",
        of_several=f"---\nbase_model: [org/other, org/big]\n{tags}\n---\n",
        for_another=f"---\nbase_model: org/other\n{tags}\n---\n",
        no_drafter="---\nbase_model: org/big\ntags: [lora]\n---\n",
        broken="---\nbase_model: [org/big\n---\n",
        a_list="---\n- org/big\n---\n",
        without_metadata="# org/big\n",
        without_card="",
    )
    assert in_cache(TARGET) == [Listed("org/fits", "msd"), Listed("org/of_several", "msd")]


def test_no_cache_is_an_empty_one(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "scan_cache_dir", lambda: huggingface_hub.scan_cache_dir(tmp_path / "nowhere"))
    assert in_cache(TARGET) == []


@pytest.mark.parametrize("name", ["a/b/c", "<b>", "", "here/folder"])
def test_what_is_no_repository_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here" / "folder").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"(?i)repo"):
        check_target(name)
