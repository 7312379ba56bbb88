"""One prompt as everything here takes it: messages with places for pictures, and the pictures themselves.

Knows neither where it comes from (`sources.py`) nor who answers it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import TemplateError

from .picture_file import open_picture


@dataclass(frozen=True)
class Conversation:
    """A conversation that waits for an answer: its last message is the user's.

    Args:
        messages: `{"role": ..., "content": [...]}` each, where a part of the content is
            `{"type": "text", "text": ...}` or `{"type": "image"}`, a place for the next picture.
        pictures: one for each place, in order, as anything that `open_picture` opens; not opened yet.
        task: what the report counts it under.
        key: names it within its source, so that an interrupted run finds it again.
        answer_ids: the target's own answer where it is known already, and the `answer_temperature` it was drawn at.
        grading: what a grader needs to judge an answer, where there is one (`hf_mmspec.demo.grade` takes it).
    """

    messages: Sequence[Mapping[str, Any]]
    pictures: Sequence[Any] = ()
    task: str = "all"
    key: str = ""
    answer_ids: Sequence[int] | None = None
    answer_temperature: float | None = None
    grading: Mapping[str, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        places = sum(part["type"] == "image" for message in self.messages for part in message["content"])
        if places != len(self.pictures):
            raise ValueError(f"the messages have {places} places for pictures but there are {len(self.pictures)}")

    @property
    def text(self) -> str:
        """All text of all messages, a line for each part."""
        return "\n".join(part["text"] for m in self.messages for part in m["content"] if part["type"] == "text")

    def opened(self) -> list[dict[str, Any]]:
        """The messages with their pictures in place, RGB and upright, as `processor.apply_chat_template` takes them.

        Raises:
            PictureError: a picture cannot be opened.
        """
        pictures = iter(self.pictures)

        def fill(part: Mapping[str, Any]) -> dict[str, Any]:
            return {**part, "image": open_picture(next(pictures))} if part["type"] == "image" else dict(part)

        return [{**message, "content": [fill(part) for part in message["content"]]} for message in self.messages]


def user_message(text: str, pictures: int = 0) -> dict[str, Any]:
    """A user's message with places for pictures before its text."""
    return {"role": "user", "content": [*({"type": "image"} for _ in range(pictures)), {"type": "text", "text": text}]}


def model_inputs(processor: Any, conversations: Sequence[Conversation], padding_side: str = "left") -> Any:
    """Conversations as the tensors that the target takes: a `BatchFeature` of a padded batch, ready for an answer.

    Args:
        processor: the target's; it is left as it was.
        padding_side: `"left"` to generate, `"right"` to append answers.

    Raises:
        PictureError: a picture cannot be opened.
        ValueError: the processor or its chat template refuses a conversation.
    """
    opened = [conversation.opened() for conversation in conversations]
    try:
        return processor.apply_chat_template(
            opened,
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
            processor_kwargs={"padding": True, "padding_side": padding_side, "return_tensors": "pt"},
        )
    except TemplateError as error:  # templates raise it themselves, for example where a role has no place in them
        raise ValueError(f"the chat template refuses this conversation: {error}") from error
