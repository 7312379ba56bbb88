"""The processor of the embedded default: SmolLM2's tokenizer and chat template with room for images.

Its border: a stock `LlavaProcessor`. The image token takes over a spare token of SmolLM2, so that the vocabulary
keeps its size.
"""

import json
from pathlib import Path

from transformers import AutoTokenizer, LlavaProcessor, PreTrainedTokenizerFast

from ..world.scene import SIZE
from .tower import PATCH

IMAGE_MEAN = IMAGE_STD = 0.5
IMAGE_TOKEN = "<image>"
SPARE_TOKEN = "<empty_output>"  # never used by the instruct model; its id becomes the image token's

CHAT_TEMPLATE = """\
{%- if messages and messages[0]['role'] != 'system' -%}
{{- '<|im_start|>system\\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}
{{- '<image>\\n' -}}
{%- elif part['type'] == 'text' -%}
{{- part['text'] -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def build_tokenizer(gguf: Path) -> PreTrainedTokenizerFast:
    """SmolLM2's tokenizer from its GGUF file, the spare token renamed to the image token."""
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    return with_image_token(tokenizer)


def with_image_token(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The same tokenizer with `SPARE_TOKEN` called `IMAGE_TOKEN`; every other id stays."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = backend["model"]["vocab"]
    vocabulary[IMAGE_TOKEN] = vocabulary.pop(SPARE_TOKEN)
    for added in backend["added_tokens"]:
        if added["content"] == SPARE_TOKEN:
            added["content"] = IMAGE_TOKEN
    return PreTrainedTokenizerFast(
        tokenizer_object=type(tokenizer.backend_tokenizer).from_str(json.dumps(backend)),
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        unk_token="<|endoftext|>",
        pad_token="<|im_end|>",
        extra_special_tokens={"image_token": IMAGE_TOKEN},
        model_max_length=8192,
        clean_up_tokenization_spaces=False,
    )


def _image_processor():
    from transformers import SiglipImageProcessorPil

    side = {"height": SIZE, "width": SIZE}
    return SiglipImageProcessorPil(
        size=side, image_mean=[IMAGE_MEAN] * 3, image_std=[IMAGE_STD] * 3, do_convert_rgb=True
    )


def build_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """Images to [3, 192, 192] pixels and 144 image tokens each; messages through the chat template."""
    return LlavaProcessor(
        image_processor=_image_processor(),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE_TOKEN,
    )
