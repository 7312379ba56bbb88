"""Targets and processors for chats, of real classes; a counter of what their decoder and a drafter read."""

from contextlib import contextmanager

import torch
from PIL import Image
from transformers import MistralConfig

from hf_mmspec.chat.prompt import render
from hf_mmspec.modeling import FAMILIES
from tests.evaluation.tiny import tiny_processor, tiny_target
from tests.training.tiny_qwen import qwen_processor, qwen_target

SLIDING = dict(sliding_window=24, num_key_value_heads=2)


def llava():
    return tiny_target(), tiny_processor()


def qwen():
    processor = qwen_processor()
    return qwen_target(processor), processor


def sliding():
    """LLaVA on Mistral: a window much shorter than a picture."""
    text = tiny_target().config.text_config.to_dict()
    known = {name: text[name] for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")}
    return tiny_target(text_config=MistralConfig(**known, num_attention_heads=4, **SLIDING)), tiny_processor()


TARGETS = {"llava": llava, "qwen": qwen, "sliding": sliding}
# name -> (family, fields)
DRAFTERS = {
    "vispec": ("vispec", {}),
    "msd": ("msd", {}),
    "flash": ("flash", {"num_latents": 4}),
    "flash, released rows": ("flash", {"num_latents": 4, "released_rows": True}),
    "eagle": ("eagle", {}),
    "eagle3": ("eagle3", {"feature_layers": [0, 1]}),
    "eagle without images": ("eagle", {"visual": "skipped"}),
}
BUDGET = dict(draft_mode="tree", draft_depth=3, draft_top_k=3, draft_total_tokens=8)


def build_drafter(name, target, draft_token_ids=None):
    torch.manual_seed(1)
    family, fields = DRAFTERS[name]
    return FAMILIES[family][1].from_target(target, draft_token_ids, initializer_range=0.3, **fields)


def picture(number, size=(24, 16)):
    """Any number of different pictures."""
    generator = torch.Generator().manual_seed(number)
    pixels = torch.randint(0, 256, (size[1], size[0], 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def scratch(chat, messages, **kwargs):
    """The new ids of stock `generate` on a whole conversation, without any cache."""
    inputs = render(chat.model, chat.processor, messages).inputs
    output = chat.model.generate(**inputs, do_sample=False, **kwargs)
    return output[0, inputs["input_ids"].shape[1] :].tolist()


@contextmanager
def rows_read(module):
    """Counts the rows of each forward of `module`, a text decoder or a drafter's first layer."""
    counts = []

    def count(_, args, kwargs):
        values = kwargs.get("inputs_embeds")
        values = args[0] if values is None and args else values
        counts.append((kwargs["input_ids"] if values is None else values).shape[1])

    handle = module.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield counts
    finally:
        handle.remove()
