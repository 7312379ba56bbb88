"""The training stages on tiny models: they learn, keep their state, resume and skip."""

import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from hf_mmspec.demo.making import stage_language, stage_vision
from hf_mmspec.demo.making.checkpoint import load_state
from hf_mmspec.demo.making.conversation import conversation
from hf_mmspec.demo.making.look import real_look
from hf_mmspec.demo.making.patches import DETAIL_WORDS
from hf_mmspec.demo.making.stage_language import (
    LanguageRecipe,
    add_adapter,
    answer_loss,
    fact_weights,
    oracle_look,
    train_language,
)
from hf_mmspec.demo.making.stage_vision import VisionLearner, VisionRecipe, train_vision, vision_loss
from hf_mmspec.demo.making.visual_words import VisualWords
from hf_mmspec.demo.model.tower import VISUAL_TOKENS
from hf_mmspec.demo.world.words import PATCH_WORDS

TEXT = 16
TINY = VisionRecipe(width=32, depth=1, steps=2, batch=2, save_every=1)


@pytest.fixture
def vocabulary(tokenizer):
    return VisualWords(tokenizer, torch.randn(49152, TEXT))


def test_vision_loss_is_small_for_perfect_outputs(vocabulary):
    words, details = torch.randint(len(PATCH_WORDS), (2, 144)), torch.full((2, 144, 2), -1)
    details[..., 0] = torch.randint(len(DETAIL_WORDS), (2, 144))
    logits = torch.nn.functional.one_hot(words, len(PATCH_WORDS)) * 40.0
    told = torch.nn.functional.one_hot(details[..., 0], len(DETAIL_WORDS)) * 80.0 - 40.0
    right = vision_loss((logits, told, vocabulary.targets(words, details)), words, details, vocabulary)
    wrong = vision_loss((-logits, -told, -vocabulary.targets(words, details)), words, details, vocabulary)
    assert right < 1e-3
    assert wrong > 1


def test_vision_stage_resumes_and_skips(vocabulary, tmp_path, monkeypatch):
    monkeypatch.setattr(stage_vision, "measure", lambda *_: {})
    train_vision(VisionRecipe(width=32, depth=1, steps=1, batch=2, save_every=1), vocabulary, tmp_path)
    assert load_state(tmp_path / "vision.pt")["step"] == 1
    trained = train_vision(TINY, vocabulary, tmp_path)
    assert load_state(tmp_path / "vision.pt")["step"] == 2
    monkeypatch.setattr(stage_vision, "batch", None)  # a finished stage draws no picture
    again = train_vision(TINY, vocabulary, tmp_path)
    assert torch.equal(trained.projector.linear_1.weight, again.projector.linear_1.weight)


def _language_model():
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=TEXT,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    return LlamaModel(config)


def test_loss_counts_the_answers_only(tokenizer, vocabulary):
    model = _language_model()
    table = model.embed_tokens.weight.detach()
    batch = [conversation(tokenizer, "val", i) for i in range(2)]
    visual = oracle_look(vocabulary, 0)(batch)
    assert visual.shape == (2, VISUAL_TOKENS, TEXT)
    weights = fact_weights(tokenizer, len(table))
    loss, entropy = answer_loss(model, table, batch, visual, weights)
    assert loss.item() > 0
    assert 0 < entropy.item() < 11
    for one in batch:
        one.labels = torch.where(one.labels == -100, -100, one.input_ids)
    assert torch.allclose(answer_loss(model, table, batch, visual, weights)[0], loss)


def test_language_stage_resumes_and_skips(tokenizer, vocabulary, tmp_path, monkeypatch):
    monkeypatch.setattr(stage_language, "held_out_loss", lambda *_: 0.0)
    torch.manual_seed(0)
    model = _language_model()
    table = model.embed_tokens.weight.detach().clone()
    adapted, look = add_adapter(model), oracle_look(vocabulary, 0)
    recipe = LanguageRecipe(name="tiny", steps=2, lr=1e-3, batch=2, save_every=1)
    train_language(recipe, adapted, table, tokenizer, look, tmp_path)
    state = load_state(tmp_path / "tiny.pt")
    assert state["step"] == 2
    assert any(tensor.abs().sum() > 0 for name, tensor in state["adapter"].items() if "lora_B" in name)
    monkeypatch.setattr(stage_language, "conversation", None)  # a finished stage draws no conversation
    train_language(recipe, adapted, table, tokenizer, look, tmp_path)


def test_real_look_shows_what_the_tower_sees(tokenizer):
    learner = VisionLearner(TINY, TEXT)
    look = real_look(learner)
    batch = [conversation(tokenizer, "train", i) for i in (0, 2)]
    tokens = look(batch)
    assert tokens.shape == (2, VISUAL_TOKENS, TEXT)
    assert not tokens.requires_grad
    assert torch.equal(tokens, look(batch))
