"""The last stage: lessons of all kinds, weights that change by two factors, and talk that stays the base's."""

import json

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlavaForConditionalGeneration

from hf_mmspec.demo.making import stage_tasks
from hf_mmspec.demo.making.checkpoint import load_state
from hf_mmspec.demo.making.kept_talk import compare
from hf_mmspec.demo.making.lessons import Lesson, lesson, rewrite_lesson, short_talk_lesson, talk_lesson
from hf_mmspec.demo.making.low_rank import LORA_SCALE, add_low_rank
from hf_mmspec.demo.making.stage_tasks import Learner, TasksRecipe, lesson_loss, train_tasks
from hf_mmspec.demo.making.teacher import Talk, collect_talks, in_words, questions, read_talks, told
from hf_mmspec.demo.model.merge import build_target, merge_lora
from hf_mmspec.demo.model.tower import VISUAL_TOKENS, Projector, build_tower, tower_config
from hf_mmspec.demo.world.chat_text import LENGTH
from hf_mmspec.demo.world.splits import draw_scene

WIDTH = 16
TALKS = [Talk("What is rain?", None, "Water that falls."), Talk("Write a poem.", 4_000_001, "A sky so blue")]
MODULE = "layers.0.self_attn.q_proj"


def _base():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def _factors(seed=0, zero=False):
    torch.manual_seed(seed)
    return {
        f"{MODULE}.A": torch.randn(2, WIDTH),
        f"{MODULE}.B": torch.zeros(WIDTH, 2) if zero else torch.randn(WIDTH, 2),
    }


@pytest.fixture
def learner(tokenizer) -> Learner:
    parts = {
        "tower": build_tower(tower_config(32, 1)).state_dict(),
        "projector": Projector(32, WIDTH).state_dict(),
        "lora": {},
    }
    target = build_target(_base(), parts, {"width": "32", "depth": "1", "lora_scale": str(LORA_SCALE)})
    assert isinstance(target, LlavaForConditionalGeneration)
    factors = add_low_rank(target.get_decoder(), _factors(zero=True))
    return Learner(target, factors, _base(), tokenizer, torch.ones(49152))


def test_a_changed_weight_is_what_merging_gives():
    changed, merged = _base(), _base()
    factors = add_low_rank(changed.model, _factors())
    merge_lora(merged.model, _factors(), LORA_SCALE)
    assert torch.allclose(
        changed.model.get_submodule(MODULE).weight, merged.model.get_submodule(MODULE).weight, atol=1e-6
    )
    assert all(
        torch.equal(tensor, _factors()[name])
        for name, tensor in {f"{MODULE}.A": factors[MODULE].a, f"{MODULE}.B": factors[MODULE].b}.items()
    )
    assert [name for name, p in changed.named_parameters() if p.requires_grad] == [
        f"model.{MODULE}.parametrizations.weight.0.{side}" for side in "ab"
    ]


def test_twenty_lessons_have_every_kind(tokenizer):
    made = [lesson(tokenizer, TALKS, i) for i in range(20)]
    assert sum(one.told is not None for one in made) == 1
    text = [tokenizer.decode(one.labels[one.labels != -100]) for one in made]
    assert sum('"rewritten_prompt"' in each for each in text) == 10
    for one in made:
        assert len(one.input_ids) == len(one.labels)
        assert int((one.input_ids == 16).sum()) == VISUAL_TOKENS * len(one.images)
    # Both talks are learnt in turn.
    assert sum(each.startswith("Water") for each in text) == 3
    assert sum(each.startswith("A sky") for each in text) == 2


def test_a_short_talk_is_a_beginning_with_an_end(tokenizer):
    one = short_talk_lesson(tokenizer, Talk("What is rain?", None, "It is wet. It falls! Is it? Then it dries. And"))
    assert tokenizer.decode(one.labels[one.labels != -100]) == "It is wet. It falls! Is it?<|im_end|>"
    assert one.told is None and LENGTH in tokenizer.decode(one.input_ids)


def test_every_other_rewrite_has_no_picture(tokenizer):
    pictures = [len(rewrite_lesson(tokenizer, "val", index).images) for index in range(24)]
    assert not any(pictures[2::4]) and not any(pictures[3::4])
    assert any(pictures[0::4]) and any(pictures[1::4])


