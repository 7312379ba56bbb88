"""The papers' claims on a tiny target: arms are what they say, train for the same time, and nothing is done twice."""

import json

import pytest
import torch
import typer

from hf_mmspec.data import model_inputs
from hf_mmspec.training.answers.store import AnswerSet
from hf_mmspec.training.drafters import untrained
from hf_mmspec.training.judging import claims, study
from hf_mmspec.training.judging.claim_list import ARMS, CLAIMS, SIZES, SPEED, Arm
from hf_mmspec.training.judging.picture_groups import by_pictures, visual_tokens
from hf_mmspec.training.judging.trial import folder_name, sizes_of
from hf_mmspec.training.recipes import family_recipe, read_recipe
from tests.evaluation.tiny import tiny_processor, tiny_target
from tests.training.making import conversation
from tests.training.pictures import picture_folder
from tests.training.robustness import world

SMALL = dict(zip(SIZES, (12, 16, 16), strict=True))
SLOTS = {"flash, k = 1": 1, "flash, k = 2": 2, "flash, k = 4": 4, "flash, all visual tokens": 4}
# rows that two pictures of 144 tokens have in the drafter
VISUAL_ROWS = {
    "vispec": 2,
    "vispec, no pictures": 0,
    "vispec, no global feature": 2,
    "vispec, global feature alone": 0,
    "flash, k = 4": 2 * 16,
}


@pytest.fixture(scope="module")
def model():
    """Eight layers, so that EAGLE-3 finds three of them."""
    return tiny_target(num_hidden_layers=8), tiny_processor()


def drafter(name, model):
    recipe = ARMS[name].recipe(SMALL, ["drafter.draft_vocab_size=40"])
    torch.manual_seed(0)
    return untrained(recipe, *model, [torch.arange(50)])


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_drafts_as_deep_as_it_is_judged(name, model, monkeypatch):
    made, depths = drafter(name, model), []
    propose = made.propose

    def watched(*args, **options):
        tree = propose(*args, **options)
        depths.append(int(tree.depths.max()))
        return tree

    monkeypatch.setattr(made, "propose", watched)
    inputs = model_inputs(model[1], [conversation(0)])
    budget = {**claims.JUDGED, "draft_total_tokens": 60, "draft_top_k": 2}
    model[0].generate(**inputs, assistant_model=made, do_sample=False, max_new_tokens=12, **budget)
    assert max(depths) == SLOTS.get(name, 8)


@pytest.mark.parametrize("name", ARMS)
def test_arms_differ_in_what_becomes_of_pictures(name, model, monkeypatch):
    made, lengths = drafter(name, model), []
    prefill = made.prefill

    def watched(*args):
        state = prefill(*args)
        lengths.append(state.cache.stable)
        return state

    monkeypatch.setattr(made, "prefill", watched)
    for pictures in (0, 2):
        inputs = model_inputs(model[1], [conversation(0, pictures)])
        model[0].generate(**inputs, assistant_model=made, do_sample=False, max_new_tokens=4, **claims.JUDGED)
        lengths[-1] -= int((inputs["input_ids"] != model[0].config.image_token_id).sum())
    default = VISUAL_ROWS["flash, k = 4"] if name in SLOTS or name == "flash, k = 8" else 2 * 144
    default = VISUAL_ROWS["vispec"] if name == "vispec, narrow MLP" else default
    expected = 2 * 144 if name == "flash, all visual tokens" else VISUAL_ROWS.get(name, default)
    assert lengths[1] - lengths[0] == expected


