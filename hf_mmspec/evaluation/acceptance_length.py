"""Acceptance length as a metric of the `evaluate` library: `evaluate.load(acceptance.METRIC)`, offline too.

Wraps `acceptance.py`; runs no model. `evaluate` copies this file before it imports it, so its imports are absolute.
"""

import datasets
import evaluate

from hf_mmspec.evaluation.acceptance import from_rounds

_DESCRIPTION = (
    "How many tokens speculative decoding emits per forward of the target, and how deep drafts are accepted."
)
_INPUTS = """
Args:
    accepted: for each answer the number of drafts that were kept in each round, the target's own token not counted:
        `output.speculation.accepted` of `generate(..., return_dict_in_generate=True)`.
Returns:
    acceptance_length: L, tokens emitted per target forward after the prefill, the target's own token counted.
    accepted_drafts: L - 1, what tables of the ViSpec paper print.
    acceptance_by_position: share of rounds that accepted draft i among those that accepted draft i - 1, without the
        last round of each answer, which the end of the answer cuts.
    accepted_histogram: number of rounds by number of accepted drafts.
    rounds: number of rounds.
Examples:
    >>> metric.compute(accepted=[[2, 0, 5], [1]])["acceptance_length"]
    3.0
"""
_CITATION = """
@article{li2024eagle, title={EAGLE: Speculative Sampling Requires Rethinking Feature Uncertainty},
    author={Li, Yuhui and Wei, Fangyun and Zhang, Chao and Zhang, Hongyang}, journal={arXiv:2401.15077}, year={2024}}
"""


class AcceptanceLength(evaluate.Metric):
    """See `_INPUTS`; every round counts once, whatever answer it belongs to."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"accepted": datasets.Sequence(datasets.Value("int64"))}),
        )

    def _compute(self, accepted: list[list[int]]) -> dict:
        return from_rounds(accepted)
