"""A tiny random Qwen2.5-VL with a processor of its own: pictures of any size, one token per byte."""

from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessorPil

from hf_mmspec.demo.model.processor import CHAT_TEMPLATE
from tests.evaluation.tiny import tiny_processor
from tests.generation import tiny

_SPECIAL = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]


class QwenProcessor(Qwen2_5_VLProcessor):
    """Without a video processor, which needs torchvision."""

    def check_argument_for_proper_class(self, argument_name, argument):
        if argument_name != "video_processor":
            super().check_argument_for_proper_class(argument_name, argument)


def qwen_processor():
    """Pictures of 64 to 1024 pixels, a visual token for every 8 x 8 of them."""
    tokenizer = tiny_processor().tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": _SPECIAL, "image_token": "<|image_pad|>"})
    images = Qwen2VLImageProcessorPil(
        patch_size=4, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 64, "longest_edge": 1024}
    )
    template = CHAT_TEMPLATE.replace("'<image>\\n'", "'<|vision_start|><|image_pad|><|vision_end|>'")
    return QwenProcessor(image_processor=images, tokenizer=tokenizer, video_processor=None, chat_template=template)


def qwen_target(processor, **text):
    """Random weights; speaks any byte and never a picture."""
    ids = dict(zip(_SPECIAL, processor.tokenizer.convert_tokens_to_ids(_SPECIAL), strict=True))
    model = tiny.qwen(vocab_size=len(processor.tokenizer), eos_token_id=1, pad_token_id=1, bos_token_id=0, **text)
    config = model.config
    config.image_token_id, config.video_token_id = ids["<|image_pad|>"], ids["<|video_pad|>"]
    config.vision_start_token_id, config.vision_end_token_id = ids["<|vision_start|>"], ids["<|vision_end|>"]
    model.generation_config.suppress_tokens = [0, 2, 3, *ids.values()]
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = 1
    return model
