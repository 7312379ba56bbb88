"""What does not fit is refused before the first step, in one line that says what to do."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image

from hf_mmspec.data import PictureError
from hf_mmspec.training.answers.answering import Answering
from hf_mmspec.training.answers.screening import TooManySkippedError
from hf_mmspec.training.answers.store import AnswerSet, AnswerStore, AnswerStoreError
from hf_mmspec.training.checks import OtherTargetError
from hf_mmspec.training.features.reading import OtherPromptError
from hf_mmspec.training.features.source import NoRecordsError
from hf_mmspec.training.learning.trainer import DrafterTrainer
from hf_mmspec.training.material import sources
from hf_mmspec.training.recipes import RecipeError
from hf_mmspec.training.result.folder import FolderInUseError
from tests.evaluation.tiny import tiny_processor, tiny_target
from tests.training.robustness import world


@pytest.fixture
def no_step(monkeypatch):
    """Not even the closed-form start is made."""
    monkeypatch.setattr("hf_mmspec.training.stages.warm_start", lambda *_: pytest.fail("it began"))
    monkeypatch.setattr(DrafterTrainer, "train", lambda *_, **__: pytest.fail("it began"))


def resized(target, **text):
    config = target.config.__class__.from_dict({**target.config.to_dict()})
    for name, value in text.items():
        setattr(config.text_config, name, value)
    return type(target)(config).eval()


@pytest.mark.parametrize("other", ["weights", "hidden size", "vocabulary"])
def test_answers_of_another_target_are_refused(finished, tmp_path, target, processor, no_step, other):
    wrong = {
        "weights": lambda: tiny_target(seed=1),
        "hidden size": lambda: resized(target, hidden_size=64),
        "vocabulary": lambda: resized(target, vocab_size=1024),
    }[other]()
    with pytest.raises(OtherTargetError, match=r"answers of tiny, whose weights are not.*same --model, or distil"):
        world.trained(world.train_run(tmp_path), wrong, processor, finished)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("features", ["live", "stored"])
def test_another_chat_template_is_refused(tmp_path, table, target, processor, no_step, features):
    world.answered(table, tmp_path / "a", target, processor, keep=world.recipe("vispec"))
    wrong = tiny_processor()
    wrong.chat_template = wrong.chat_template.replace("helpful", "unhelpful")
    with pytest.raises(OtherPromptError, match="Train with the model, processor and pictures of the distillation, or"):
        world.trained(world.train_run(tmp_path, features=features), target, wrong, tmp_path / "a")


def test_another_temperature_in_the_same_folder_is_refused(answers, table, target, processor):
    with pytest.raises(AnswerStoreError, match=r"made otherwise \(temperature differ\): give another folder"):
        world.answered(table, answers, target, processor, how=Answering(0.7, 10))


def test_other_prompts_in_the_same_folder_are_refused(answers, tmp_path, target, processor):
    with pytest.raises(AnswerStoreError, match=r"made otherwise \(data, data_fingerprint, prompts differ\)"):
        world.answered(world.write_table(tmp_path / "b", 23), answers, target, processor)


def test_other_weights_in_the_same_folder_are_refused(answers, table, processor):
    with pytest.raises(AnswerStoreError, match="target_fingerprint differ"):
        world.answered(table, answers, tiny_target(seed=1), processor)


@pytest.mark.parametrize(
    ("change", "options", "named"),
    [
        ("stages.1.unroll=2", {}, "recipe"),
        ("seed=0", {"max_length": 300}, "max_length"),
        ("seed=0", {"held_out": 2}, "held_out"),
    ],
)
def test_another_training_in_the_same_work_folder_is_refused(
    finished, tmp_path, target, processor, no_step, change, options, named
):
    first = world.train_run(tmp_path)
    with pytest.raises(pytest.fail.Exception, match="it began"):
        world.trained(first, target, processor, finished)
    (first.work / "0-text" / "checkpoint-1").mkdir(parents=True)
    with pytest.raises(OtherTargetError, match=rf"another training \({named} differ\): give another --work folder"):
        world.trained(world.train_run(tmp_path, "vispec", change, **options), target, processor, finished)


def test_a_training_that_failed_before_it_began_may_be_tried_with_other_options(
    finished, tmp_path, target, processor, no_step
):
    """As the error says."""
    with pytest.raises(NoRecordsError, match="raise --max-length"):
        world.trained(world.train_run(tmp_path, max_length=4), target, processor, finished)
    with pytest.raises(pytest.fail.Exception, match="it began"):
        world.trained(world.train_run(tmp_path, max_length=400), target, processor, finished)


def test_a_work_folder_of_before_a_field_was_new_is_gone_on_with(finished, tmp_path, target, processor, no_step):
    """A new field's default is what was done without it; another value is another training."""
    with pytest.raises(pytest.fail.Exception, match="it began"):
        world.trained(world.train_run(tmp_path), target, processor, finished)
    file = tmp_path / "work" / "run.json"
    asked = json.loads(file.read_text())
    for stage in asked["recipe"]["stages"]:
        del stage["kv_loss_weight"]
    file.write_text(json.dumps(asked))
    checkpoint = tmp_path / "work" / "0-text" / "checkpoint-1"
    checkpoint.mkdir(parents=True)
    with pytest.raises(pytest.fail.Exception, match="it began"):
        world.trained(world.train_run(tmp_path), target, processor, finished)
    checkpoint.mkdir()  # it was damaged, and so removed
    with pytest.raises(OtherTargetError, match=r"another training \(recipe differ\)"):
        world.trained(world.train_run(tmp_path, "vispec", "stages.0.kv_loss_weight=1"), target, processor, finished)


