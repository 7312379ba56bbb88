"""Recipes: those that come with the package, and what is refused, by the name of the field."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from hf_mmspec.modeling import FAMILIES
from hf_mmspec.training.drafters import layers_of, untrained
from hf_mmspec.training.recipes import OnPolicy, RecipeError, Stage, family_recipe, read_recipe
from tests.generation import tiny

SHIPPED = sorted(family_recipe("vispec").parent.glob("*.yaml"))
shipped = pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return file


STAGE = "family: vispec\nstages:\n  - name: a\n"


@shipped
def test_shipped_recipes_load(file):
    recipe = read_recipe(file)
    assert recipe.stages
    assert FAMILIES[recipe.family]


def test_every_family_has_one():
    assert {read_recipe(family_recipe(family)).family for family in FAMILIES} == set(FAMILIES)
    assert family_recipe("EAGLE-2") == family_recipe("eagle2") == family_recipe("eagle")
    with pytest.raises(RecipeError, match=r"unknown family 'medusa'.*vispec"):
        family_recipe("medusa")


@shipped
def test_every_number_says_where_it_comes_from(file):
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        value, _, comment = line.partition("#")
        if re.search(r":\s*-?\d", value):
            assert re.search(r"ours|paper|authors|training code|published", comment), f"{file.name}:{number}: {line}"


@shipped
def test_recipes_go_through_files(file, tmp_path):
    import yaml

    recipe = read_recipe(file)
    again = read_recipe(written(tmp_path, yaml.safe_dump(recipe.as_dict())))
    assert again == recipe


def test_changes():
    file = family_recipe("vispec")
    changes = [
        "stages.*.batch_size=4",
        "stages.1.epochs=2",
        "stages.0.learning_rate=5e-4",
        "drafter.draft_vocab_size=2048",
        "stages.0.loss.acceptance=1",
        "stages.1.on_policy.share=0.5",
        "seed=7",
    ]
    recipe = read_recipe(file, changes)
    assert [stage.batch_size for stage in recipe.stages] == [4, 4]
    assert recipe.stages[1].epochs == 2.0
    assert recipe.stages[0].learning_rate == 5e-4  # YAML 1.1 reads that as text
    assert recipe.drafter == {"num_q": 2, "draft_vocab_size": 2048}
    assert recipe.stages[0].loss["acceptance"] == 1.0
    assert recipe.stages[1].on_policy == OnPolicy(share=0.5)
    assert recipe.seed == 7
    assert read_recipe(file).stages[0].batch_size == 16


@pytest.mark.parametrize(
    "change, words",
    [
        ("stages.0.learning_rat=1", "stage 0: unknown field.* learning_rat; known:.*learning_rate"),
        ("stages.0.epochs=many", "epochs"),
        ("stages.0.epochs=-1", "epochs must be at least"),
        ("stages.0.unroll=0", "unroll must be at least 1"),
        ("stages.0.unroll=two", "unroll"),
        ("stages.0.batch_size=0", "batch_size"),
        ("stages.0.pictures=3", "pictures"),
        ("stages.0.records=some", "records must be all, text, pictures or curriculum"),
        ("stages.0.loss={}", "loss is empty"),
        ("stages.0.loss.magic=1", r"loss \['magic'\].*soft_cross_entropy"),
        ("stages.0.loss=3", "loss"),
        ("stages.0.betas=[0.9]", "betas"),
        ("stages.1.betas=[0.9,2]", "betas must be two numbers, at least 0 and below 1"),
        ("stages.1.weight_decay=-1", "weight_decay must be at least 0"),
        ("stages.1.warmup=-0.1", "warmup must be at least 0"),
        ("stages.1.warmup=2", "warmup is a share of the steps"),
        ("stages.1.noise=-1", "noise must be at least 0"),
        ("stages.1.clip=.nan", "clip must be at least 0"),
        ("stages.0.on_policy={}", "on_policy needs pictures"),
        ("drafter.num_q=two", "drafter:.*num_q.*int"),
        ("drafter.colour=1", r"drafter: .*does not know the field\(s\) colour"),
        ("drafter.draft_vocab_size=abc", "drafter:.*draft_vocab_size"),
        ("drafter.draft_vocab_size=0", "draft_vocab_size must be at least 1, got 0"),
        ("stages.0.kv_loss_weight=-1", "kv_loss_weight must be at least 0"),
        ("stages.0.kv_loss_target=other", "kv_loss_target must be one of self, target_layer"),
        ("stages.0.kv_loss_layer=last", "kv_loss_layer"),
        ("stages.0.on_policy=3", "on_policy"),
        ("stages.0.on_policy.width=3", "on_policy: unknown field.* width"),
        ("stages.0.on_policy.share=2", "share"),
        ("stages.0.on_policy.depth=0", "depth"),
        ("stages.0.own_token_rate=0.2", "own_token_rate"),
        ("stages.0=3", "a stage is a mapping"),
        ("stages.9.epochs=1", "'stages.9.epochs=1'.*no '9'"),
        ("stages.first.epochs=1", "no 'first'"),
        ("stages=3", "list of stages"),
        ("stages=[]", "stages with different names"),
        ("stages.1.name=text", "stages with different names"),
        ("family=medusa", "unknown family 'medusa'"),
        ("family.name=x", "no 'name'"),
        ("evaluations=0", "evaluations"),
        ("seed=x", "seed"),
        ("colour=1", "unknown field.* colour"),
        ("drafter=3", "drafter"),
        ("epochs", "write path=value"),
        ("stages.0.name={", "stages.0.name"),
    ],
)
def test_what_cannot_be_is_refused_by_name(change, words):
    with pytest.raises(RecipeError, match=words):
        read_recipe(family_recipe("vispec"), [change])


def test_slots_that_no_stage_trains_are_refused():
    """They would be drafted from as they were drawn."""
    with pytest.raises(RecipeError, match=r"num_slots is 8, but no stage trains more than 4 slots.*unroll=8"):
        read_recipe(family_recipe("flash"), ["drafter.num_slots=8"])
    read_recipe(family_recipe("flash"), ["drafter.num_slots=8", "stages.0.unroll=8"])
    read_recipe(family_recipe("flash"), ["drafter.num_slots=2"])


@pytest.mark.parametrize(
    "change, words",
    [
        ("visual=nonsense", "visual must be one of none, raw"),
        ("num_key_value_heads=3", "must be a multiple of num_key_value_heads"),
        ("head_dim=7", "even rotary dimension"),
        ("hidden_act=nonsense", "nonsense"),
    ],
)
def test_what_does_not_fit_the_target_is_refused_too(change, words):
    """Known when the target is there, and before anything is read with it."""
    recipe = read_recipe(family_recipe("vispec"), [f"drafter.{change}"])
    for build in (lambda: layers_of(recipe, tiny.llava()), lambda: untrained(recipe, tiny.llava(), PROCESSOR, [])):
        with pytest.raises(RecipeError, match=f"^drafter: .*{words}[^\n]*$"):
            build()


PROCESSOR = SimpleNamespace(tokenizer=range(100))


@shipped
def test_the_loss_on_keys_and_values(file):
    """For every family that feeds on its own outputs; off where nothing is said."""
    plain = read_recipe(file)
    assert {stage.kv_loss_weight for stage in plain.stages} == {0.0}
    assert plain.kv_layer is None
    changes = ["stages.*.kv_loss_weight=0.1", "stages.*.kv_loss_target=target_layer", "stages.*.kv_loss_layer=3"]
    if plain.family == "flash":
        with pytest.raises(RecipeError, match="kv_loss_weight is for drafters that feed on their own outputs; flash"):
            read_recipe(file, changes[:1])
        return
    assert {stage.kv_loss_weight for stage in read_recipe(file, changes[:1]).stages} == {0.1}
    assert read_recipe(file, changes[:1]).kv_layer is None
    assert read_recipe(file, changes).kv_layer == 3
    assert read_recipe(file, changes[1:]).kv_layer is None  # without a weight nothing is read
    if len(plain.stages) > 1:
        with pytest.raises(RecipeError, match="kv_loss_layer must be the same in all stages"):
            read_recipe(file, [*changes, "stages.0.kv_loss_layer=2"])


@pytest.mark.parametrize(
    "text, words",
    [
        ("family: [", "not a YAML file"),
        ("- 1", "a recipe is a mapping"),
        ("family: vispec", "list of stages"),
        ("stages:\n  - name: a", "unknown family ''"),
        ("family: vispec\nstages:\n  - epochs: 1", "name"),
    ],
)
def test_broken_files(tmp_path, text, words):
    file = written(tmp_path, text)
    with pytest.raises(RecipeError, match=words):
        read_recipe(file)
    with pytest.raises(RecipeError, match="no such recipe"):
        read_recipe(tmp_path / "none.yaml")


def test_defaults_are_a_recipe(tmp_path):
    (stage,) = read_recipe(written(tmp_path, STAGE)).stages
    assert stage == Stage("a")
    assert stage.loss == {"soft_cross_entropy": 1.0}


def test_scheduled_sampling():
    stage = Stage("s", own_token_rate=0.2, own_token_from=0.1)
    assert [stage.own_token_rate_at(progress) for progress in (0.0, 0.1)] == [0.0, 0.0]
    assert stage.own_token_rate_at(0.55) == pytest.approx(0.1)
    assert stage.own_token_rate_at(1.0) == pytest.approx(0.2)
    assert replace(stage, own_token_from=1.0).own_token_rate_at(1.0) == 0.0
