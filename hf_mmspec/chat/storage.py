"""A conversation as one file: JSON, pictures inside as PNG. Written at once or not at all; read with suspicion.

Knows messages only: caches are not kept, the first turn after loading reads the conversation again.
"""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_mmspec.data import PictureError, open_picture
from hf_mmspec.whole_file import write_whole

_FORMAT = "hf_mmspec.chat"
_ROLES = ("system", "user", "assistant")


class ChatFileError(ValueError):
    """The file is no conversation that was saved here; the message says where it ends to be one."""


def write(path: Path, messages: Sequence[dict[str, Any]]) -> None:
    """Write `messages` with their pictures to `path`, over what is there; the folder must exist.

    Raises:
        OSError: the file cannot be written; what was there stays.
    """
    content = {"format": _FORMAT, "version": 1, "messages": [_packed(message) for message in messages]}
    write_whole(path, json.dumps(content, ensure_ascii=False, indent=1))


def read(path: Path) -> list[dict[str, Any]]:
    """The messages of a file that `write` wrote, pictures opened.

    Raises:
        ChatFileError: it is something else, or broken.
        OSError: it cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ChatFileError(f"{path}: not a saved chat ({type(error).__name__})") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ChatFileError(f"{path}: not a saved chat (no format {_FORMAT!r})")
    if content.get("version") != 1:
        raise ChatFileError(f"{path}: version {content.get('version')!r}, this hf_mmspec reads 1")
    messages = content.get("messages")
    if not isinstance(messages, list):
        raise ChatFileError(f"{path}: no list of messages")
    unpacked = [_unpacked(message, f"{path}: message {number}") for number, message in enumerate(messages, start=1)]
    _check_order([message["role"] for message in unpacked], path)
    return unpacked


def _packed(message: dict[str, Any]) -> dict[str, Any]:
    return {"role": message["role"], "content": [_packed_part(part) for part in message["content"]]}


def _packed_part(part: dict[str, Any]) -> dict[str, str]:
    if part["type"] != "image":
        return {"type": "text", "text": part["text"]}
    png = io.BytesIO()
    open_picture(part["image"]).save(png, format="PNG")
    return {"type": "image", "png": base64.b64encode(png.getvalue()).decode("ascii")}


def _unpacked(message: Any, where: str) -> dict[str, Any]:
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        raise ChatFileError(f"{where} has none of the roles {', '.join(_ROLES)}")
    if not isinstance(message.get("content"), list):
        raise ChatFileError(f"{where} has no list of parts")
    return {"role": message["role"], "content": [_unpacked_part(part, where) for part in message["content"]]}


def _unpacked_part(part: Any, where: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    value = part.get({"text": "text", "image": "png"}[kind]) if kind in ("text", "image") else None
    if not isinstance(value, str):
        raise ChatFileError(f"{where} has a part that is neither text nor a picture")
    if kind == "text":
        return {"type": "text", "text": value}
    try:
        return {"type": "image", "image": open_picture(base64.b64decode(value, validate=True))}
    except (PictureError, ValueError) as error:
        raise ChatFileError(f"{where}: {error}") from error


def _check_order(roles: Sequence[str], path: Path) -> None:
    """A system message or none, then question and answer in turn."""
    turns = list(roles[1:] if roles[:1] == ["system"] else roles)
    if turns != ["user", "assistant"] * (len(turns) // 2):
        raise ChatFileError(f"{path}: questions and answers do not take turns")
