"""One answer as a row of the data set, and back to what was asked.

Knows the columns of `store.py`; opens no picture.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from hf_mmspec.data import Conversation

from ..features.reading import Answered


def to_row(answered: Answered, temperature: float) -> dict[str, Any]:
    """The columns of `store.FEATURES`."""
    conversation = answered.conversation
    return {
        "input_ids": list(answered.ids),
        "prompt_length": answered.prompt_length,
        "messages": [
            {"role": m["role"], "content": [{"type": p["type"], "text": p.get("text")} for p in m["content"]]}
            for m in conversation.messages
        ],
        "images": [picture_column(picture) for picture in conversation.pictures],
        "task": conversation.task,
        "key": conversation.key,
        "temperature": temperature if conversation.answer_temperature is None else conversation.answer_temperature,
    }


def from_row(row: Mapping[str, Any]) -> Answered:
    """What was asked, and the answer."""
    messages = [
        {"role": m["role"], "content": [{k: v for k, v in part.items() if v is not None} for part in m["content"]]}
        for m in row["messages"]
    ]
    conversation = Conversation(messages, row["images"] or (), row["task"], row["key"])
    return Answered(conversation, row["input_ids"], row["prompt_length"])


def picture_column(picture: Any) -> dict[str, Any]:
    """A file as its path, so that pictures are not kept twice; anything else as bytes."""
    if isinstance(picture, Mapping):
        return {"bytes": picture.get("bytes"), "path": picture.get("path")}
    if isinstance(picture, str | Path):
        return {"bytes": None, "path": str(Path(picture).resolve())}
    if isinstance(picture, Image.Image):
        file = io.BytesIO()
        picture.save(file, format="PNG")
        return {"bytes": file.getvalue(), "path": None}
    return {"bytes": bytes(picture), "path": None}
