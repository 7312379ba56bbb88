"""What can be wrong with a wish, said before a model is loaded or run.

Its border: the wish and its prompt. Pictures are opened by `hf_mmspec.data`.
"""

from typing import Any

from hf_mmspec.data.control_tokens import check_no_control_tokens
from hf_mmspec.data.placeholders import check_text


class WishError(ValueError):
    """The wish cannot be rewritten; the message is one line for the user."""


def check_wish(wish: Any) -> None:
    """What the wish says by itself.

    Raises:
        WishError: it is no text, or an empty one.
    """
    if not isinstance(wish, str):
        raise WishError(f"a wish must be a text, not {type(wish).__name__}")
    if not wish.strip():
        raise WishError('the wish is empty: say what the image should be, as in "a cat on my sofa"')
    if any("\ud800" <= letter <= "\udfff" for letter in wish):
        raise WishError("the wish holds bytes that are no text: give it in UTF-8")


def check_for_model(wish: str, processor: Any, model_config: Any) -> None:
    """What the model would misread in it.

    Raises:
        WishError, PlaceholderError, ControlTokenError: see there.
    """
    check_wish(wish)
    check_text(processor, model_config, wish)
    check_no_control_tokens(processor, wish)


def check_length(prompt_length: int, max_new_tokens: int, model_config: Any) -> None:
    """Whether prompt and answer fit the model.

    Raises:
        WishError: they do not.
    """
    most = getattr(model_config.get_text_config(decoder=True), "max_position_embeddings", None)
    if most is not None and prompt_length + max_new_tokens > most:
        raise WishError(
            f"wish, pictures and instruction take {prompt_length:,} tokens; with {max_new_tokens:,} for the rewrite "
            f"that is more than the {most:,} that the model reads: give a shorter wish or fewer pictures."
        )
