"""Which column of a table is what: as options name it, else by well-known names, and only where that is safe.

Knows types of columns, never their rows.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

from .errors import DataError

KNOWN_NAMES = {
    "messages": ("messages", "conversations", "conversation"),
    "prompt": ("prompt", "question", "instruction", "query"),
    "image": ("image", "images", "image_path", "file_name", "img", "picture", "pictures"),
    "task": ("task", "category"),
    "id": ("id", "question_id"),
}
"""Role -> names that are safe to guess, in small letters."""


@dataclass(frozen=True)
class Columns:
    """Names of columns; None is guessed, and a role that nothing fits stays None.

    Args:
        prompt: what the user asks, text.
        image: a picture: a path, bytes or a `datasets.Image`; or a list of them. Empty in rows without one.
        messages: a conversation in chat form, instead of `prompt`.
        task: what a report counts the row under.
        id: becomes a part of the conversation's key.
    """

    prompt: str | None = None
    image: str | None = None
    messages: str | None = None
    task: str | None = None
    id: str | None = None

    @property
    def named(self) -> dict[str, str]:
        """Role -> column, of those that are known."""
        return {field.name: name for field in fields(self) if (name := getattr(self, field.name))}


def option(role: str) -> str:
    """The option of the command line that names the column of this role."""
    return f"--{role}-column"


def find_columns(asked: Columns, features: Any, where: str) -> Columns:
    """`asked` with the rest guessed from the names in `features`, every type checked.

    Args:
        features: a `datasets.Features`.
        where: names the data in errors.

    Raises:
        DataError: a named column is missing, two fit one role, none holds prompts, or one has the wrong type.
    """
    for role, name in asked.named.items():
        if name not in features:
            raise DataError(f"{where} has no column {name!r} ({option(role)}); it has {_listed(features)}")
    found = _with_guess(asked, "image", features, where)
    found = _with_prompt(found, features, where)
    for role in ("task", "id"):
        found = _with_guess(found, role, features, where)
    check_columns(found, features, where)
    return found


def check_columns(columns: Columns, features: Any, where: str) -> None:
    """Raises DataError if a column is of a type that its role cannot have."""
    for role, name in columns.named.items():
        wanted, fits = TYPES[role]
        if not fits(features[name]):
            kind = _type_name(features[name])
            chat = f"; for whole conversations use {option('messages')}" if _is_chat(features[name]) else ""
            raise DataError(f"{where}: column {name!r} must hold {wanted} ({option(role)}), not {kind}{chat}")


def holds_paths(feature: Any) -> bool:
    """Whether a column of pictures holds text, so paths: such pictures do not come with the rows."""
    return _is_text(feature) or _is_text(_item(feature))


def _listed(names: Any) -> str:
    return ", ".join(repr(name) for name in names)


def _only(features: Any, known: tuple[str, ...], roles: tuple[str, ...], taken: Columns, where: str) -> str | None:
    """The one column with a known name, None if there is none."""
    fits = [name for name in features if name.lower() in known and name not in taken.named.values()]
    if len(fits) > 1:
        options = " or ".join(option(role) for role in roles)
        raise DataError(f"{where} has several columns for one role, {_listed(fits)}: choose one with {options}")
    return fits[0] if fits else None


def _with_guess(asked: Columns, role: str, features: Any, where: str) -> Columns:
    known = asked.named.get(role) or _only(features, KNOWN_NAMES[role], (role,), asked, where)
    return replace(asked, **{role: known})


def _with_prompt(asked: Columns, features: Any, where: str) -> Columns:
    """Either a prompt or messages. A column "text" beside pictures is mostly a caption, so it must be named there."""
    if asked.prompt and asked.messages:
        raise DataError(f"{where}: give {option('prompt')} or {option('messages')}, not both")
    if asked.prompt or asked.messages:
        return asked
    roles = ("prompt", "messages")
    name = _only(features, KNOWN_NAMES["prompt"] + KNOWN_NAMES["messages"], roles, asked, where)
    if name is None and not asked.image:
        name = _only(features, ("text",), roles, asked, where)
    if name is None:
        raise DataError(
            f"{where} has no column known to hold prompts among {_listed(features)}: "
            f"name it with {option('prompt')}, or with {option('messages')} if it holds whole conversations"
        )
    return replace(asked, **{"messages" if name.lower() in KNOWN_NAMES["messages"] else "prompt": name})


def _type_name(feature: Any) -> str:
    return getattr(feature, "dtype", None) or " ".join(str(feature).split())[:80]


def _is(feature: Any, *kinds: str) -> bool:
    """Whether the feature is of one of these kinds: a class of `datasets`, or a type of its `Value`."""
    return type(feature).__name__ in kinds or (type(feature).__name__ == "Value" and feature.dtype in kinds)


def _item(feature: Any) -> Any:
    """What a list holds; None if it is no list."""
    if _is(feature, "List", "LargeList", "Sequence"):
        return feature.feature
    return feature[0] if isinstance(feature, list) else None


def _is_text(feature: Any) -> bool:
    return _is(feature, "string", "large_string", "string_view", "Json")


def _is_label(feature: Any) -> bool:
    return (
        _is_text(feature) or _is(feature, "ClassLabel", "bool") or (_is(feature, "Value") and "int" in feature.dtype)
    )


def _is_picture(feature: Any) -> bool:
    if isinstance(feature, dict):
        return {"bytes", "path"} >= set(feature)
    return _is_text(feature) or _is(feature, "Image", "binary", "large_binary", "null")


def _is_chat(feature: Any) -> bool:
    if isinstance(feature, dict):  # how older versions of datasets keep a list of structs
        return all(_item(each) is not None for each in feature.values())
    return _is(feature, "Json") or isinstance(_item(feature), dict) or _is(_item(feature), "Json")


TYPES = {
    "prompt": ("text", _is_text),
    "image": ("pictures or their paths", lambda each: _is_picture(each) or _is_picture(_item(each))),
    "messages": ("lists of messages", _is_chat),
    "task": ("names", _is_label),
    "id": ("names or whole numbers", _is_label),
}
