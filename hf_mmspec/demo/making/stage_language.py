"""Stages 2 and 3: LoRA teaches SmolLM2 to talk about visual tokens.

Stage 2 runs on perfect visual tokens made worse by noise, so it needs no vision tower; stage 3 on what the frozen
tower and projector really give. Its border: the adapter's weights. Merging them is `loader.py`.
"""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn
from torch.nn.functional import cross_entropy

from ..world.words import BACKGROUNDS, COLUMNS, NOUNS, NUMBERS, PATCH_WORDS, ROWS
from .checkpoint import load_state, save_state
from .conversation import Conversation, conversation
from .low_rank import LORA_SCALE, RANK
from .visual_words import VisualWords

log = logging.getLogger(__name__)
FACT_WEIGHT = 3.0
IMAGE_TOKEN_ID, PAD_TOKEN_ID = 16, 2  # SmolLM2's spare token and its end of turn
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Look = Callable[[list[Conversation]], torch.Tensor]  # conversations to visual tokens [B, 144, D]


@dataclass(frozen=True)
class LanguageRecipe:
    """Length and speed of one stage; `first` is the index of its first training conversation."""

    name: str
    steps: int
    lr: float
    first: int = 0
    batch: int = 4
    warmup: int = 10
    save_every: int = 25


def oracle_look(vocabulary: VisualWords, seed: int) -> Look:
    """Perfect visual tokens with what real ones suffer from: wrong patches, faint tokens, noise."""
    noise = torch.Generator().manual_seed(seed)

    def look(conversations: list[Conversation]) -> torch.Tensor:
        words = torch.stack([torch.from_numpy(c.patches.words) for c in conversations])
        details = torch.stack([torch.from_numpy(c.patches.details) for c in conversations])
        wrong = torch.rand(words.shape, generator=noise) < 0.03
        words = torch.where(wrong, torch.randint(len(PATCH_WORDS), words.shape, generator=noise), words)
        clean = vocabulary.targets(words, details)
        faint = 0.7 + 0.3 * torch.rand(*words.shape, 1, generator=noise)
        rough = torch.randn(clean.shape, generator=noise) * (0.4 * vocabulary.norm / clean.shape[-1] ** 0.5)
        return clean * faint + rough

    return look


def add_adapter(language_model: nn.Module) -> nn.Module:
    """Freezes the model and puts LoRA on all its linear layers."""
    config = LoraConfig(r=RANK, lora_alpha=int(LORA_SCALE * RANK), target_modules=LINEARS, lora_dropout=0.0)
    return get_peft_model(language_model.requires_grad_(False), config)


def _batches(tokenizer, recipe: LanguageRecipe, step: int, pool: int = 8) -> list[list[Conversation]]:
    """The next `pool` batches, conversations of similar length together, in random order."""
    start = recipe.first + step * recipe.batch
    drawn = [conversation(tokenizer, "train", start + i) for i in range(pool * recipe.batch)]
    drawn.sort(key=lambda c: len(c.input_ids))
    batches = [drawn[i : i + recipe.batch] for i in range(0, len(drawn), recipe.batch)]
    random.Random(start).shuffle(batches)
    return batches


def fact_weights(tokenizer, size: int) -> torch.Tensor:
    """Weight of each token [V] in the loss: words that only the picture can tell count more."""
    weights = torch.ones(size)
    for word in (*NOUNS, *BACKGROUNDS, *NUMBERS, *ROWS, *COLUMNS, "above", "below"):
        weights[tokenizer.encode(f" {word}", add_special_tokens=False)] = FACT_WEIGHT
    return weights


def answer_loss(
    model: nn.Module, table: torch.Tensor, batch: list[Conversation], visual: torch.Tensor, weights: torch.Tensor
) -> tuple:
    """Weighted cross entropy over the assistant's tokens and the mean entropy; logits exist for these tokens only.

    `table` [V, D] is the tied embedding matrix, `weights` [V] from `fact_weights`. Padding stands at the right, where
    causal attention ignores it.
    """
    ids = nn.utils.rnn.pad_sequence([c.input_ids for c in batch], batch_first=True, padding_value=PAD_TOKEN_ID)
    labels = nn.utils.rnn.pad_sequence([c.labels for c in batch], batch_first=True, padding_value=-100)
    embeds = table[ids]
    embeds = embeds.masked_scatter((ids == IMAGE_TOKEN_ID)[..., None], visual.to(embeds.dtype))
    hidden = model(inputs_embeds=embeds, use_cache=False).last_hidden_state
    asked = labels[:, 1:] != -100
    logits = (hidden[:, :-1][asked] @ table.T).float()
    with torch.no_grad():
        entropy = torch.distributions.Categorical(logits=logits).entropy().mean()
    return cross_entropy(logits, labels[:, 1:][asked], weight=weights), entropy


@torch.no_grad()
def held_out_loss(model: nn.Module, tokenizer, table: torch.Tensor, look: Look, count: int = 16) -> float:
    """Loss on validation conversations, four at a time."""
    model.eval()
    losses, weights = [], fact_weights(tokenizer, len(table))
    for first in range(0, count, 4):
        batch = [conversation(tokenizer, "val", first + i) for i in range(4)]
        with torch.autocast("cpu", torch.bfloat16):
            losses.append(answer_loss(model, table, batch, look(batch), weights)[0])
    model.train()
    return torch.stack(losses).mean().item()


def train_language(
    recipe: LanguageRecipe, adapted: nn.Module, table: torch.Tensor, tokenizer, look: Look, folder: Path
) -> None:
    """Trains (or resumes, or only loads) one stage; its state is `folder/NAME.pt`."""
    weights = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=recipe.lr, weight_decay=0.0, betas=(0.9, 0.98))
    path, step = folder / f"{recipe.name}.pt", 0
    if state := load_state(path):
        set_peft_model_state_dict(adapted, state["adapter"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    started, token_weights = time.time(), fact_weights(tokenizer, len(table))
    queue: list[list[Conversation]] = []
    adapted.train()
    while step < recipe.steps:
        queue = queue or _batches(tokenizer, recipe, step)
        batch = queue.pop()
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * min((step + 1) / recipe.warmup, 1.0, 2 * (1 - step / recipe.steps) + 0.02)
        with torch.autocast("cpu", torch.bfloat16):
            loss, entropy = answer_loss(adapted, table, batch, look(batch), token_weights)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        step += 1
        log.info(
            "%s step %d loss %.3f entropy %.3f, %.0f s",
            recipe.name,
            step,
            loss.item(),
            entropy.item(),
            time.time() - started,
        )
        if step % recipe.save_every == 0 or step == recipe.steps:
            state = {"adapter": get_peft_model_state_dict(adapted), "optimizer": optimizer.state_dict(), "step": step}
            save_state(path, state)
        if step % (4 * recipe.save_every) == 0 or step == recipe.steps:
            log.info("%s held-out loss %.3f", recipe.name, held_out_loss(adapted, tokenizer, table, look))
    adapted.eval()