@pytest.mark.parametrize(("text", "match"), [("{", r"run.json: damaged"), (None, r"run.json is missing")])
def test_a_work_folder_that_cannot_be_read_is_named(finished, tmp_path, target, processor, no_step, text, match):
    (tmp_path / "work" / "0-text" / "checkpoint-1").mkdir(parents=True)
    if text is not None:
        (tmp_path / "work" / "run.json").write_text(text)
    with pytest.raises(OtherTargetError, match=match):
        world.trained(world.train_run(tmp_path), target, processor, finished)


def test_a_result_does_not_replace_something_else(finished, tmp_path, target, processor, no_step):
    (tmp_path / "drafter").mkdir()
    (tmp_path / "drafter" / "thesis.tex").write_text("mine")
    with pytest.raises(FolderInUseError, match="give a new folder with --out"):
        world.trained(world.train_run(tmp_path), target, processor, finished)


@pytest.mark.parametrize(
    ("changes", "accumulate", "error", "match"),
    [
        (["stages.1.batch_size=3"], 2, ValueError, "'multimodal': a batch of 3 records cannot be shared"),
        (["stages.1.records=text"], 1, RecipeError, "'multimodal' trains on records of kind 'text', but the data"),
    ],
)
def test_a_later_stage_that_cannot_be_is_refused_before_the_first(
    tmp_path, target, processor, no_step, changes, accumulate, error, match
):
    table = world.write_table(tmp_path / "table")
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    world.answered(
        world.write_rows(tmp_path / "table", [row for row in rows if row["image"]]), tmp_path / "a", target, processor
    )
    with pytest.raises(error, match=match):
        world.trained(
            world.train_run(tmp_path, "vispec", *changes, accumulate=accumulate), target, processor, tmp_path / "a"
        )


