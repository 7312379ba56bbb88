"""What a training says about itself is what it does."""

from types import SimpleNamespace

from hf_mmspec.training.features.reading import Reader
from hf_mmspec.training.features.source import RecordSource
from hf_mmspec.training.learning.collator import IGNORED, collate
from hf_mmspec.training.telling import describe
from tests.training.making import answers, conversation


def test_supervised_are_the_tokens_that_carry_loss(qwen, tmp_path):
    """Neither the first of an answer, which the prefill gives, nor those outside of the draft vocabulary."""
    answered = answers(tmp_path / "a", *qwen, [conversation(seed) for seed in range(4)], max_new_tokens=8)
    source = RecordSource.open([answered], Reader(*qwen))
    parts = SimpleNamespace(knows=lambda ids: ids % 2 == 0)
    said = []
    describe(source, source, parts, said.append)
    records = source.records(range(len(source)))
    count = int((collate(records, parts.knows)["labels"] != IGNORED).sum())
    total = sum(len(record.ids) for record in records)
    assert count > 0 and f"4 answers, {count} tokens of {total} supervised" in said[0]
