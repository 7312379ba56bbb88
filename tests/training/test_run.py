"""The one command, on a tiny target: it resumes, and what it writes loads and drafts."""

import json
from functools import partial

import pytest

from hf_mmspec.auto import AutoDrafter
from hf_mmspec.training import run as run_module
from hf_mmspec.training.acceptance import acceptance_length
from hf_mmspec.training.distil import Answering
from hf_mmspec.training.prompts import text_prompts
from hf_mmspec.training.records import read_answers
from tests.generation import tiny
from tests.training.test_training import TinyProcessor, prompts


class CountedTokenizer:
    padding_side = "left"

    def __len__(self):
        return tiny.VOCAB


@pytest.fixture
def command(monkeypatch, tmp_path):
    target, processor = tiny.llava(), TinyProcessor()
    processor.tokenizer = CountedTokenizer()
    monkeypatch.setattr(run_module, "load_default", lambda: (target, processor))
    monkeypatch.setattr(run_module, "image_prompts", lambda split, task, n, start=0: iter(prompts(n)))
    monkeypatch.setattr(run_module, "text_prompts", lambda split, n: prompts(n, images=0))
    monkeypatch.setattr(run_module, "Answering", lambda temperature, tokens, batch: Answering(temperature, 12, batch))
    monkeypatch.setattr(run_module, "acceptance_length", partial(acceptance_length, max_new_tokens=12))

    def call():
        run_module.main(
            work=tmp_path / "work",
            out=tmp_path / "vispec-tiny",
            greedy=3,
            drawn=2,
            text=2,
            val=2,
            epochs=1,
            text_epochs=1,
            unroll=2,
            learning_rate=1e-3,
            intermediate_size=48,
            vocabulary=60,
            batch_size=2,
            validate_every=100,
        )
        return tmp_path

    return call, target


def test_the_command_makes_a_drafter(command):
    call, target = command
    folder = call()
    drafter = AutoDrafter.from_pretrained(folder / "vispec-tiny", dtype=target.dtype)
    drafter.bind(target)
    assert drafter.config.draft_vocab_size == 60
    assert drafter.config.real_vocab_size == tiny.VOCAB
    assert len(drafter.config.acceptance_by_depth) == len(drafter.config.acceptance_by_rank) == 8
    card = (folder / "vispec-tiny" / "README.md").read_text()
    assert '"git_revision"' in card
    assert "| all |" in card
    answers = read_answers(folder / "work" / "answers.jsonl")
    assert len(answers) == 2 + 3 * (3 + 2)
    assert all(set(answer) == {"task", "seed", "temperature", "ids"} for answer in answers)


def test_a_second_call_goes_on_from_what_is_there(command, monkeypatch):
    call, _ = command
    folder = call()
    weights = (folder / "vispec-tiny" / "model.safetensors").read_bytes()
    log = (folder / "work" / "checkpoints" / "log.jsonl").read_text()

    def never(*_, **__):
        raise AssertionError("answered again")

    monkeypatch.setattr("hf_mmspec.training.distil.answer_batch", never)
    call()
    assert (folder / "vispec-tiny" / "model.safetensors").read_bytes() == weights
    assert (folder / "work" / "checkpoints" / "log.jsonl").read_text() == log
    assert {json.loads(line)["stage"] for line in log.splitlines()} == {"text", "multimodal"}


def test_text_prompts_are_disjoint():
    asked = {
        split: {p.messages[0]["content"][0]["text"] for p in text_prompts(split, 500)}
        for split in ("train", "val", "test")
    }
    assert len(asked["train"]) > 200
    assert not asked["train"] & asked["val"]
    assert not asked["train"] & asked["test"]
