"""Drafters of a run: their names, and that a blind one neither sees images nor costs memory."""

import json

import pytest
import torch

from hf_mmspec.evaluation.contenders import STOCK, Contender, answer
from hf_mmspec.evaluation.drafters import Entry, load_drafters, name_drafters, without_images
from hf_mmspec.evaluation.prompts import collect_prompts, open_data
from hf_mmspec.modeling import Drafter, DrafterMismatchError, EagleDrafter, FlashDrafter, MSDDrafter, TargetPrompt
from tests.evaluation.tiny import tiny_drafter

BUDGET = {"draft_depth": 3, "draft_top_k": 2, "draft_total_tokens": 7}


@pytest.fixture(scope="module")
def prompt(target, processor):
    return collect_prompts(target, processor, open_data(["embedded:scene"], 1), 1).by_task["scene"][0]


def config_of(folder, family):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": family}))
    return str(folder)


def test_names_are_families_or_folders_where_a_family_comes_twice(tmp_path):
    one, two = config_of(tmp_path / "one", "vispec"), config_of(tmp_path / "two", "vispec")
    same, other = config_of(tmp_path / "x" / "one", "vispec"), config_of(tmp_path / "three", "msd")
    assert [entry.name for entry in name_drafters([one])] == ["vispec"]
    assert [entry.name for entry in name_drafters([one, two, other])] == ["one", "two", "msd"]
    assert [entry.name for entry in name_drafters([one, same])] == ["one", "one-2"]
    loop = config_of(tmp_path / "loop", "vispec")
    assert [entry.name for entry in name_drafters([one, loop])] == ["one", "loop-2"]  # a baseline has that name


def test_blind_ones_and_text_only_ones_are_entered_without_images(tmp_path):
    vispec, eagle = config_of(tmp_path / "v", "vispec"), config_of(tmp_path / "e", "eagle")
    assert name_drafters([vispec], [eagle], blind=True) == [
        Entry("vispec", vispec),
        Entry("eagle without images", eagle, True),
        Entry("vispec without images", vispec, True),
    ]


@pytest.mark.parametrize(
    "family", [tiny_drafter, EagleDrafter.from_target, MSDDrafter.from_target, FlashDrafter.from_target]
)
def test_a_blind_drafter_does_not_see_the_image_and_changes_no_answer(target, prompt, family):
    torch.manual_seed(0)
    drafter = family(target, initializer_range=0.3)
    blind = without_images(drafter)
    expected = answer(target, prompt.inputs, Contender(STOCK), 12).tokens
    run = answer(target, prompt.inputs, Contender("blind", {"assistant_model": blind, **BUDGET}), 12)
    assert run.tokens == expected and run.speculation.rounds > 0

    def drafted(drafter, image):
        embeds, features = (
            torch.randn(1, 20, 32, generator=generator(1)),
            torch.randn(1, 20, 32, generator=generator(2)),
        )
        embeds[:, 4:14] = features[:, 4:14] = image
        state = drafter.prefill(
            TargetPrompt(None, embeds, features, [(4, 14)]), torch.tensor([7]), drafter.bind(target)
        )
        return state.last_hidden

    def generator(seed):
        return torch.Generator().manual_seed(seed)

    assert torch.equal(drafted(blind, 0.0), drafted(blind, 3.0))
    assert not torch.allclose(drafted(drafter, 0.0), drafted(drafter, 3.0))
    assert blind.fc_gate is drafter.fc_gate if isinstance(drafter, FlashDrafter) else blind.fc is drafter.fc


def test_loading_once_serves_both_entries(target, drafter, tmp_path):
    drafter.save_pretrained(tmp_path / "d")
    source = str(tmp_path / "d")
    loaded = load_drafters([Entry("sees", source), Entry("blind", source, True)], target)
    assert list(loaded) == ["sees", "blind"] and loaded["sees"].fc is loaded["blind"].fc
    assert loaded["sees"].image_adaptor is not loaded["blind"].image_adaptor


def test_what_does_not_fit_or_cannot_be_blinded_is_refused(target, drafter, tmp_path):
    drafter.save_pretrained(tmp_path / "d")
    config = json.loads((tmp_path / "d" / "config.json").read_text())
    (tmp_path / "d" / "config.json").write_text(json.dumps({**config, "target_model_type": "mllama"}))
    with pytest.raises(DrafterMismatchError):
        load_drafters([Entry("a", str(tmp_path / "d"))], target)
    with pytest.raises(ValueError, match="cannot be hidden"):
        without_images(Drafter(drafter.config))