def test_recipes_of_arms():
    recipes = {name: arm.recipe(SMALL, ["stages.*.batch_size=4", "seed=7"]) for name, arm in ARMS.items()}
    assert {recipe.seed for recipe in recipes.values()} == {7}
    assert {stage.batch_size for recipe in recipes.values() for stage in recipe.stages} == {4}
    assert [recipes[f"flash, k = {k}"].stages[0].unroll for k in (1, 2, 8)] == [1, 2, 8]
    assert recipes["msd"].stages[0].records == "curriculum" != recipes["msd, no curriculum"].stages[0].records
    assert recipes["vispec, narrow MLP"].drafter["intermediate_size"] == 12
    assert recipes["eagle3, half width"].drafter["hidden_size"] == 16
    assert not recipes["eagle2, random start"].closed_form_start


def test_claims_name_arms_that_there_are():
    assert {name for claim in CLAIMS.values() for name in claim.arms} == set(ARMS)
    assert len({folder_name(name) for name in ARMS}) == len(ARMS)
    assert folder_name("flash, k = 4") == "flash-k-4"
    assert {name for name, claim in CLAIMS.items() if claim.by == SPEED} >= {"flash-slots", "narrow-mlp"}


def test_sizes_of_a_target(model):
    groups = by_pictures([conversation(0, 2), conversation(1, 0), conversation(2, 1)])
    assert list(groups) == [0, 1, 2]
    tokens = visual_tokens(*model, groups)
    assert tokens == {0: 0, 1: 144, 2: 288}
    assert sizes_of(model[0], tokens) == {"quarter_mlp": 12, "half_width": 16, "ninth_of_picture": 16}
    assert sizes_of(model[0], {0: 0})["ninth_of_picture"] == 1


@pytest.fixture(scope="module")
def answers(model, tmp_path_factory):
    """Answers with the hidden states of three layers, which serve all families."""
    folder = tmp_path_factory.mktemp("claims")
    picture_folder(folder / "pictures")
    world.answered(folder / "pictures", folder / "answers", *model, keep=read_recipe(family_recipe("eagle3")))
    return folder / "answers"


@pytest.fixture
def loaded(model, monkeypatch):
    monkeypatch.setattr(study, "load_target", lambda *_: model)


def command(answers, file, *names, **options):
    chosen = {
        **{"seeds": "3", "minutes": 3.0, "epochs": 0.4, "held_out": 2, "model": None, "split": "val"},
        **{"data": ["embedded:pictures-0", "embedded:pictures-2"], "skip": 0, "limit": 2, "max_new_tokens": 6},
        **{"repetitions": 1, "work": None, "markdown": None, "plot": None, "dtype": "auto", "threads": 1},
        **{"change": ["stages.*.batch_size=4"], **options},
    }
    claims.main(file, None if answers is None else [answers], list(names), **chosen)


def test_the_command_goes_on_where_it_was(loaded, answers, tmp_path, monkeypatch, capsys):
    real, trained = study.train, []

    def counted(run, *args):
        trained.append(run.out.name)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return real(run, *args)

    monkeypatch.setattr(study, "train", counted)
    file = tmp_path / "new" / "f.json"
    with pytest.raises(KeyboardInterrupt):
        command(answers, file, "msd-decoupling")
    first = json.loads(file.read_text())["cells"]
    assert [(cell["arm"], cell["seed"], cell["pictures"]) for cell in first] == [("msd", 3, 0), ("msd", 3, 2)]
    assert [(cell["visual_tokens"], cell["prompts"]) for cell in first] == [(0, 2), (288, 2)]
    assert all(cell["acceptance_length"] >= 1 and cell["seconds"] > 0 and cell["steps"] == 4 for cell in first)
    command(answers, file, "msd-decoupling")
    assert json.loads(file.read_text())["cells"][:2] == first
    assert trained == ["msd-seed-3", "msd-coupled-seed-3", "msd-coupled-seed-3"]
    assert "msd, more than" in capsys.readouterr().out
    assert sorted(each.name for each in (tmp_path / "new" / "f-work").iterdir()) == [
        "msd-coupled-seed-3",
        "msd-seed-3",
    ]
    command(answers, file, "msd-decoupling", "msd-curriculum", seeds="3")
    assert trained[3:] == ["msd-no-curriculum-seed-3", "msd-neither-seed-3"]
    command(None, file, plot=tmp_path / "p.png")
    out = capsys.readouterr().out
    assert "## eagle3\n\n*Not run yet.*" in out and len(trained) == 5
    assert (tmp_path / "p.png").exists()
    with pytest.raises(typer.Exit):
        command(answers, file, "msd-decoupling", epochs=1.0)
    assert "epochs differ" in capsys.readouterr().err


