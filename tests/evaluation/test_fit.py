"""A check of drafter and target: each line from models made so, not from words."""

import copy
import math

import pytest
import torch
from transformers import AutoConfig

from hf_mmspec.data import model_inputs
from hf_mmspec.evaluation.fit import FAIL, OK, WARN
from hf_mmspec.evaluation.fit.configs import compare_configs, drafter_config, target_config
from hf_mmspec.evaluation.fit.speed import describe, expected_speed
from hf_mmspec.evaluation.fit.trial import TOKENS, Trial, _judge, picture, prompts, report_trials, try_out
from hf_mmspec.evaluation.fit.weights import compare_weights
from hf_mmspec.evaluation.identity import Difference
from hf_mmspec.evaluation.prompts import to_target
from hf_mmspec.generation.budget import Forecast
from hf_mmspec.modeling import DraftBudget, Eagle3Config
from tests.evaluation.tiny import tiny_drafter, tiny_processor, tiny_target
from tests.generation.doubles import OracleDrafter
from tests.hub import published


@pytest.fixture(scope="module")
def target():
    return tiny_target()


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.fixture
def drafter(target):
    return tiny_drafter(target)


def verdicts(findings):
    return {each.check: each.verdict for each in findings}


def only(verdict, findings):
    """The one finding with this verdict."""
    (found,) = [each for each in findings if each.verdict == verdict]
    return found


# ---- configs --------------------------------------------------------------------------------------------------------


def test_a_fitting_pair_has_nothing_to_say_against_it(target, drafter):
    found = compare_configs(drafter.config, target.config)
    assert set(verdicts(found)) == {"family", "sizes", "vocabulary", "layers", "attention", "positions", "images"}
    assert {each.verdict for each in found} == {OK} and not any(each.advice for each in found)
    assert next(each.found for each in found if each.check == "sizes") == "hidden size 32; target 32"


@pytest.mark.parametrize(
    ("check", "change", "words"),
    [
        ("family", lambda config: setattr(config, "target_model_type", "qwen2_vl"), "made for targets of type"),
        ("sizes", lambda config: setattr(config, "hidden_size", 3584), "made for another target"),
        ("vocabulary", lambda config: setattr(config, "vocab_size", 999), "made for another tokenizer"),
        ("vocabulary", lambda config: setattr(config, "real_vocab_size", 999), "made for another tokenizer"),
    ],
)
def test_what_does_not_fit_is_named(target, drafter, check, change, words):
    config = copy.deepcopy(drafter.config)
    change(config)
    found = only(FAIL, compare_configs(config, target.config))
    assert found.check == check and words in found.advice


def test_another_padding_of_the_vocabulary_warns(target, drafter):
    config = copy.deepcopy(drafter.config)
    config.real_vocab_size, config.vocab_size = 250, 256
    assert only(WARN, compare_configs(config, target.config)).check == "vocabulary"


@pytest.mark.parametrize(("taps", "verdict"), [([0, 1], OK), ([0, 2], FAIL), (None, FAIL)])
def test_layers_must_be_there(target, taps, verdict):
    fields = {"vocab_size": 260, "hidden_size": 32, "num_attention_heads": 4, "feature_layers": taps}
    assert verdicts(compare_configs(Eagle3Config(**fields), target.config))["layers"] == verdict


def text_with(target, **fields):
    config = copy.deepcopy(target.config)
    for name, value in fields.items():
        setattr(config.text_config, name, value)
    return config


def test_positions_beyond_the_drafters_warn(target, drafter):
    found = only(WARN, compare_configs(drafter.config, text_with(target, max_position_embeddings=100_000)))
    assert found.check == "positions" and str(drafter.config.max_position_embeddings) in found.advice
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    found = only(WARN, compare_configs(drafter.config, text_with(target, rope_parameters=rope)))
    assert found.check == "positions" and "nothing is drafted" in found.advice


def test_layers_that_take_no_tree_are_named(target, drafter):
    config = text_with(target, layer_types=["full_attention", "linear_attention"])
    assert only(FAIL, compare_configs(drafter.config, config)).check == "attention"
    config = copy.deepcopy(target.config)
    config.is_encoder_decoder = True
    assert only(FAIL, compare_configs(drafter.config, config)).found == "encoder-decoder"


def test_another_placeholder_warns(target, drafter):
    config = copy.deepcopy(drafter.config)
    config.image_token_id = 7
    assert only(WARN, compare_configs(config, target.config)).check == "images"


def test_the_config_of_an_authors_checkpoint_comes_without_its_weights(tmp_path):
    made = published.vispec()
    folder = published.save(tmp_path / "theirs", made.config, made.tensors())
    config = drafter_config(str(folder))
    assert (config.model_type, config.hidden_size) == ("vispec", published.HIDDEN)


def test_the_embedded_targets_config_is_that_of_its_folder(target, tmp_path, monkeypatch):
    target.config.save_pretrained(tmp_path)
    monkeypatch.setattr("hf_mmspec.evaluation.fit.configs.ensure_merged", lambda: tmp_path)
    assert target_config(None).to_dict() == AutoConfig.from_pretrained(tmp_path).to_dict()


# ---- weights --------------------------------------------------------------------------------------------------------


def test_weights_of_a_fitting_pair(target, drafter):
    found = compare_weights(drafter, target, torch.float32)
    assert verdicts(found) == {"head": OK, "fingerprint": OK, "dtype": OK, "weights": OK}


