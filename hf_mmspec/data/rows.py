"""A row of a table becomes a conversation.

Opens no picture and no table.
"""

from collections.abc import Callable, Mapping
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
        columns: which is what; roles that are None are not there.
        pictures: where paths lead.
        labels: names of the numbers in a task column of class labels.
        append: put behind the last user message.
        task: of rows that name none.
        chat: the prompt or the messages of a row, where no column holds them as they are.
    """

    columns: Columns
    pictures: PictureRoot
    labels: tuple[str, ...] = ()
    append: str = ""
    task: str = "all"
    chat: Callable[[Mapping[str, Any]], Any] | None = None

    def read(self, row: Mapping[str, Any], number: int) -> Conversation:
        """The conversation of a row, `number` in its table.

        Raises:
            UnusableSample: it has none, or a picture is missing.
        """
        values = _as_list(row[self.columns.image]) if self.columns.image else []
        read, pictures = read_chat(self._messages(row), values)
        messages = append_text(read, self.append) if self.append else read
        found = [self.pictures.find(value) for value in pictures]
        return Conversation(messages, found, self._task(row), self._key(row, number))

    def _messages(self, row: Mapping[str, Any]) -> Any:
        asked = self.chat(row) if self.chat else row[self.columns.messages or self.columns.prompt or ""]
        if asked is None or (isinstance(asked, str) and not asked.strip()):
            raise UnusableSample("no prompt", "an empty cell")
        if self.columns.prompt and not isinstance(asked, str):
            raise UnusableSample("prompt is not text", type(asked).__name__)
        return [{"role": "user", "content": asked}] if isinstance(asked, str) else asked

    def _task(self, row: Mapping[str, Any]) -> str:
        task = row[self.columns.task] if self.columns.task else None
        if task is None or task == "":
            return self.task
        return self.labels[task] if self.labels else str(task)

    def _key(self, row: Mapping[str, Any], number: int) -> str:
        """The row's number keeps keys apart where ids repeat, as for several questions to one picture."""
        name = row[self.columns.id] if self.columns.id else None
        return str(number) if name in (None, "") else f"{number}/{name}"


def _as_list(value: Any) -> list[Any]:
    """The pictures of a cell; an empty cell has none, an empty item of a list is a missing picture."""
    if isinstance(value, list | tuple):
        return list(value)
    return [] if value is None or value == "" else [value]