def test_seconds_are_equal(loaded, answers, tmp_path, monkeypatch):
    """FLASH and EAGLE-3 read other states and take other times a step; both get what the clock says."""
    paces = iter([{"all": 0.5}, {"all": 1.0}])
    asked = []

    def paced(study, recipe, entries):
        asked.append(recipe.family)
        return next(paces)

    monkeypatch.setattr("hf_mmspec.training.judging.trial.measured_pace", paced)
    file = tmp_path / "f.json"
    options = {"epochs": None, "minutes": 0.05, "data": ["embedded:pictures-1"], "limit": 1}
    for _ in range(2):
        command(answers, file, "narrow-eagle3", **options)
    found = {cell["arm"]: cell["steps"] for cell in json.loads(file.read_text())["cells"]}
    assert asked == ["eagle3", "eagle3"]
    assert found == {"eagle3, half width": 6, "eagle3": 3}
    assert json.loads(file.read_text())["settings"]["minutes"] == 0.05


def test_an_arm_whose_recipe_changed_is_trained_again(loaded, answers, tmp_path, monkeypatch):
    file, few = tmp_path / "f.json", {"data": ["embedded:pictures-0"], "limit": 1, "epochs": 0.1}
    command(answers, file, "msd-decoupling", **few)
    before = json.loads(file.read_text())["cells"]
    monkeypatch.setitem(ARMS, "msd", Arm("msd", "msd", ("drafter.intermediate_size=8",)))
    command(answers, file, "msd-decoupling", **few)
    after = json.loads(file.read_text())["cells"]
    assert [cell["arm"] for cell in after] == ["msd, coupled", "msd"]
    assert after[0] == before[1]
    assert after[1]["parameters"] < before[0]["parameters"]


def test_answers_that_lack_states_are_refused_before_any_training(
    loaded, model, answers, tmp_path, monkeypatch, capsys
):
    picture_folder(tmp_path / "pictures")
    world.answered(tmp_path / "pictures", tmp_path / "few", *model, keep=read_recipe(family_recipe("vispec")))
    assert AnswerSet.load(tmp_path / "few").manifest["features"]["layers"] is None
    monkeypatch.setattr(study, "train", lambda *_: pytest.fail("trained"))
    with pytest.raises(typer.Exit):
        command(tmp_path / "few", tmp_path / "f.json", "msd-decoupling", "eagle3")
    assert "--features" in capsys.readouterr().err


@pytest.mark.parametrize(
    "names, options, words",
    [
        (["vispec"], {}, "no claim 'vispec': choose from vispec-adaptor"),
        ([], {"seeds": "0,one"}, "one"),
        ([], {"change": ["stages.*.colour=1"]}, "colour"),
        ([], {"data": ["embedded:pictures-9"]}, "pictures-0 to pictures-8"),
    ],
)
def test_wrong_input_ends_it_before_anything_is_loaded(answers, tmp_path, monkeypatch, capsys, names, options, words):
    monkeypatch.setattr(study, "load_target", lambda *_: pytest.fail("loaded"))
    with pytest.raises(typer.Exit) as error:
        command(answers, tmp_path / "f.json", *names, **options)
    assert error.value.exit_code == 2
    assert words in capsys.readouterr().err


def test_a_report_needs_its_file(tmp_path, capsys):
    with pytest.raises(typer.Exit):
        command(None, tmp_path / "f.json")
    assert "no study's file" in capsys.readouterr().err