def test_weights_of_another_training_warn(target, drafter):
    assert verdicts(compare_weights(drafter, tiny_target(seed=1), torch.float32))["fingerprint"] == WARN
    drafter.config.target_fingerprint = None
    assert verdicts(compare_weights(drafter, target, torch.float32))["fingerprint"] == WARN


def test_weights_that_are_no_numbers_fail(target, drafter):
    name, weight = next(iter(drafter.named_parameters()))
    weight.data.flatten()[0] = math.inf
    found = only(FAIL, compare_weights(drafter, target, torch.float32))
    assert found.check == "weights" and name in found.found


def test_rounded_weights_are_looked_at_too(target, drafter):
    """An int8 layer has buffers in place of parameters."""
    broken = copy.deepcopy(drafter)
    next(each for each in broken.modules() if isinstance(each, torch.nn.Linear)).weight.data[0, 0] = math.nan
    assert only(FAIL, compare_weights(broken.int8(), target, torch.float32)).check == "weights"


def test_half_precision_warns_where_the_file_is_wider(target, drafter):
    half = copy.deepcopy(target).half()
    assert verdicts(compare_weights(drafter, half, torch.bfloat16))["dtype"] == WARN
    assert verdicts(compare_weights(drafter, half, torch.float16))["dtype"] == OK


def test_a_target_without_a_head_ends_the_comparison(target, drafter):
    (found,) = compare_weights(drafter, target.model.language_model, torch.float32)
    assert found.check == "head" and found.verdict == FAIL


# ---- the trial ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inputs(target, processor):
    return {
        name: to_target(model_inputs(processor, [conversation]), target)
        for name, conversation in prompts(target, processor).items()
    }


def test_prompts_with_and_without_a_picture(target, processor, inputs):
    assert {name: int((each["input_ids"] == 3).sum()) for name, each in inputs.items()} == {"text": 0, "picture": 144}
    assert list(prompts(target, processor.tokenizer)) == ["text"]
    assert len(picture().getcolors(2**16)) > 200


def test_an_oracle_is_seen_to_draft_and_to_change_nothing(target, inputs):
    alone = target.generate(**inputs["text"], do_sample=False, max_new_tokens=TOKENS)
    tokens = alone[0, inputs["text"]["input_ids"].shape[1] :].tolist()
    oracle = OracleDrafter(target, tokens)
    found = try_out(oracle, target, inputs["text"])
    assert found.tokens == len(tokens) and found.length > 3 and found.difference is None and found.broken is None
    assert "draft_logits" not in vars(oracle)


def test_trials_of_a_random_drafter_warn_about_speed_and_not_about_tokens(target, processor, drafter):
    found = verdicts(report_trials(drafter, target, processor))
    assert list(found) == ["self-test, text", "lossless, text", "self-test, picture", "lossless, picture"]
    assert found["lossless, text"] == found["lossless, picture"] == OK


def test_targets_and_drafters_that_are_not_finite_fail(target, processor, drafter):
    broken = copy.deepcopy(target)
    broken.lm_head.weight.data[5] = math.nan
    assert "logits of the target" in next(iter(report_trials(drafter, broken, processor))).found
    drafter.fc.weight.data[5] = math.nan
    assert "logits of the drafter" in next(iter(report_trials(drafter, target, processor))).found


def test_a_pair_that_generate_refuses_fails(target, processor, drafter):
    beams = copy.deepcopy(target)
    beams.generation_config.num_beams = 2
    (found,) = report_trials(drafter, beams, processor)
    assert found.verdict == FAIL and "num_beams=1" in found.advice


def test_a_processor_that_refuses_the_prompt_is_no_misfit(target, drafter):
    silent = tiny_processor()
    silent.chat_template = silent.tokenizer.chat_template = None
    found = list(report_trials(drafter, target, silent))
    assert [each.verdict for each in found] == [WARN, WARN] and "template" in found[0].advice


@pytest.mark.parametrize(
    ("trial", "expected"),
    [
        (Trial(20, 3.0, None, None), [OK, OK]),
        (Trial(20, 1.0, None, None), [WARN, OK]),
        (Trial(20, 3.0, Difference(7, (1, 2), 0.125, 0.25), None), [OK, OK]),
        (Trial(20, 3.0, Difference(7, (1, 2), 0.5, 0.25), None), [OK, FAIL]),
        (Trial(1, math.nan, None, None), [WARN]),
    ],
)
def test_what_a_trial_means(trial, expected):
    assert [each.verdict for each in _judge("self-test, text", trial)] == expected


# ---- speed ----------------------------------------------------------------------------------------------------------


def test_speed_is_promised_from_acceptance_and_costs():
    found = describe(Forecast(DraftBudget(6, 4, 20), 4.5, 1.25, 2.96), acceptance_is_recorded=True)
    assert (found.verdict, found.found.partition(" times")[0]) == (OK, "about 3.0")
    assert "L 4.50, v 1.25" in found.found
    assert describe(Forecast(DraftBudget(6, 4, 20), 4.5, 1.25, 2.96), acceptance_is_recorded=False).verdict == WARN
    assert "without drafting" in describe(Forecast(DraftBudget(0, 1, 1), 1.0, 1.0, 1.0), True).advice


def test_speed_of_loaded_models_is_measured(target, drafter):
    drafter.config.acceptance_by_depth = [0.9, 0.9]
    assert expected_speed(drafter, target).check == "expected speed"
