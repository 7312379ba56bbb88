"""`Chat`: ask, get an answer, ask on. A turn reads what is new, and answers as a run on the whole conversation would.

Keeps messages and caches together. What a conversation looks like as tensors is `prompt.py`'s business, what of a
cache can stay is `ConversationCache`'s.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from hf_mmspec.data import check_text, open_picture
from hf_mmspec.generation import Speculation
from hf_mmspec.generation.conversation_cache import ConversationCache
from hf_mmspec.generation.visual_spans import visual_token_ids
from hf_mmspec.modeling import Drafter

from . import storage
from .prompt import Prompt, render

_MAX_NEW_TOKENS = 512
_OURS = {
    *("inputs", "input_ids", "inputs_embeds", "attention_mask", "position_ids", "pixel_values", "image_grid_thw"),
    *("cache", "past_key_values", "use_cache", "assistant_model", "custom_generate", "return_dict_in_generate"),
}


@dataclass(frozen=True)
class Reply:
    """An answer and what it took.

    Args:
        text: as it is in the conversation from now on, special tokens left out.
        ids: the generated tokens, an end-of-turn token included.
        reused: positions of the conversation that were cached already.
        read: positions that the target had to read before the first token.
        seconds: of the whole turn; `seconds_to_first_token` of them up to the first token, pictures included.
        was_stopped: whether `Chat.stop` ended it.
        speculation: statistics of the drafting, None without a drafter.
    """

    text: str
    ids: list[int]
    reused: int
    read: int
    seconds: float
    seconds_to_first_token: float
    was_stopped: bool = False
    speculation: Speculation | None = None

    def __str__(self) -> str:
        return self.text

    @property
    def tokens_per_second(self) -> float:
        """Of decoding: the tokens after the first one, over the time since then; nan for a single token."""
        seconds = self.seconds - self.seconds_to_first_token
        return (len(self.ids) - 1) / seconds if len(self.ids) > 1 and seconds > 0 else float("nan")


class Chat:
    """One conversation with `model`, whose caches (the target's and the drafter's) go on from turn to turn.

    Every answer has the tokens of `model.generate` on the whole conversation, whatever was cached: the conversation is
    rendered anew each turn, and only what begins with the same ids and pictures is kept. A turn happens as a whole or
    not at all: an exception, also a `KeyboardInterrupt`, takes back its question; `stop`, stopping criteria and length
    limits end the answer, and what was said by then is kept.

    Not for several threads, except for `stop`.

    Attributes:
        messages: the conversation, `{"role": ..., "content": [...]}` each, with parts `{"type": "text", "text": ...}`
            and `{"type": "image", "image": PIL image}`. May be edited between turns: the caches follow.

    Args:
        model: the target, any image-text-to-text model. Layers that keep a running state instead of keys and values
            cannot go back, and a prompt that sees itself as a whole (PaliGemma) cannot go on: there each turn reads
            everything.
        processor: the target's.
        drafter: one that fits the target, or None for the stock `generate`.
        system: text of a system message.

    Raises:
        DrafterMismatchError: the drafter was made for another target.
    """

    def __init__(
        self, model: PreTrainedModel, processor: Any, drafter: Drafter | None = None, system: str | None = None
    ):
        if drafter is not None:
            drafter.bind(model)
        self.model, self.processor, self.drafter = model, processor, drafter
        self.messages: list[dict[str, Any]] = []
        if system is not None:
            self.messages.append({"role": "system", "content": [{"type": "text", "text": system}]})
        self._cache = ConversationCache(model.config) if ConversationCache.fits(model) else None
        self._stop = threading.Event()

    def ask(self, text: str, images: Sequence[Any] = (), **generate_kwargs: Any) -> Reply:
        """Ask a question and wait for the answer.

        Args:
            text: what to say.
            images: shown before the text: paths, bytes or PIL images.
            generate_kwargs: as for `generate`: `streamer`, `max_new_tokens` (512 if nothing limits the length),
                `do_sample`, `stopping_criteria`, the draft budget. A streamer is ended also where `generate` raises.

        Raises:
            PictureError: a picture cannot be opened.
            PlaceholderError: the text holds a word that the model reads as a place for a picture.
            ValueError: an argument that a chat sets itself, or more than one answer at a time is asked for.
        """
        check_text(self.processor, self.model.config, text)
        pictures = [{"type": "image", "image": open_picture(image)} for image in images]
        question = {"role": "user", "content": [*pictures, {"type": "text", "text": text}]}
        reply = self._answer([*self.messages, question], generate_kwargs)
        self.messages += [question, _message(reply)]
        return reply

    def regenerate(self, **generate_kwargs: Any) -> Reply:
        """Answer the last question once more, in place of the answer that is there.

        Raises:
            ValueError: there is none, or as `ask`.
        """
        self._check_last_turn()
        reply = self._answer(self.messages[:-1], generate_kwargs)
        self.messages[-1] = _message(reply)
        return reply

    def undo(self) -> dict[str, Any]:
        """Take back the last question and its answer; returns the question's message.

        Raises:
            ValueError: nothing was asked yet.
        """
        self._check_last_turn()
        question = self.messages[-2]
        del self.messages[-2:]
        return question

    def stop(self) -> None:
        """End the answer that is being generated after its next token; what was said is kept. From any thread, or from
        a signal handler."""
        self._stop.set()

    def save(self, path: str | Path) -> None:
        """Write the conversation with its pictures to a file, over what is there, as a whole or not at all."""
        storage.write(Path(path), self.messages)

    @classmethod
    def load(cls, path: str | Path, model: PreTrainedModel, processor: Any, drafter: Drafter | None = None) -> "Chat":
        """A chat that goes on with a saved conversation, with any model; its first turn reads all of it.

        Raises:
            ChatFileError: the file is not a saved chat.
        """
        messages = storage.read(Path(path))
        chat = cls(model, processor, drafter)
        chat.messages = messages
        return chat

    def _check_last_turn(self) -> None:
        if [message["role"] for message in self.messages[-2:]] != ["user", "assistant"]:
            raise ValueError("there is no question to take back: nothing was asked yet")

    def _answer(self, messages: Sequence[dict[str, Any]], generate_kwargs: dict[str, Any]) -> Reply:
        """Answer `messages`, and leave the caches with them; after an exception they hold what was reused."""
        start = time.perf_counter()
        self._stop.clear()
        kwargs = self._arguments(generate_kwargs)
        prompt = render(self.model, self.processor, messages)
        request, reused = self._go_on(prompt)
        turn, streamer = _Turn(self._stop), None
        if kwargs.get("streamer") is not None:
            kwargs["streamer"] = streamer = _EndsOnce(kwargs["streamer"])
        kwargs["stopping_criteria"] = StoppingCriteriaList([*(kwargs.get("stopping_criteria") or ()), turn])
        try:
            output = self.model.generate(**request, **kwargs, return_dict_in_generate=True)
        except BaseException:
            if self._cache is not None:
                self._cache.cut(reused)
            if streamer is not None:
                streamer.end()  # or else its reader waits for ever
            raise
        ids = output.sequences[0].tolist()
        if self._cache is not None:
            self._cache.remember(ids, prompt.digests, tuple(visual_token_ids(self.model.config).values()))
        answer = ids[len(prompt.ids) :]
        return Reply(
            text=self.processor.decode(answer, skip_special_tokens=True),
            ids=answer,
            reused=reused,
            read=len(prompt.ids) - reused,
            seconds=time.perf_counter() - start,
            seconds_to_first_token=turn.first_token - start,
            was_stopped=turn.has_stopped,
            speculation=getattr(output, "speculation", None),
        )

    def _go_on(self, prompt: Prompt) -> tuple[dict[str, Any], int]:
        """What `generate` gets for `prompt`, and how many positions it finds in the cache."""
        if self._cache is None:
            return prompt.request() or {}, 0
        request = prompt.request(self._cache.reuse(prompt.ids, prompt.digests))
        if request is None:
            self._cache.cut(0)
            request = prompt.request() or {}
        return {**request, "cache": self._cache}, self._cache.get_seq_length()

    def _arguments(self, given: dict[str, Any]) -> dict[str, Any]:
        """The caller's arguments for `generate`, checked, with what a chat adds."""
        ours = sorted(_OURS & given.keys())
        if ours:
            raise ValueError(f"a chat sets {', '.join(ours)} itself: leave it out")
        configs = [each for each in (given.get("generation_config"), self.model.generation_config) if each is not None]

        def asked(name: str) -> Any:
            """What `generate` will take: of the call, else of its config, else of the model's."""
            found = (given.get(name), *(getattr(config, name, None) for config in configs))
            return next((value for value in found if value is not None), None)

        for name in ("num_beams", "num_return_sequences"):
            if asked(name) not in (None, 1):
                raise ValueError(f"a chat has one answer for each question: set {name}=1")
        kwargs = dict(given)
        if not asked("max_new_tokens") and not asked("max_length"):
            kwargs["max_new_tokens"] = _MAX_NEW_TOKENS
        if asked("stop_strings"):
            kwargs.setdefault("tokenizer", self.processor.tokenizer)
        if asked("use_cache") is False:
            kwargs["use_cache"] = True  # a checkpoint's word about itself; the cache here is the chat's
        if self._cache is not None and asked("cache_implementation") is not None:
            kwargs["cache_implementation"] = None
        if self.drafter is not None:
            kwargs["assistant_model"] = self.drafter
        return kwargs


class _EndsOnce(BaseStreamer):
    """Hands everything on; whoever tells it of the end first is heard."""

    def __init__(self, inner: BaseStreamer):
        self._inner = inner
        self._has_ended = False

    def put(self, value: torch.Tensor) -> None:
        self._inner.put(value)

    def end(self) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._inner.end()


class _Turn(StoppingCriteria):
    """Ends an answer where `Chat.stop` was called, and knows when its first token was there."""

    def __init__(self, stop: threading.Event):
        self._stop = stop
        self.first_token = 0.0
        self.has_stopped = False

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        self.first_token = self.first_token or time.perf_counter()
        self.has_stopped = self._stop.is_set()
        return torch.full((input_ids.shape[0],), self.has_stopped, dtype=torch.bool, device=input_ids.device)


def _message(reply: Reply) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": reply.text}]}
