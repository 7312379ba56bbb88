"""The embedded target and its trained drafter: six turns with three pictures, as from scratch, in float32."""

import pytest

from hf_mmspec.chat import Chat
from hf_mmspec.demo import load_default, samples
from hf_mmspec.evaluation.loading import load_drafter

from . import tiny

QUESTIONS = ["Please describe this image in detail.", "What else?", "And this?", "Thank you.", "This one?", "Compare."]


@pytest.mark.slow
def test_the_embedded_default():
    target, processor = load_default("float32")
    chat = Chat(target, processor, load_drafter(None, target))
    pictures = [sample["image"] for sample in samples("test", n=3)]
    for number, question in enumerate(QUESTIONS):
        images = pictures[number // 2 : number // 2 + 1] if number % 2 == 0 else []
        reply = chat.ask(question, images, max_new_tokens=24, do_sample=False, **{**tiny.BUDGET, "draft_depth": 5})
        assert reply.ids == tiny.scratch(chat, chat.messages[:-1], max_new_tokens=24)
        assert reply.reused > 144 * (number // 2) if number else reply.reused == 0
        assert reply.read < 100 + 144 * len(images)
        assert reply.speculation.acceptance_length > 1.5
