"""`mmspec chat`: a conversation in the terminal, with pictures; Ctrl-C ends an answer, not the conversation.

Reads lines, prints answers and what they took; the conversation itself is `hf_mmspec.chat`'s. Heavy imports happen
inside, so that help and bad options answer at once.
"""

import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from .options import Dtype, MaybeDrafter, Model, NewTokens, Quantize, Temperature, Threads
from .safe_text import safe, safe_lines
from .session import check_form, load_models, use_threads

if TYPE_CHECKING:
    from hf_mmspec.chat import Chat, Reply

HELP = """\
/image PATH   show a picture with the next question; repeat for several
/undo         take back the last question and its answer
/again        answer the last question once more
/save FILE    write the conversation, pictures included; mmspec chat --resume FILE goes on with it
/help         this
/quit         end, as Ctrl-D does; Ctrl-C ends an answer early, and what was said is kept"""


def chat(
    model: Model = None,
    drafter: MaybeDrafter = None,
    image: Annotated[list[Path] | None, typer.Option(help="For the first question. Repeat for several.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with a conversation that /save wrote.")] = None,
    system: Annotated[str | None, typer.Option(help="A system message, instead of the model's usual one.")] = None,
    dtype: Dtype = "auto",
    quantize: Quantize = None,
    threads: Threads = None,
    max_new_tokens: NewTokens = 512,
    temperature: Temperature = 0.0,
) -> None:
    """A conversation of many turns, with pictures; /help says how."""
    check_form(dtype, quantize)
    if resume is not None and system is not None:
        raise ValueError("--resume goes on with the system message that was saved: leave out --system")
    if resume is not None and not resume.is_file():
        raise ValueError(f"{resume}: no such file")
    from hf_mmspec.data.picture_file import open_picture

    # before any model is loaded
    pictures = [open_picture(each) for each in image or ()]
    from hf_mmspec.chat import Chat, storage

    if resume is not None:
        storage.read(resume)
    console = Console()
    use_threads(threads)
    from hf_mmspec.evaluation.contenders import sampling_arguments

    models = load_models(model, drafter, dtype, quantize, console)
    opened = Chat(*models, system=system) if resume is None else Chat.load(resume, *models)
    arguments = {"max_new_tokens": max_new_tokens, **sampling_arguments(temperature)}
    Session(opened, console, arguments, pictures).run()


class Session:
    """A chat at the terminal: lines that begin with a slash are commands, all others are questions.

    Args:
        arguments: of every answer, for `generate`.
        pictures: opened, for the first question.
    """

    def __init__(self, chat: "Chat", console: Console, arguments: dict[str, Any], pictures: list[Any]):
        self._chat, self._console, self._arguments = chat, console, arguments
        self._pictures = pictures

    def run(self) -> None:
        """Until /quit or the end of the input. What the user can mend is one line, and the chat goes on."""
        self._note(f"{self._who()} · /help for commands")
        for line in iter(self._read, None):
            try:
                if line.split()[0] in ("/quit", "/exit"):
                    return
                self._do(line)
            except (ValueError, OSError) as error:
                self._console.print(f"[red]error:[/red] {safe(error)}", soft_wrap=True)

    def _read(self) -> str | None:
        """The next line with something on it, None at the end. Ctrl-C only ends the line."""
        while True:
            try:
                line = _ask_for_line().strip()
            except EOFError:
                return None
            except KeyboardInterrupt:
                self._note("\n/quit or Ctrl-D ends the chat")
                continue
            if line:
                return line

    def _do(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        commands: dict[str, Callable[[str], None]] = {
            "/image": self._show_picture,
            "/undo": self._undo,
            "/again": self._again,
            "/save": self._save,
            "/help": lambda _: self._note(HELP),
        }
        if word in commands:
            commands[word](rest.strip())
        elif word.startswith("/") and "/" not in word[1:]:
            raise ValueError(f"{word} is no command: /help lists them")
        else:
            self._answer(lambda **kwargs: self._chat.ask(line, self._pictures, **kwargs))
            self._pictures = []

    def _show_picture(self, path: str) -> None:
        from hf_mmspec.data import open_picture

        if not path:
            raise ValueError("which picture? /image PATH")
        picture = open_picture(_find(path))
        self._pictures = [*self._pictures, picture]
        self._note(f"{picture.width} x {picture.height} pixels, shown with the next question")

    def _undo(self, _: str) -> None:
        question = self._chat.undo()
        text = " ".join(part["text"] for part in question["content"] if part["type"] == "text")
        self._note(f"taken back: {text}")

    def _again(self, _: str) -> None:
        self._answer(self._chat.regenerate)

    def _save(self, path: str) -> None:
        if not path:
            raise ValueError("where to? /save FILE")
        self._chat.save(_find(path))
        self._note(f"saved: {_find(path)}")

    def _answer(self, ask: "Callable[..., Reply]") -> None:
        from .compare import PrintingStreamer

        streamer = PrintingStreamer(self._chat.processor.tokenizer, self._console)
        try:
            with _stopped_by_ctrl_c(self._chat):
                reply = ask(streamer=streamer, **self._arguments)
        except KeyboardInterrupt:
            raise ValueError("interrupted: the question was taken back") from None
        self._note(_summary(reply))

    def _who(self) -> str:
        drafter = self._chat.drafter
        name = type(self._chat.model).__name__
        return f"{name} with {type(drafter).__name__}" if drafter is not None else f"{name} without a drafter"

    def _note(self, text: str) -> None:
        self._console.print(f"[dim]{safe_lines(text)}[/dim]", highlight=False, soft_wrap=True)


def _ask_for_line() -> str:
    """A line from the terminal, which can be edited where Python has readline; or from a pipe, without a prompt."""
    if not sys.stdin.isatty():
        return input()
    with suppress(ImportError):
        import readline  # noqa: F401  (teaches `input` to edit and to remember lines)
    return input("> ")


def _find(words: str) -> Path:
    """A path as somebody types it: spaces as they are, or quoted, or with backslashes as a terminal pastes them."""
    path = Path(words).expanduser()
    if path.exists():
        return path
    try:
        unquoted = shlex.split(words)
    except ValueError:
        return path
    return Path(unquoted[0]).expanduser() if len(unquoted) == 1 else path


@contextmanager
def _stopped_by_ctrl_c(chat: "Chat") -> Iterator[None]:
    """The first Ctrl-C ends the answer at its next token, a second one interrupts whatever is running."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []

    def stop(signum: int, frame: Any) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(signum)
        chat.stop()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _summary(reply: "Reply") -> str:
    """One line: tokens, speed, L, and what came before the first token."""
    parts = [f"{len(reply.ids)} tokens"]
    if len(reply.ids) > 1:
        parts.append(f"{reply.tokens_per_second:.1f} tokens/s")
    if reply.speculation is not None and reply.speculation.rounds:
        parts.append(f"L {reply.speculation.acceptance_length:.2f} tokens per target forward")
    parts.append(
        f"first token after {reply.seconds_to_first_token:.2f} s ({reply.read} positions read, {reply.reused} kept)"
    )
    if reply.was_stopped:
        parts.append("stopped")
    return " · ".join(parts)
