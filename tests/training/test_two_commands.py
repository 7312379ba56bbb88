"""From a folder of pictures to a drafter of every family by two commands, for two kinds of target."""

import json
from itertools import product

import datasets
import pytest
import torch
from typer.testing import CliRunner

import hf_mmspec
from hf_mmspec.cli import app
from hf_mmspec.data import Source, model_inputs, open_source
from hf_mmspec.evaluation import loading
from tests.evaluation.tiny import tiny_processor, tiny_target
from tests.slow_parameters import others_slow
from tests.training.pictures import picture_folder
from tests.training.tiny_qwen import qwen_processor, qwen_target

TARGETS = ("llava", "qwen")
FEW_STEPS = ["--set", "stages.*.batch_size=8", "--set", "stages.*.epochs=0.5", "--set", "evaluations=1"]
SHORT = ["--max-new-tokens", "12"]
TAPS = ["--set", "drafter.feature_layers=[0,1]"]  # a tiny target has no three layers apart
FAMILIES = {
    "vispec": [],
    "msd": [],
    "flash": ["--set", "drafter.num_latents=4"],
    "eagle2": [],
    "eagle3": TAPS,
    "narrow eagle3": [*TAPS, "--set", "drafter.hidden_size=16"],
}


@pytest.fixture(scope="module")
def models():
    processor = qwen_processor()
    return {"llava": (tiny_target(), tiny_processor()), "qwen": (qwen_target(processor), processor)}


@pytest.fixture(scope="module")
def place(tmp_path_factory, models):
    """A folder of pictures, and the answers of both targets to its prompts."""
    folder = tmp_path_factory.mktemp("training")
    picture_folder(folder / "pictures", count=20)
    for name in TARGETS:
        call(models[name], "distil", "--data", folder / "pictures", "--max-new-tokens", 12, "--out", folder / name)
    return folder


def call(model, *arguments):
    """Run `mmspec`, which finds `model` whatever is asked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load_target", lambda *_: model)
        result = CliRunner().invoke(app, [str(each) for each in (*arguments, "--model", "a-model")])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_answers_are_a_data_set(place, models):
    for name in TARGETS:
        answers = datasets.load_from_disk(str(place / name))
        assert len(answers) == 20
        assert answers.unique("task") == ["shapes", "colours"]
        assert sum(len(row) for row in answers["images"]) == 16
        target, processor = models[name]
        row = answers[0]
        alone = model_inputs(processor, [open_source(Source(str(place / "pictures")))[0]])
        plain = target.generate(**alone, do_sample=False, max_new_tokens=12)[0].tolist()
        assert plain[: len(row["input_ids"])] == row["input_ids"]


@pytest.mark.parametrize(
    "family, name",
    others_slow(product(FAMILIES, TARGETS), [*product(FAMILIES, ["llava"]), ("vispec", "qwen"), ("eagle3", "qwen")]),
)
def test_every_family_is_trained_and_drafts_losslessly(place, models, name, family):
    out = place / f"{name}-{family.replace(' ', '-')}"
    printed = call(
        models[name],
        *("train", "--family", family.split()[-1], "--data", place / name, "--out", out, "--held-out", 4),
        *(*FEW_STEPS, *FAMILIES[family], *SHORT),
    )
    assert "outside the draft vocabulary" in printed
    target, processor = models[name]
    drafter = hf_mmspec.AutoDrafter.from_pretrained(out, dtype=target.dtype)
    assert drafter.config.acceptance_by_rank
    for number in (3, 4):  # with a picture and without
        inputs = model_inputs(processor, [open_source(Source(str(place / "pictures")))[number]])
        plain = target.generate(**inputs, do_sample=False, max_new_tokens=24)
        drafted = target.generate(**inputs, do_sample=False, max_new_tokens=24, assistant_model=drafter)
        assert torch.equal(plain, drafted)


def test_the_folder_says_what_made_it(place, models):
    out = place / "card"
    call(models["llava"], "train", "--family", "msd", "--data", place / "llava", "--out", out, *FEW_STEPS, *SHORT)
    made_by = json.loads((out / "training.json").read_text())
    assert made_by["recipe"]["family"] == "msd"
    assert made_by["data"][0]["answers"] == 20
    assert made_by["data"][0]["fingerprint"]
    assert made_by["provenance"]["packages"]["torch"] == torch.__version__
    assert str(place) not in (out / "training.json").read_text() + (out / "README.md").read_text()
    assert f"| all | {made_by['results']['acceptance_length']:.2f} |" in (out / "README.md").read_text()


def test_the_same_again_changes_nothing(place, models):
    """A second call finds the result of the first one's stages and trains nothing."""
    out, arguments = place / "again", ["train", "--family", "eagle2", "--data", place / "llava", *FEW_STEPS, *SHORT]
    call(models["llava"], *arguments, "--out", out)
    before = (out / "model.safetensors").read_bytes()
    states = {path: path.read_text() for path in (place / "again-work").rglob("trainer_state.json")}
    call(models["llava"], *arguments, "--out", out)
    assert (out / "model.safetensors").read_bytes() == before
    assert {path: path.read_text() for path in (place / "again-work").rglob("trainer_state.json")} == states


def test_a_training_starts_from_another_drafter(place, models):
    """Its weights are taken, the folder and the card say so, and one folder of checkpoints is of one start."""
    first, second = place / "first", place / "second"
    arguments = ["train", "--data", place / "llava", *FEW_STEPS, *SHORT, "--set", "drafter.draft_vocab_size=30"]
    call(models["llava"], *arguments, "--family", "eagle2", "--out", first)
    still = ["--set", "stages.*.learning_rate=0", "--start-from", first]
    printed = call(models["llava"], *arguments, *still, "--family", "msd", "--out", second)
    assert "of the weights from" in printed and "closed-form" not in printed
    taken, own = (hf_mmspec.AutoDrafter.from_pretrained(folder) for folder in (first, second))
    assert torch.equal(own.fc.weight, taken.fc.weight) and torch.equal(own.lm_head.weight, taken.lm_head.weight)
    assert json.loads((second / "training.json").read_text())["start"] == "first"
    assert "Its first weights are those of first, where they fit." in (second / "README.md").read_text()
    with pytest.raises(AssertionError, match=r"checkpoints of another training .*start differ"):
        call(models["llava"], *arguments, *still[:-2], "--family", "msd", "--out", second)