def break_pictures(folder):
    """Ways in which a file is no picture; `bomb.png` says in its header that it has two billion pixels."""
    whole = (folder / "0.png").read_bytes()
    (folder / "broken.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("What a lovely picture.")
    (folder / "empty.png").write_bytes(b"")
    bomb = bytearray(whole)
    bomb[16:24] = (60000).to_bytes(4, "big") + (40000).to_bytes(4, "big")
    (folder / "bomb.png").write_bytes(bytes(bomb))


UNUSABLE = [
    *({"prompt": "What?", "image": f"{name}.png"} for name in ("broken", "text", "empty", "bomb")),
    {"prompt": "What?", "image": "nowhere.png"},
    {"prompt": "What does <image> mean?", "image": "1.png"},
    {"prompt": "What does <image> mean?", "image": None},
    {"prompt": "", "image": None},
    {"prompt": "  ", "image": "1.png"},
    {"prompt": "long " * 100, "image": None},
]
REASONS = {
    "broken picture": 4,
    "picture missing": 1,
    "a placeholder's own text in the prompt": 2,
    "no prompt": 2,
    "prompt too long": 1,
}


@pytest.fixture
def bad_table(tmp_path):
    """Ten prompts that cannot be used among 34."""
    folder = world.write_table(tmp_path / "table").parent
    break_pictures(folder)
    rows = [json.loads(line) for line in (folder / "prompts.jsonl").read_text().splitlines()]
    return world.write_rows(folder, [*UNUSABLE[:5], *rows, *UNUSABLE[5:]])


def test_unusable_prompts_are_counted_by_reason(bad_table, tmp_path, target, processor):
    said = world.answered(bad_table, tmp_path / "a", target, processor, max_skipped=0.5, max_length=320)
    assert {line for line in said if "left out" in line} == {
        f"{count} samples were left out: {reason}" for reason, count in REASONS.items()
    }
    assert len(AnswerSet.load(tmp_path / "a").rows) == world.PROMPTS


def test_too_many_unusable_prompts_end_it_and_nothing_is_lost(bad_table, tmp_path, target, processor, monkeypatch):
    with pytest.raises(TooManySkippedError, match=r"10 of 34 samples .*\(4 x broken picture.*max-skipped"):
        world.answered(bad_table, tmp_path / "a", target, processor, max_skipped=0.25, max_length=320)
    assert len(AnswerSet.load(tmp_path / "a").rows) == world.PROMPTS
    monkeypatch.setattr(type(target), "generate", lambda *_, **__: pytest.fail("answered again"))
    world.answered(bad_table, tmp_path / "a", target, processor, max_skipped=0.5, max_length=320)


def test_few_unusable_prompts_at_the_begin_end_nothing(bad_table, tmp_path, target, processor):
    """The first five are all unusable: with prompts asked one by one, that is all there is so far."""
    world.answered(bad_table, tmp_path / "a", target, processor, max_skipped=0.3, max_length=320, shard_size=1)
    assert len(AnswerSet.load(tmp_path / "a").rows) == world.PROMPTS


def test_of_few_samples_the_share_counts_too(tmp_path, target, processor):
    table = world.write_rows(tmp_path, [{"prompt": "<image>"}] * 3 + [{"prompt": "What?"}])
    with pytest.raises(TooManySkippedError, match="3 of 4"):
        world.answered(table, tmp_path / "a", target, processor)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ([1], "empty answer"),
        ([9], "empty answer"),
        ([9, 3, 9, 1], "an image token in the answer"),
        ([9] * 9, "answer too long"),
    ],
)
def test_answers_that_teach_nothing_are_counted(tmp_path, target, processor, monkeypatch, said, reason):
    table = world.write_rows(tmp_path, [{"prompt": "abc"}] * 3)
    length = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "text", "text": "abc"}]}],
        tokenize=True, add_generation_prompt=True, return_dict=True, processor_kwargs={"return_tensors": "pt"},
    )["input_ids"].shape[1]  # fmt: skip

    def speak(self, input_ids, **_):
        return torch.cat([input_ids, torch.tensor([said]).expand(len(input_ids), -1)], dim=1)

    monkeypatch.setattr(type(target), "generate", speak)
    told = []
    run = world.distil_run(table, tmp_path / "a", max_skipped=1.0, max_length=length + 8)
    world.distil(run, target, processor, told.append)
    assert f"3 samples were left out: {reason}" in told


def test_what_the_chat_template_refuses_is_counted(tmp_path, target):
    """Templates raise an error of their own, for example where a role has no place in them."""
    processor = tiny_processor()
    refuse = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    processor.chat_template = refuse + processor.chat_template
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What?"}]
    table = world.write_rows(tmp_path, [{"messages": asked}, *({"messages": asked[1:]} for _ in range(5))])
    said = world.answered(table, tmp_path / "a", target, processor)
    assert "1 samples were left out: the processor refuses it" in said
    assert len(AnswerSet.load(tmp_path / "a").rows) == 5


def remove_pictures(folder):
    for file in folder.glob("*.png"):
        file.unlink()


def test_a_picture_that_is_gone_is_named(tmp_path, target, processor):
    """Live reading opens pictures again."""
    table = world.write_table(tmp_path / "table")
    world.answered(table, tmp_path / "a", target, processor)
    remove_pictures(table.parent)
    with pytest.raises(PictureError, match=r"5 of 5 pictures are gone, such as .*0.png.*put them back, or distil"):
        world.trained(world.train_run(tmp_path), target, processor, tmp_path / "a")


@pytest.mark.parametrize(("features", "changes"), [("live", []), ("stored", ["stages.1.on_policy={}"])])
def test_a_picture_that_only_training_needs_is_missed_before_it_begins(
    tmp_path, target, processor, no_step, features, changes
):
    """Whether records are read on the fly, or the drafter's own proposals are."""
    table = world.write_table(tmp_path / "table", 9)
    rows = [{"prompt": f"What is {number}?", "image": f"{number}.png"} for number in range(9)]
    for row in rows:
        Image.new("RGB", (40, 30)).save(table.parent / row["image"])
    world.answered(
        world.write_rows(table.parent, rows), tmp_path / "a", target, processor, keep=world.recipe("vispec")
    )
    run = world.train_run(tmp_path, "vispec", *changes, features=features)
    training, _ = sources(run, target, processor, [AnswerSet.load(tmp_path / "a")], [])
    Path(training.column("images")[0][0]["path"]).unlink()
    with pytest.raises(PictureError, match="1 of 6 pictures are gone"):
        world.trained(run, target, processor, tmp_path / "a")


