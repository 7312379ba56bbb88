"""A tokenizer for the tiny targets, as stop strings need one that can spell."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from . import tiny

_PRINTABLE = 94
UNSPELLABLE = list(range(_PRINTABLE, tiny.VOCAB))  # tokens that are no printable character


def spelling_tokenizer():
    """Byte-level, one printable character per id."""
    characters = [chr(33 + i) for i in range(_PRINTABLE)] + sorted(
        set(pre_tokenizers.ByteLevel.alphabet()) - set(map(chr, range(127)))
    )
    vocabulary = {character: i for i, character in enumerate(characters[: tiny.VOCAB])}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="!", clean_up_tokenization_spaces=False)
