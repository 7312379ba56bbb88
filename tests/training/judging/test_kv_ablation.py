"""The ablation over `kv_loss_weight`: a drafter for each weight and seed, judged both ways; nothing is done twice."""

import json
from dataclasses import replace

import pytest
import typer

from hf_mmspec.generation.statistics import Speculation
from hf_mmspec.modeling import FAMILIES
from hf_mmspec.training.answers.store import AnswerSet
from hf_mmspec.training.judging import kv_ablation, study
from hf_mmspec.training.judging.ablation_report import is_finished, table
from hf_mmspec.training.judging.kv_ablation import recipe_for
from hf_mmspec.training.judging.modes import measure_modes
from hf_mmspec.training.judging.taking_turns import summary
from hf_mmspec.training.recipes import RecipeError
from hf_mmspec.training.train import train
from tests.evaluation.tiny import tiny_processor, tiny_target
from tests.training.making import conversation
from tests.training.pictures import picture_folder
from tests.training.robustness import world

TREE = {"draft_depth": 3, "draft_top_k": 3, "draft_total_tokens": 8, "draft_mode": "tree"}


def cell(weight, seed, mode, length, drafting=2.0, speed=50.0):
    numbers = {"acceptance_length": length, "draft_milliseconds": drafting, "tokens_per_second": speed}
    return {"weight": weight, "seed": seed, "mode": mode, **numbers}


CELLS = [
    cell(0.0, 0, "refresh", 4.0),
    cell(0.0, 0, "reuse", 3.5, 1.0),
    cell(0.0, 1, "refresh", 5.0, 4.0, 70.0),
    cell(0.0, 1, "reuse", 4.75, 1.5),
    cell(0.1, 0, "reuse", 3.0),
]


def test_the_table():
    head, line, *rows = table(CELLS)
    assert head.count("|") == line.count("|") == 8
    assert [[word.strip() for word in row.strip("|").split("|")] for row in rows] == [
        ["0", "refresh", "4.50 (4.00 to 5.00)", "", "3.00", "60.0", "2"],
        ["0", "reuse", "4.12 (3.50 to 4.75)", "0.375", "1.25", "50.0", "2"],
        ["0.1", "reuse", "3.00 (3.00 to 3.00)", "", "2.00", "50.0", "1"],
    ]


def test_a_cell_is_finished_with_both_ways():
    assert is_finished(CELLS, 0.0, 1)
    assert not is_finished(CELLS, 0.1, 0)
    assert not is_finished(CELLS, 0.0, 2)


def test_numbers_of_a_way_of_drafting():
    """L pools rounds; times are medians over repetitions, summed over prompts."""

    def run(accepted, draft, verify):
        return Speculation(accepted, accepted, {"prefill": 9.0, "draft": draft, "verify": verify, "other": 0.5})

    runs = [[run([1, 3], d, 1.0) for d in (0.2, 5.0, 0.4)], [run([0, 0], 0.6, 2.0)] * 3]
    found = summary(runs, ["a", "b"])
    assert found["acceptance_length"] == 2.0
    assert (found["acceptance_length/a"], found["acceptance_length/b"]) == (3.0, 1.0)
    assert found["draft_milliseconds"] == pytest.approx(1000 * (0.4 + 0.6) / 4)
    assert found["tokens_per_second"] == pytest.approx(8 / (0.4 + 0.6 + 3.0 + 1.0))


def test_both_ways_take_turns_and_answer_alike(qwen):
    drafter = FAMILIES["eagle"][1].from_target(qwen[0])
    seen, propose = [], type(drafter).propose

    class Watched(type(drafter)):
        def propose(self, *args, **options):
            if not seen or seen[-1] != self.config.accepted_rows:
                seen.append(self.config.accepted_rows)
            return propose(self, *args, **options)

    drafter.__class__ = Watched
    found = measure_modes(*qwen, drafter, [conversation(0), conversation(1, 0)], 10, 2, **TREE)
    assert list(found) == ["refresh", "reuse"]
    assert [each["same_answers"] for each in found.values()] == [1.0, 1.0]
    assert found["refresh"]["acceptance_length"] >= 1
    assert seen.count("refresh") == seen.count("reuse") >= 2


@pytest.mark.parametrize("family", ["vispec", "msd", "eagle2", "eagle3"])
def test_recipes_of_cells(family):
    recipe = recipe_for(family, ["stages.*.epochs=0.5"], 0.1, 7)
    assert {(stage.kv_loss_weight, stage.epochs) for stage in recipe.stages} == {(0.1, 0.5)}
    assert recipe.seed == 7