def test_stored_states_need_no_picture_but_the_held_out_ones(tmp_path, target, processor):
    table = world.write_table(tmp_path / "table")
    world.answered(table, tmp_path / "a", target, processor, keep=world.recipe("vispec"))
    val = world.write_rows(tmp_path / "val", [{"prompt": f"And {number}?"} for number in range(4)])
    world.answered(val, tmp_path / "v", target, processor)
    remove_pictures(table.parent)
    run = world.train_run(tmp_path, features="stored")
    world.trained(run, target, processor, tmp_path / "a", validation=[AnswerSet.load(tmp_path / "v")])
    assert (run.out / "model.safetensors").exists()


def test_states_that_are_not_stored_are_said_to_be(finished, tmp_path, target, processor, no_step):
    with pytest.raises(NoRecordsError, match=r"distil with --features, or read them on the fly \(--features live\)"):
        world.trained(world.train_run(tmp_path, features="stored"), target, processor, finished)


@pytest.fixture(scope="session")
def eight(tmp_path_factory, target, processor):
    """Eight prompts with a picture, about 240 tokens of which 144 are visual, and answers of five tokens."""
    folder = tmp_path_factory.mktemp("eight")
    Image.new("RGB", (40, 30), "red").save(folder / "0.png")
    table = world.write_rows(folder, [{"prompt": f"What is {n}?", "image": "0.png", "id": str(n)} for n in range(8)])
    world.answered(table, folder / "a", target, processor, how=Answering(0.0, 5))
    return folder / "a"


@pytest.mark.parametrize(("which", "reason"), [("picture", "a picture is cut"), ("answer", "the answer is cut")])
def test_a_length_limit_that_leaves_nothing_is_an_error(eight, tmp_path, target, processor, no_step, which, reason):
    row = AnswerSet.load(eight).rows[0]
    assert row["input_ids"].count(3) == 144 and len(row["input_ids"]) == row["prompt_length"] + 5
    length = {"picture": 150, "answer": row["prompt_length"] + 1}[which]
    with pytest.raises(NoRecordsError, match=rf"none of 8 answers.*\(8 x {reason} by the length limit\): raise"):
        world.trained(world.train_run(tmp_path, max_length=length), target, processor, eight)


@pytest.mark.parametrize("more", [2, 3, 99])
def test_a_length_limit_cuts_answers(eight, tmp_path, target, processor, more):
    prompt = AnswerSet.load(eight).rows[0]["prompt_length"]
    run = world.train_run(tmp_path, "eagle", max_length=prompt + more, held_out=2)
    said = world.trained(run, target, processor, eight)
    kept = min(more, 5)
    assert any(
        line.startswith(f"6 answers, {6 * (kept - 1)} tokens of {6 * (prompt + kept)} supervised") for line in said
    )


def test_what_a_length_limit_leaves_out_is_counted(eight, finished, tmp_path, target, processor):
    run = world.train_run(tmp_path, "eagle", max_length=150)
    said = world.trained(run, target, processor, eight, finished)
    assert "24 answers are left out: a picture is cut by the length limit" in said


def test_answers_outside_the_draft_vocabulary_are_left_out(answers, tmp_path, target, processor, no_step):
    """One answer is of other tokens than all the rest; by itself in a batch, it would have no loss."""
    manifest = {key: value for key, value in AnswerSet.load(answers).manifest.items() if key != "format"}
    rows = [
        {**row, "input_ids": row["input_ids"][: row["prompt_length"]] + [200 if row["key"] == "5/p5" else 100] * 9}
        for row in AnswerSet.load(answers).rows.to_list()
    ]
    shutil.rmtree(answers)
    AnswerStore.open(answers, manifest).write(0, rows, Counter())
    said = []
    run = world.train_run(tmp_path, "vispec", "drafter.draft_vocab_size=1")
    with pytest.raises(pytest.fail.Exception, match="it began"):
        world.train(run, target, processor, [AnswerSet.load(answers)], say=said.append)
    assert "1 answers are left out: no token of the draft vocabulary in the answer" in said
