"""The measurement of prompt rewriting: who takes part, how answers are split, what a row says."""

import pytest
from PIL import Image

from hf_mmspec.evaluation import rewriting
from hf_mmspec.evaluation.contenders import STOCK, Run
from hf_mmspec.evaluation.rewriting_parts import KEYS, PROMPT, REASONING, parts_of, totals
from hf_mmspec.generation import Speculation
from hf_mmspec.rewriting.instruction import rewrite_json, rewriting_messages
from hf_mmspec.rewriting.rewriter import PromptRewriter
from hf_mmspec.rewriting.vocabulary import Vocabulary
from tests.evaluation.tiny import tiny_drafter, tiny_processor, tiny_target


def test_parts_of_an_answer():
    vocabulary = Vocabulary(tiny_processor().tokenizer, 260, 1)
    line = rewrite_json('a"b', "edit", "1:1", "xy")
    parts = parts_of([*vocabulary.ids_of(line.encode()), 1], vocabulary)
    letters = {part: "".join(c for c, p in zip(line, parts, strict=False) if p == part) for part in set(parts)}
    assert letters[REASONING] == 'a\\"b"' and letters[PROMPT] == 'xy"'
    assert letters[KEYS].startswith('{"reasoning": "') and letters[KEYS].endswith("}") and parts[-1] == KEYS


def test_a_forward_is_shared_by_the_tokens_that_it_gives():
    parts = [KEYS, KEYS, KEYS, REASONING, REASONING, PROMPT]
    speculation = Speculation(accepted=[2, 1], drafted=[4, 4], forced=[1, 0])
    run = Run([list(range(6))], 1.0, 1.0, 5, 6, speculation)
    stamps = [(0.0, 1), (3.0, 1), (3.0, 1), (3.0, 1), (5.0, 1), (5.0, 1)]
    found = totals(parts, run, stamps)
    assert (found[KEYS].tokens, found[KEYS].forwards, found[KEYS].seconds) == (2, pytest.approx(2 / 3), 2)
    assert (found[REASONING].tokens, found[REASONING].forwards) == (2, pytest.approx(1 / 3 + 1 / 2))
    assert found[REASONING].seconds == 2 and found[PROMPT].seconds == 1
    # the stock loop emits once per forward
    found = totals(parts, Run([list(range(6))], 1.0, 1.0, 5, 3), [(0.0, 1), (1.0, 4), (3.0, 1)])
    assert (found[KEYS].forwards, found[REASONING].forwards, found[PROMPT].forwards) == (0.5, 0.5, 1)


def test_rows_of_a_measurement():
    target = tiny_target(max_position_embeddings=2048)
    rewriter = PromptRewriter(target, tiny_processor(), tiny_drafter(target), thinking=2, max_new_tokens=105)
    image = Image.new("RGB", (20, 20))
    requests = [
        {"image": image, "images": [image], "messages": rewriting_messages("a cat", 1), "task": "rewrite"},
        {"image": None, "messages": rewriting_messages("a dog"), "task": "rewrite"},
    ]
    rows = rewriting.report(rewriting.measure(rewriter, requests, repetitions=1))
    by_name = {(row["contender"], row["wishes"]): row for row in rows}
    names = (STOCK, rewriting.LOOKUP, rewriting.FORCED, rewriting.UNTOLD, rewriting.TOLD)
    assert set(by_name) == {(name, label) for name in names for label in ("all", "with picture", "without")}
    for (name, label), row in by_name.items():
        assert row["valid"] == row["identical"] == row["n"] == (2 if label == "all" else 1)
        assert row["grammar_ms_per_token"] > 0
        assert row["longest_reasoning"] == 2 and 1 <= row["so_long"] <= row["n"]
        assert (row["forced_share_of_tokens"] > 0) == (name in (rewriting.FORCED, rewriting.TOLD))
        assert row["parts"][KEYS]["tokens"] > row["parts"][REASONING]["tokens"]
    assert by_name[STOCK, "all"]["decode_speedup"] == 1 and by_name[STOCK, "all"]["acceptance_length"] == 1
    forced = by_name[rewriting.FORCED, "all"]
    assert forced["acceptance_length"] > 2 and forced["parts"][PROMPT]["acceptance_length"] == pytest.approx(
        1, abs=0.3
    )
    assert forced["parts"][KEYS]["acceptance_length"] > 4


def test_some_contenders_only():
    target = tiny_target(max_position_embeddings=2048)
    rewriter = PromptRewriter(target, tiny_processor(), tiny_drafter(target), thinking=0, max_new_tokens=105)
    requests = [{"image": None, "messages": rewriting_messages("a dog"), "task": "rewrite"}]
    measured = rewriting.measure(rewriter, requests, repetitions=1, beside=[rewriting.TOLD])
    assert list(measured.answers) == [STOCK, rewriting.TOLD]
    assert rewriting.report(measured)[0]["longest_reasoning"] == 0