def test_flash_has_no_rows_to_reuse():
    for weight in (0.0, 0.1):
        with pytest.raises(RecipeError, match="flash"):
            recipe_for("flash", [], weight, 0)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Answers of a tiny target."""
    folder, model = tmp_path_factory.mktemp("ablation"), (tiny_target(), tiny_processor())
    picture_folder(folder / "pictures")
    world.answered(folder / "pictures", folder / "answers", *model)
    return folder, model


SMALL = {"weights": "0,1", "seeds": "3", "family": "eagle2", "limit": 2, "skip": 0, "max_new_tokens": 8}
FEW = ["stages.*.batch_size=4", "evaluations=1"]


def command(folder, file, **options):
    rest = {"val": None, "held_out": 2, "model": None, "data": str(folder / "pictures"), "split": None, "work": None}
    chosen = {
        **SMALL,
        **rest,
        "change": FEW,
        "epochs": 0.2,
        "repetitions": 1,
        "dtype": "auto",
        "threads": 1,
        **options,
    }
    kv_ablation.main([folder / "answers"], file, **chosen)


def test_the_command_goes_on_where_it_was(place, tmp_path, monkeypatch, capsys):
    folder, model = place
    monkeypatch.setattr(study, "load_target", lambda *_: model)
    real, trained = study.train, []

    def counted(run, *args):
        trained.append((run.recipe.stages[0].kv_loss_weight, run.recipe.seed))
        if len(trained) == 2:
            raise KeyboardInterrupt
        return real(run, *args)

    monkeypatch.setattr(study, "train", counted)
    file = tmp_path / "new" / "f.json"
    with pytest.raises(KeyboardInterrupt):
        command(folder, file)
    first = json.loads(file.read_text())["cells"]
    assert [(each["weight"], each["seed"], each["mode"]) for each in first] == [(0, 3, "refresh"), (0, 3, "reuse")]
    assert "loss/kv" not in first[0]["losses"]["all"]
    command(folder, file)
    report = json.loads(file.read_text())
    assert report["cells"][:2] == first
    assert trained == [(0.0, 3), (1.0, 3), (1.0, 3)]
    losses = report["cells"][3]["losses"]["all"]
    assert losses["loss/kv"] > 0
    assert losses["loss"] == pytest.approx(
        0.1 * losses["loss/soft_cross_entropy"] + losses["loss/feature_regression"] + losses["loss/kv"], rel=1e-4
    )
    assert report["machine"]["threads"] == 1
    command(folder, file)
    assert len(trained) == 3
    assert len(capsys.readouterr().out.split("| 1 | reuse |")) == 3
    with pytest.raises(typer.Exit):
        command(folder, file, max_new_tokens=9)
    assert "max_new_tokens differ" in capsys.readouterr().err


def test_a_drafter_of_other_answers_is_trained_anew(place, tmp_path, monkeypatch):
    """The same recipe in the same folder is not enough."""
    folder, (target, processor) = place
    own = AnswerSet.load(folder / "answers")
    other = replace(own, manifest={**own.manifest, "seed": 1})
    trained = []
    monkeypatch.setattr(study, "train", lambda run, *args: trained.append(run.recipe.seed) or train(run, *args))
    recipe = recipe_for("eagle2", [*FEW, "stages.*.epochs=0.2"], 0.0, 3)
    for answers in ([own], [own], [other], [other, own]):
        study.Study(target, processor, "tiny", answers, [], [], tmp_path, 8, 1, 2).trained(recipe, "d")
    assert len(trained) == 3


@pytest.mark.parametrize(
    "options, words",
    [
        ({"family": "flash"}, "flash"),
        ({"weights": "0,much"}, "much"),
        ({"weights": "-1"}, "kv_loss_weight must be at least 0"),
        ({"change": ["stages.*.colour=1"]}, "colour"),
    ],
)
def test_wrong_input_ends_it_before_anything_is_loaded(place, tmp_path, monkeypatch, capsys, options, words):
    monkeypatch.setattr(study, "load_target", lambda *_: pytest.fail("loaded"))
    with pytest.raises(typer.Exit) as error:
        command(place[0], tmp_path / "f.json", **options)
    assert error.value.exit_code == 2
    assert words in capsys.readouterr().err