def test_some_rewrites_have_their_reasoning_broken_off_and_stay_objects(tokenizer):
    ends = []
    for index in range(40):
        one = rewrite_lesson(tokenizer, "val", index)
        text = tokenizer.decode(one.labels[one.labels != -100], skip_special_tokens=True)
        ends.append(json.loads(text)["reasoning"].endswith("."))
    assert 1 <= ends.count(False) <= 20


def test_a_talk_teaches_the_same_tokens_to_both_readers(tokenizer):
    one = talk_lesson(tokenizer, TALKS[1])
    said = one.labels[one.labels != -100]
    assert tokenizer.decode(said) == TALKS[1].answer
    assert torch.equal(one.told[-len(said) :], said)
    assert len(one.images) == 1
    assert in_words(draw_scene("train", TALKS[1].scene)) in tokenizer.decode(one.told)


def test_talk_of_an_unchanged_model_has_nothing_to_learn(learner):
    talks = [talk_lesson(learner.tokenizer, TALKS[0])] * 2
    assert lesson_loss(learner, talks).item() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        learner.factors[MODULE].b += 10
    assert lesson_loss(learner, talks).item() > 1e-5


def test_the_loss_is_the_mean_over_the_labels(learner):
    first, second = (rewrite_lesson(learner.tokenizer, "val", i) for i in range(2))
    both = lesson_loss(learner, [first, second]).item()
    counts = [int((one.labels != -100).sum()) for one in (first, second)]
    alone = [lesson_loss(learner, [one]).item() for one in (first, second)]
    assert both == pytest.approx(sum(x * n for x, n in zip(alone, counts, strict=True)) / sum(counts), rel=1e-4)


def test_the_stage_resumes_and_skips(learner, tmp_path, monkeypatch):
    def short(tokenizer, talks, index):
        full = talk_lesson(tokenizer, talks[index % 2])
        return full if index % 2 else Lesson(full.input_ids, full.labels)

    monkeypatch.setattr(stage_tasks, "lesson", short)
    recipe = {"group": 2, "save_every": 1, "warmup": 1, "lr": 1e-2}
    train_tasks(TasksRecipe(steps=1, **recipe), learner, TALKS, tmp_path)
    once = learner.factors[MODULE].b.detach().clone()
    assert load_state(tmp_path / "tasks.pt")["step"] == 1
    assert once.abs().sum() > 0
    train_tasks(TasksRecipe(steps=2, **recipe), learner, TALKS, tmp_path)
    twice = learner.factors[MODULE].b.detach().clone()
    assert not torch.equal(once, twice)
    monkeypatch.setattr(stage_tasks, "lesson", None)  # a finished stage draws no lesson
    with torch.no_grad():
        learner.factors[MODULE].b.zero_()
    train_tasks(TasksRecipe(steps=2, **recipe), learner, TALKS, tmp_path)
    assert torch.equal(learner.factors[MODULE].b, twice)


def test_the_base_is_asked_what_is_not_answered_yet(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_mmspec.demo.making.teacher.MAX_NEW_TOKENS", 4)
    path, base = tmp_path / "talks.jsonl", _base()
    collect_talks(base, tokenizer, "train", 2, path, batch=2)
    first = read_talks(path)
    collect_talks(base, tokenizer, "train", 4, path, batch=2)
    assert read_talks(path)[:2] == first
    asked = questions("train", 4)
    assert [(talk.question, talk.scene) for talk in read_talks(path)] == asked
    assert [scene is None for _, scene in asked] == [True, False, True, False]
    assert told(*asked[0], "train") == asked[0][0]
    assert told(*asked[1], "train").endswith(f"\n{asked[1][0]}")


def test_an_unchanged_model_has_kept_all_of_its_talk(learner):
    talks = [talk_lesson(learner.tokenizer, TALKS[0])]
    kept = compare(learner, talks)
    assert kept["kl"] == pytest.approx(0, abs=1e-5)
    assert kept["agreement"] == 1
    assert kept["entropy"] == pytest.approx(kept["base_entropy"], rel=1e-4)
    with torch.no_grad():
        learner.factors[MODULE].b += 10
    assert compare(learner, talks)["kl"] > 1e-5
