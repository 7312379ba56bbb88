"""The grammar by itself: whatever is drawn under it is a whole object within its limits, and states go back."""

import json
import random

import pytest
import torch

from hf_mmspec.generation import DraftConstraint
from hf_mmspec.rewriting.grammar import RewriteGrammar, least_new_tokens
from hf_mmspec.rewriting.instruction import ASPECT_RATIOS, FIELDS, TASKS, rewrite_json
from hf_mmspec.rewriting.rewrite import Rewrite
from hf_mmspec.rewriting.vocabulary import Vocabulary

EOS = 1


@pytest.fixture(scope="module")
def vocabulary(processor):
    return Vocabulary(processor.tokenizer, 260, EOS)


@pytest.fixture(scope="module")
def merged(processor):
    """A vocabulary in which texts, quotation marks, escapes and halves of characters share tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [('"', ","), (".", '",'), ("\\", '"'), ("\\\\"[:1], "n"), ("t", "e"), (".", '"'), ('"', "}"), ('."', "}")]
    merges += [("ð", "Ł"), ("x", "ð"), ("\\n", "\\"), (":", '"'), ("Ġ", '"'), ('"', ":")]
    words = ["<|im_start|>", "<|im_end|>", *alphabet, *dict.fromkeys(a + b for a, b in merges)]
    backend = Tokenizer(models.BPE(vocab={word: at for at, word in enumerate(words)}, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(words[:2])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")
    return Vocabulary(tokenizer, len(words) + 3, EOS)


def write(grammar, rng, prefer=()):
    """Ids of a random answer; of the allowed tokens `prefer` are taken where there are any, or else open ones."""
    states, ids = grammar.states(), []
    open_tokens = {
        token for token in range(grammar.vocabulary.size) if b'"' not in grammar.vocabulary.bytes_of([token])
    }
    choices = [prefer, open_tokens] if prefer else []
    while not ids or ids[-1] != EOS:
        assert states.go_to(ids)
        allowed = states.allowed().nonzero().flatten().tolist()
        assert allowed
        wanted = ([token for token in allowed if token in choice] for choice in choices)
        ids.append(rng.choice(next(filter(None, wanted), allowed)))
        assert len(ids) <= grammar.limits.answer
    return ids


def reasoning_tokens(vocabulary, ids):
    """Tokens that hold bytes between the quotation marks of the reasoning."""
    start = len(b'{"reasoning": "')
    text = vocabulary.bytes_of(ids[:-1])
    length = len(json.dumps(json.loads(text)["reasoning"], ensure_ascii=False).encode()) - 2
    edges, at = [], 0
    for token in ids[:-1]:
        edges.append((at, at := at + len(vocabulary.bytes_of([token]))))
    return sum(1 for a, b in edges if a < start + length and b > start)


@pytest.mark.parametrize("name", ["vocabulary", "merged"])
@pytest.mark.parametrize("thinking", [0, 1, 2, 3, 4, 17])
def test_random_answers_are_whole_objects_within_the_budget(name, thinking, request):
    vocabulary = request.getfixturevalue(name)
    grammar = RewriteGrammar(vocabulary, thinking, least_new_tokens(thinking))
    lead = {token for token in range(vocabulary.size) if vocabulary.bytes_of([token])[-1:] >= b"\xc0"}
    lead = {token for token in lead if not vocabulary.tokens.is_special_token(token)}
    escapes = {token for token in range(vocabulary.size) if vocabulary.bytes_of([token])[-1:] == b"\\"}
    for seed in range(12):
        ids = write(grammar, random.Random(seed), prefer=[(), lead, escapes][seed % 3])
        line = grammar.text(ids)
        rewrite = Rewrite.model_validate_json(line)
        assert rewrite.to_line() == line and list(json.loads(line)) == list(FIELDS)
        assert rewrite.task in TASKS and rewrite.aspect_ratio in ASPECT_RATIOS
        used = reasoning_tokens(vocabulary, ids)
        assert used <= thinking
        if seed % 3:  # those never close a string by themselves
            assert used == thinking
            assert len(ids) >= grammar.limits.answer - 1


def test_states_go_back_to_any_prefix(vocabulary):
    grammar = RewriteGrammar(vocabulary, 5, 160)
    one, two = write(grammar, random.Random(1)), write(grammar, random.Random(2))
    states, rng = grammar.states(), random.Random(3)
    for _ in range(60):
        ids = rng.choice([one, two])[: rng.randrange(170)]
        assert states.go_to([*ids, EOS] if ids and ids[-1] == EOS else ids)
        fresh = grammar.states()
        assert fresh.go_to(ids)
        assert torch.equal(states.allowed(), fresh.allowed())
        assert states.forced() == fresh.forced()


def test_forced_runs_are_what_masks_leave(vocabulary):
    grammar = RewriteGrammar(vocabulary, 5, 160)
    ids = write(grammar, random.Random(4))
    processor = grammar.processor(prompt_length=2)
    assert isinstance(processor, DraftConstraint)
    for length in range(len(ids)):
        run = processor.forced_tokens([9, 9, *ids[:length]])
        assert list(run) == ids[length : length + len(run)]
        after = [9, 9, *ids[:length], *run]
        if EOS not in run:
            assert processor.allowed_tokens(after).sum() > 1
        for shorter in range(length, length + len(run)):
            assert processor.allowed_tokens([9, 9, *ids[:shorter]]).sum() == 1
    assert vocabulary.bytes_of(processor.forced_tokens([9, 9])) == b'{"reasoning": "'


def test_a_refused_answer_allows_nothing_and_is_left_alone(vocabulary):
    processor = RewriteGrammar(vocabulary, 5, 160).processor(prompt_length=1)
    ids = [9, *vocabulary.ids_of(b'{"reasoning": "x", "tusk')]
    assert not processor.allowed_tokens(ids).any() and processor.forced_tokens(ids) == []
    scores = torch.randn(1, 260)
    assert torch.equal(processor(torch.tensor([ids]), scores), scores)


def test_the_grammar_has_the_last_word(vocabulary):
    processor = RewriteGrammar(vocabulary, 5, 160).processor(prompt_length=1)
    scores = processor(torch.tensor([[9]]), torch.full((1, 260), -torch.inf))
    assert vocabulary.bytes_of([int(scores.argmax())]) == b"{" and scores.exp().sum() == 1


def test_rows_of_a_batch_have_states_each(vocabulary):
    grammar = RewriteGrammar(vocabulary, 5, 160)
    answers = [write(grammar, random.Random(seed)) for seed in (1, 2, 3)]
    processor = grammar.processor(prompt_length=1)
    for length in range(max(map(len, answers))):
        rows = [[9, *ids[:length], *[EOS] * (length - len(ids))] for ids in answers]
        scores = processor(torch.tensor(rows), torch.zeros(3, 260))
        for ids, row in zip(answers, scores, strict=True):
            assert row[ids[length] if length < len(ids) else EOS] == 0


@pytest.mark.parametrize(
    ("text", "is_whole"),
    [
        (rewrite_json("", "edit", "1:1", "x"), True),
        (rewrite_json('a "b" \\ \n é😀', "text_to_image", "21:9", "x"), True),
        (rewrite_json("a", "edit", "1:1", ""), False),
        (rewrite_json("a", "edit", "7:3", "x"), False),
        (rewrite_json("a", "draw", "1:1", "x"), False),
        (rewrite_json("a\tb", "edit", "1:1", "x"), False),
        ('{"reasoning":"a","task":"edit","aspect_ratio":"1:1","rewritten_prompt":"x"}', False),
        ('{"task": "edit", "reasoning": "a", "aspect_ratio": "1:1", "rewritten_prompt": "x"}', False),
        ('{"reasoning": "a\nb", "task": "edit", "aspect_ratio": "1:1", "rewritten_prompt": "x"}', False),
        ('{"reasoning": "\\ud800", "task": "edit", "aspect_ratio": "1:1", "rewritten_prompt": "x"}', False),
    ],
)
def test_form(text, is_whole, vocabulary):
    states = RewriteGrammar(vocabulary, 60, 300).states()
    assert (states.go_to(vocabulary.ids_of(text.encode())) and states.forced() == [EOS]) == is_whole


def test_limits_that_hold_no_object_are_refused(vocabulary):
    with pytest.raises(ValueError, match="thinking must be at least 0"):
        RewriteGrammar(vocabulary, -1, 400)
    with pytest.raises(ValueError, match=f"give at least {least_new_tokens(64)}"):
        RewriteGrammar(vocabulary, 64, 100)


def test_choices_of_the_object_are_those_of_the_instruction():
    schema = Rewrite.model_json_schema()["properties"]
    assert tuple(schema) == FIELDS
    assert tuple(schema["task"]["enum"]) == TASKS and tuple(schema["aspect_ratio"]["enum"]) == ASPECT_RATIOS


@pytest.mark.parametrize(
    "change", [{"aspect_ratio": "7:3"}, {"task": "draw"}, {"rewritten_prompt": ""}, {"more": "x"}]
)
def test_a_wrong_object_is_refused(change):
    right = dict(reasoning="", task="edit", aspect_ratio="1:1", rewritten_prompt="x")
    with pytest.raises(ValueError, match=next(iter(change))):
        Rewrite(**{**right, **change})
