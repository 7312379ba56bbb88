"""`PromptRewriter`: a chat model that turns a wish and pictures into what an image generator gets.

Its border: the flow of a request. The grammar is in `grammar.py`, the words in `instruction.py`, drafting in
`generate`.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList

from hf_mmspec.data import Conversation, model_inputs, open_picture
from hf_mmspec.modeling import Drafter

from .fields import FieldStream, StopWhenAbandoned, finished_fields
from .grammar import GrammarProcessor, RewriteGrammar
from .instruction import rewriting_messages
from .rewrite import Rewrite
from .vocabulary import Vocabulary
from .wish import check_for_model, check_length


class PromptRewriter:
    """Prompt rewriting in the style of Seedream 4.0, whose own model is not public.

    The answer is one JSON object whose form is enforced token by token, so that it is always a whole `Rewrite`. A
    drafter makes it sooner and changes nothing: with and without it a float32 target writes the same object.

    Args:
        model: any chat model of transformers that takes pictures (or one for texts only, then without pictures).
        processor: its processor, or its tokenizer; fast, with a chat template that takes a system message.
        drafter: a drafter for the model, or None.
        thinking: the most tokens of reasoning; 0 for none. The model may stop before.
        max_new_tokens: the most tokens of an answer. The rewritten prompt is closed in time, so an answer is whole.

    Raises:
        ValueError: the tokenizer is not a fast one, the drafter does not fit, or a number is out of range.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Any,
        drafter: Drafter | None = None,
        thinking: int = 128,
        max_new_tokens: int = 512,
    ):
        self.model, self.processor, self.drafter = model, processor, drafter
        if drafter is not None:
            drafter.bind(model)
        tokenizer = getattr(processor, "tokenizer", processor)
        size = model.config.get_text_config(decoder=True).vocab_size
        vocabulary = Vocabulary(tokenizer, size, _end_of(model.generation_config, tokenizer))
        self.grammar = RewriteGrammar(vocabulary, thinking, max_new_tokens)

    def __call__(
        self,
        wish: str | list[str] | tuple[str, ...],
        pictures: Sequence[Any] = (),
        batch_size: int = 1,
        **options: Any,
    ) -> Rewrite | list[Rewrite]:
        """Rewrite one wish, or several.

        Args:
            wish: what the user asks for; a list gives a list.
            pictures: what the wish is about, as anything that `hf_mmspec.data.open_picture` opens; for a list of
                wishes a list for each of them.
            batch_size: so many wishes of a list are read and written at once.
            options: of `generate`, such as `do_sample=True, temperature=0.7`; it decodes greedily without.

        Raises:
            WishError: the wish is empty or no text, or does not fit the model.
            PlaceholderError, ControlTokenError: the wish holds a word that the model reads as a signal.
            PictureError: a picture cannot be opened. All before the model runs.
            ValueError: `batch_size` is below 1.
        """
        if not isinstance(wish, list | tuple):
            return self._rewrite(self.inputs(wish, pictures), options)[0]
        each = list(pictures) or [()] * len(wish)
        if len(each) != len(wish):
            raise ValueError(f"{len(wish)} wishes need as many lists of pictures, got {len(each)}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        requests = list(zip(wish, each, strict=True))
        batches = [requests[start : start + batch_size] for start in range(0, len(requests), batch_size)]
        prepared = [self.batch_inputs(batch) for batch in batches]
        return [rewrite for inputs in prepared for rewrite in self._rewrite(inputs, options)]

    def stream(self, wish: str, pictures: Sequence[Any] = (), **options: Any) -> Iterator[tuple[str, str]]:
        """The same, field by field: yields `(name, value)` as soon as a field is whole, in the order of writing.

        Whoever stops reading before the end also stops the model.
        """
        inputs = self.inputs(wish, pictures)
        return self._stream(inputs, options)

    def inputs(self, wish: str, pictures: Sequence[Any] = ()) -> dict[str, torch.Tensor]:
        """What `generate` gets for a request, on the model's device; raises what a call raises."""
        return self.batch_inputs([(wish, pictures)])

    def batch_inputs(self, requests: Sequence[tuple[str, Sequence[Any]]]) -> dict[str, torch.Tensor]:
        """As `inputs`, of several wishes with their pictures, padded on the left."""
        conversations = []
        for wish, pictures in requests:
            check_for_model(wish, self.processor, self.model.config)
            opened = [open_picture(picture) for picture in pictures]
            conversations.append(Conversation(rewriting_messages(wish, len(opened)), opened))
        inputs = dict(model_inputs(self.processor, conversations).to(self.model.device, self.model.dtype))
        check_length(inputs["input_ids"].shape[1], self.grammar.limits.answer, self.model.config)
        return inputs

    def generate(self, inputs: dict[str, torch.Tensor], **options: Any) -> Any:
        """`model.generate` with the drafter and the grammar; returns what it returns. `assistant_model=None` leaves
        the drafter out.

        Args:
            inputs: from `inputs` or `batch_inputs`.
            options: of `generate`, stronger than what is chosen here.
        """
        form = self.form_of(inputs, options.pop("logits_processor", ()))
        chosen = {"do_sample": False, "assistant_model": self.drafter, **options}
        return self.model.generate(
            **inputs,
            **{name: value for name, value in chosen.items() if value is not None},
            **form,
            max_new_tokens=self.grammar.limits.answer,
        )

    def form_of(self, inputs: dict[str, torch.Tensor], processors: Iterable[Any] = ()) -> dict[str, Any]:
        """The options of `generate` that enforce the form of these requests' answers, after other `processors`."""
        return {
            "eos_token_id": self.grammar.vocabulary.eos_token_id,
            "logits_processor": LogitsProcessorList([*processors, self.processor_for(inputs)]),
        }

    def processor_for(self, inputs: dict[str, torch.Tensor]) -> GrammarProcessor:
        """The logits processor of these requests."""
        return self.grammar.processor(inputs["input_ids"].shape[1])

    def read(self, ids: Sequence[int]) -> Rewrite:
        """The object that an answer's ids (without the prompt's) are, padding behind its end included."""
        end = self.grammar.vocabulary.eos_token_id
        answer = ids[: ids.index(end)] if end in ids else ids
        return Rewrite.model_validate_json(self.grammar.text(answer))

    def _rewrite(self, inputs: dict[str, torch.Tensor], options: dict[str, Any]) -> list[Rewrite]:
        written = self.generate(inputs, **options)
        ids = written if isinstance(written, torch.Tensor) else written.sequences
        return [self.read(row) for row in ids[:, inputs["input_ids"].shape[1] :].tolist()]

    def _stream(self, inputs: dict[str, torch.Tensor], options: dict[str, Any]) -> Iterator[tuple[str, str]]:
        tokens, stop = FieldStream(), StopWhenAbandoned()
        criteria = StoppingCriteriaList([*options.pop("stopping_criteria", ()), stop])
        told: set[str] = set()
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(self.generate, inputs, streamer=tokens, stopping_criteria=criteria, **options)
            writing.add_done_callback(lambda _: tokens.end())
            try:
                answer: list[int] = []
                for token in tokens:
                    answer.append(token)
                    for name, value in finished_fields(self.grammar.text(answer)).items():
                        if name not in told:
                            told.add(name)
                            yield name, value
                writing.result()  # raises what `generate` raised
            finally:
                stop.abandoned = True


def _end_of(generation_config: GenerationConfig, tokenizer: Any) -> int:
    """The token that ends an answer: the model's first, else the tokenizer's."""
    ends = generation_config.eos_token_id
    end = next(iter(ends), None) if isinstance(ends, list | tuple) else ends
    end = tokenizer.eos_token_id if end is None else end
    if end is None:
        raise ValueError("neither the model's generation_config nor its tokenizer has an end-of-sequence token")
    return int(end)
