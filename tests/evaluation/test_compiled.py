"""The measurement of compiled models: who compiles, and what the summary says."""

from copy import deepcopy

import pytest
import torch

from hf_mmspec.data import Source, model_inputs, open_source
from hf_mmspec.evaluation.compiled import NAMES, Measured, contenders, measure
from hf_mmspec.evaluation.contenders import STOCK, Run
from hf_mmspec.generation import Speculation
from tests.slow_parameters import slow


@pytest.mark.parametrize(
    "names, uncompiled",
    [
        pytest.param(("drafter", "compiled drafter"), [STOCK, "drafter"], id="drafters"),
        # the last one finds the graphs of the others
        slow(NAMES, [STOCK, "drafter", "both compiled"], id="all"),
    ],
)
def test_only_what_is_compiled_compiles_and_all_answer_alike(target, processor, drafter, names, uncompiled):
    torch._dynamo.reset()
    compiled_drafter = deepcopy(drafter)
    compiled_drafter.compile(backend="eager")
    asked = contenders(drafter, compiled_drafter, {"backend": "eager", "mode": None}, names)
    prompts = [dict(model_inputs(processor, [open_source(Source("embedded:scene", split="test", limit=1))[0]]))]
    measured = measure(target, asked, prompts, tokens=12)
    assert [name for name, each in measured.items() if each.graphs == 0] == uncompiled
    for each in measured.values():
        assert each.summary(measured[STOCK])["identical"] == 1
    torch._dynamo.reset()


def test_contenders_by_name(drafter):
    options = {"backend": "eager", "mode": None}
    assert [each.name for each in contenders(drafter, drafter, options)] == [STOCK, *NAMES]
    assert [each.name for each in contenders(drafter, drafter, options, NAMES[2:3])] == [STOCK, "compiled drafter"]


def test_the_summary_compares_prompt_by_prompt():
    def run(seconds, tokens, accepted=None):
        speculation = None if accepted is None else Speculation(accepted=accepted)
        return Run([tokens], seconds, decode_seconds=seconds, decode_tokens=10, speculation=speculation)

    stock = Measured(runs=[run(1.0, [1]), run(2.0, [2]), run(4.0, [3])])
    faster = Measured(3.0, 2, [run(0.5, [1], [1]), run(0.5, [2], [3]), run(2.0, [9], [1])])
    summary = faster.summary(stock)
    assert summary["decode_tokens_per_second"] == 20 and summary["decode_speedup"] == 2
    assert summary["identical"] == 2 and summary["acceptance_length"] == pytest.approx(2)
    assert summary["graphs"] == 2 and stock.summary(stock)["acceptance_length"] is None
