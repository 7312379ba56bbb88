"""A row of a table becomes a conversation.

Opens no picture and no table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .chat_form import append_text, read_chat
from .columns import Columns
from .conversation import Conversation
from .errors import UnusableSample
from .picture_root import PictureRoot


@dataclass(frozen=True)
class RowReader:
    """How the rows of one table are read.

    Args:
        columns: which is what; all that is None is not there.
        pictures: where paths lead.
        labels: names of the numbers in a task column of class labels.
        append: put behind the last user message.
    """

    columns: Columns
    pictures: PictureRoot
    labels: tuple[str, ...] = ()
    append: str = ""

    def read(self, row: Mapping[str, Any], number: int) -> Conversation:
        """The conversation of a row, `number` in its table.

        Raises:
            UnusableSample: it has none, or a picture is missing.
        """
        values = [each for name in (self.columns.image, self.columns.images) if name for each in _as_list(row[name])]
        read, pictures = read_chat(self._chat(row), values)
        messages = append_text(read, self.append) if self.append else read
        found = [self.pictures.find(value) for value in pictures]
        return Conversation(messages, found, self._task(row), self._key(row, number))

    def _chat(self, row: Mapping[str, Any]) -> Any:
        if self.columns.messages:
            return row[self.columns.messages]
        prompt = row[self.columns.prompt or ""]
        if prompt is None or (isinstance(prompt, str) and not prompt.strip()):
            raise UnusableSample("no prompt", "an empty cell")
        if not isinstance(prompt, str):
            raise UnusableSample("prompt is not text", type(prompt).__name__)
        return [{"role": "user", "content": prompt}]

    def _task(self, row: Mapping[str, Any]) -> str:
        task = row[self.columns.task] if self.columns.task else None
        if task is None or task == "":
            return "all"
        return self.labels[task] if self.labels else str(task)

    def _key(self, row: Mapping[str, Any], number: int) -> str:
        """The row's number keeps keys apart where ids repeat, as for several questions to one picture."""
        name = row[self.columns.id] if self.columns.id else None
        return str(number) if name in (None, "") else f"{number}/{name}"


def _as_list(value: Any) -> list[Any]:
    """The pictures of a cell; an empty cell has none, an empty item of a list is a missing picture."""
    if isinstance(value, list | tuple):
        return list(value)
    return [] if value in (None, "") else [value]
