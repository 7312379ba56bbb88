"""Quantised targets teach like any other: states on the fly and from disk are the same, and weights stay packed."""

import json
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig

import hf_mmspec
from hf_mmspec.data import Source, model_inputs, open_source
from hf_mmspec.modeling import EagleDrafter
from hf_mmspec.quantise import quantisation_of
from hf_mmspec.training.answers.answering import Answering
from hf_mmspec.training.answers.store import AnswerSet
from hf_mmspec.training.distil import DistilRun, distil
from hf_mmspec.training.features.reading import Reader
from hf_mmspec.training.features.source import NoRecordsError, RecordSource
from hf_mmspec.training.learning.target_parts import TargetParts
from hf_mmspec.training.recipes import family_recipe, read_recipe
from hf_mmspec.training.train import Run, other_weights, train
from tests.evaluation.tiny import tiny_processor, tiny_target
from tests.generation import packed
from tests.slow_parameters import others_slow

pytest.importorskip("bitsandbytes")
SKIPPED = {"llm_int8_skip_modules": ["model.vision_tower", "model.multi_modal_projector", "lm_head"]}
CONFIGS = {
    "nf4": BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32, **SKIPPED
    ),
    "int8": BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0, **SKIPPED),
}
# the kernels of processors take rows in blocks of 32
SIZES = {"hidden_size": 64, "intermediate_size": 128}


@pytest.fixture
def quantised(request, tmp_path):
    """As a user has it: a folder whose config says that it is quantised."""
    tiny_target(**SIZES).save_pretrained(tmp_path / "full")
    config = {"quantization_config": CONFIGS[request.param], "dtype": torch.float32}
    AutoModelForImageTextToText.from_pretrained(tmp_path / "full", **config).save_pretrained(tmp_path / "target")
    tiny_processor().save_pretrained(tmp_path / "target")
    target = AutoModelForImageTextToText.from_pretrained(tmp_path / "target").eval()
    return target, AutoProcessor.from_pretrained(tmp_path / "target")


def losses(folder):
    states = max(folder.rglob("trainer_state.json"), key=lambda path: int(path.parent.name.partition("-")[2]))
    return [entry["loss"] for entry in json.loads(states.read_text())["log_history"] if "loss" in entry]


@pytest.mark.parametrize("quantised", others_slow(CONFIGS, ["nf4"]), indirect=True)
def test_a_quantised_target_is_distilled_and_its_drafter_drafts(quantised, tmp_path):
    target, processor = quantised
    inputs = model_inputs(processor, [open_source(Source("embedded", split="test", limit=1))[0]])
    target.generate(
        **inputs, max_new_tokens=2
    )  # bitsandbytes packs weights for the processor's kernels when it decodes
    before = target(**inputs).logits
    assert quantisation_of(target) is not None
    changes = ["stages.0.epochs=1", "stages.0.batch_size=8", "evaluations=1", "stages.0.noise=0"]
    recipe = read_recipe(family_recipe("eagle2"), changes)
    source = Source("embedded", limit=18)
    found = {}
    for name, keep in (("live", None), ("stored", recipe)):
        run = DistilRun(source, tmp_path / name, "tiny", Answering(0.0, 12), keep=keep, shard_size=9)
        answers = AnswerSet.load(distil(run, target, processor, say=lambda _: None))
        out = tmp_path / f"drafter-{name}"
        options = {"disable_tqdm": True, "logging_steps": 1}
        run = Run(recipe, out, tmp_path / f"work-{name}", "tiny", held_out=3, max_new_tokens=8, trainer=options)
        train(run, target, processor, [answers], say=lambda _: None)
        found[name] = losses(tmp_path / f"work-{name}")
    assert len(found["live"]) == 2
    assert found["live"] == pytest.approx(found["stored"], rel=1e-4)
    assert torch.equal(target(**inputs).logits, before)

    said = json.loads((tmp_path / "drafter-live" / "training.json").read_text())
    assert said["target_quantization"] == said["data"][0]["target_quantization"] == quantisation_of(target)
    assert f"for tiny in {quantisation_of(target)}:" in (tmp_path / "drafter-live" / "README.md").read_text()

    drafter = hf_mmspec.AutoDrafter.from_pretrained(tmp_path / "drafter-live")
    plain = target.generate(**inputs, do_sample=False, max_new_tokens=16)
    assert torch.equal(plain, target.generate(**inputs, do_sample=False, max_new_tokens=16, assistant_model=drafter))


@pytest.mark.parametrize("quantised", others_slow(CONFIGS, ["int8"]), indirect=True)
def test_states_of_the_full_target_are_not_those_of_the_quantised_one(quantised, tmp_path):
    """Answers of the full target may be learned from, with hidden states read anew."""
    target, processor = quantised
    full = AutoModelForImageTextToText.from_pretrained(tmp_path / "full").eval()
    run = DistilRun(Source("embedded", limit=3), tmp_path / "answers", "tiny", Answering(0.0, 6))
    run = replace(run, keep=read_recipe(family_recipe("eagle2"), []))
    answers = AnswerSet.load(distil(run, full, processor, say=lambda _: None))
    assert list(other_weights(full, [answers])) == []
    assert quantisation_of(target) in next(other_weights(target, [answers]))
    for model, is_stored in ((full, True), (target, False)):
        assert RecordSource.open([answers], Reader(model, processor)).is_stored is is_stored
    with pytest.raises(NoRecordsError, match=r"unquantised, not bitsandbytes.*--features live"):
        RecordSource.open([answers], Reader(target, processor), "stored")


@pytest.mark.parametrize("form", ["nf4", "int8"])
def test_a_drafter_learns_through_a_packed_head(tmp_path, form):
    """The kernels of processors have no backward pass; what the target says is still asked of the packed head."""
    packed.save_full("llava", tmp_path, vocab_size=128)
    skip = [name for name in packed.SKIPPED if name != "lm_head"]
    target = packed.load(tmp_path, form, skip=skip)
    states = torch.randn(4, 64)
    with torch.no_grad():
        said = target.lm_head(states)
    drafter = EagleDrafter.from_target(target)
    parts = TargetParts.of(target, drafter)
    assert torch.equal(parts.logits(states), said)
    states.requires_grad_(True)
    logits = drafter.draft_logits(states, parts.borrowed)
    assert (logits - said).norm() < 0.02 * said.norm()
    logits[:, 5].sum().backward()
    assert states.grad is not None and states.grad.norm() > 0.5 * states.grad[0].norm()
    torch.testing.assert_close(states.grad[0], states.grad[3])
