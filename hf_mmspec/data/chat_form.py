"""Conversations as data sets write them, brought to one form: messages with places, and the picture of each place.

Reads OpenAI's and transformers' `role`/`content` and ShareGPT's `from`/`value`. Pictures pass through as they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import UnusableSample

MARK = "<image>"
"""Stands for a picture in LLaVA's data, and only there: in other forms it is text that somebody wrote."""

_ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model"), "assistant"),
    "system": "system",
}


@dataclass
class _Place:
    """Where a picture stands: with its own `value`, or as number `index` of the row's pictures, or as the next one."""

    value: Any = None
    index: int | None = None


@dataclass
class _Turn:
    role: str
    parts: list[str | _Place]

    @property
    def places(self) -> list[_Place]:
        return [part for part in self.parts if isinstance(part, _Place)]

    @property
    def content(self) -> list[dict[str, Any]]:
        return [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in self.parts]


def read_chat(raw: Any, pictures: Sequence[Any] = ()) -> tuple[list[dict[str, Any]], list[Any]]:
    """Messages up to the last of the user, as `Conversation` has them, and one picture for each place.

    What the assistant says before the first user message or behind the last one is left out, with its pictures: the
    target answers itself, and chat templates begin with the user.

    Args:
        raw: a list of messages in either form. Keys that are None count as absent, since `datasets` fills up structs.
        pictures: those of the row. Without any place for them they go before the first user message's text.

    Raises:
        UnusableSample: an unknown form, role or part; no user message; no text in the last one; or other numbers of
            places than of pictures.
    """
    turns = [_read_message(message) for message in _as_list(raw)]
    users = [i for i, turn in enumerate(turns) if turn.role == "user"]
    if not users:
        raise UnusableSample("no user message")
    _allot(turns, turns[users[0]], pictures)
    turns = [turn for turn in turns[: users[0]] if turn.role == "system"] + turns[users[0] : users[-1] + 1]
    if not any(isinstance(part, str) and part.strip() for part in turns[-1].parts):
        raise UnusableSample("no prompt", "the last user message has no text")
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    return messages, [place.value for turn in turns for place in turn.places]


def append_text(messages: Sequence[Mapping[str, Any]], text: str) -> list[Mapping[str, Any]]:
    """The same messages with `text` behind the last one, a space before it."""
    *before, last = messages
    *parts, end = last["content"]
    added = (
        [{**end, "text": f"{end['text']} {text}"}] if end["type"] == "text" else [end, {"type": "text", "text": text}]
    )
    return [*before, {**last, "content": [*parts, *added]}]


def _as_list(raw: Any) -> Sequence[Any]:
    if isinstance(raw, Mapping) and raw and all(isinstance(each, list) for each in raw.values()):
        return [dict(zip(raw, each, strict=True)) for each in zip(*raw.values(), strict=True)]
    if not isinstance(raw, list | tuple):
        raise UnusableSample("messages of an unknown form", f"{type(raw).__name__} instead of a list")
    return raw


def _read_message(message: Any) -> _Turn:
    if not isinstance(message, Mapping):
        raise UnusableSample("messages of an unknown form", f"a message is {type(message).__name__}")
    known = {key: value for key, value in message.items() if value is not None}
    if "from" in known:
        return _Turn(_role(known["from"]), _read_marks(known.get("value")))
    if "role" in known:
        return _Turn(_role(known["role"]), _read_content(known.get("content")))
    raise UnusableSample("messages of an unknown form", f"a message has the keys {', '.join(map(str, known))}")


def _role(name: Any) -> str:
    if not isinstance(name, str) or name not in _ROLES:
        raise UnusableSample("unknown message role", str(name)[:40])
    return _ROLES[name]


def _read_marks(value: Any) -> list[str | _Place]:
    """LLaVA's text: marks become places; the line break that sets a mark apart from the text goes with it."""
    if not isinstance(value, str):
        raise UnusableSample("messages of an unknown form", f"a value is {type(value).__name__}, not text")
    parts: list[str | _Place] = []
    for i, text in enumerate(value.split(MARK)):
        parts += [_Place()] if i else []
        parts += [text.strip()] if text.strip() else []
    return parts


def _read_content(content: Any) -> list[str | _Place]:
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list | tuple):
        raise UnusableSample("messages of an unknown form", f"a content is {type(content).__name__}")
    return [_read_part(part) for part in content]


def _read_part(part: Any) -> str | _Place:
    if isinstance(part, str):
        return part
    known = {key: value for key, value in part.items() if value is not None} if isinstance(part, Mapping) else {}
    kind = known.get("type")
    if kind == "text" and isinstance(known.get("text"), str):
        return known["text"]
    if kind == "image":
        value = next((known[key] for key in ("image", "path", "url", "base64") if key in known), None)
        index = known.get("index")
        return _Place(value, index if isinstance(index, int) else None)
    if kind == "image_url":
        url = known.get("image_url")
        return _Place(url.get("url") if isinstance(url, Mapping) else url)
    raise UnusableSample("unknown message part", str(kind)[:40])


def _allot(turns: list[_Turn], first_user: _Turn, pictures: Sequence[Any]) -> None:
    """Gives every place its picture."""
    places = [place for turn in turns for place in turn.places]
    if not places:
        places = [_Place() for _ in pictures]
        first_user.parts[:0] = places
    empty = [place for place in places if place.value is None]
    numbers = [i if place.index is None else place.index for i, place in enumerate(empty)]
    if len(empty) > len(pictures):
        raise UnusableSample("more places than pictures", f"{len(empty)} places, {len(pictures)} pictures")
    if sorted(numbers) != list(range(len(pictures))):
        raise UnusableSample("more pictures than places", f"{len(pictures)} pictures, {len(empty)} places")
    for place, number in zip(empty, numbers, strict=True):
        place.value = pictures[number]
