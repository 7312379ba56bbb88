"""Acceptance and speed arithmetic on scripted runs."""

import pytest

from hf_mmspec.evaluation.acceptance import by_position
from hf_mmspec.evaluation.contenders import Run
from hf_mmspec.evaluation.metrics import (
    acceptance,
    break_even,
    decode_rate,
    end_to_end_rate,
    interval,
    round_shares,
    slowest,
    speedup,
    verify_growth,
)
from hf_mmspec.generation import Speculation


def scripted(accepted, drafted=5, **seconds):
    tokens = 1 + sum(accepted) + len(accepted)
    speculation = Speculation(list(accepted), [drafted] * len(accepted), {"prefill": 1.0, **seconds})
    return Run([[7] * tokens], 2.0, 1.0, tokens - 1, tokens, speculation)


def test_both_counts_of_acceptance_are_reported():
    """Accepted drafts and tokens per target forward differ by one: SafeAILab/EAGLE#132."""
    found = acceptance([scripted([2, 0, 5])])
    assert found["accepted_drafts"] == pytest.approx(7 / 3)
    assert found["acceptance_length"] == pytest.approx(10 / 3)
    assert found["accepted_histogram"] == {"0": 1, "2": 1, "5": 1}
    assert found["drafted_per_round"] == 5


def test_mean_is_over_all_rounds_of_all_prompts():
    """Not the last step of the last dialogue: SafeAILab/EAGLE#95."""
    found = acceptance([scripted([4, 4, 4, 4]), scripted([0])])
    assert found["acceptance_length"] == pytest.approx(1 + 16 / 5)
    assert found["rounds"] == 5


def test_acceptance_by_position_is_conditional_and_leaves_out_the_cut_round():
    assert by_position([2, 0, 5, 2]) == pytest.approx([3 / 4, 1, 1 / 3, 1, 1])
    assert acceptance([scripted([2, 1, 9])])["acceptance_by_position"] == pytest.approx([1, 1 / 2])
    assert by_position([]) == []


def test_without_statistics_forwards_are_counted_by_emissions():
    found = acceptance([Run([[7] * 9], 2.0, 1.0, decode_tokens=8, emissions=5)])
    assert found["acceptance_length"] == 2.0


def test_an_answer_of_one_token_has_no_acceptance_length():
    assert acceptance([Run([[7]], 1.0, 0.0, 0, 1, Speculation())])["acceptance_length"] is None


def test_rates_are_ratios_of_totals():
    runs = [Run([[1] * 11], 3.0, 2.0, 10), Run([[1] * 31], 5.0, 3.0, 30)]
    assert decode_rate(runs) == pytest.approx(40 / 5)
    assert end_to_end_rate(runs) == pytest.approx(42 / 8)


def test_speedup_is_the_median_over_repetitions_with_an_interval_around_it():
    stock = [[Run([[1] * 11], 2.0, 1.0, 10), Run([[1] * 11], 2.0, 1.0, 10)] for _ in range(3)]
    ours = [[Run([[1] * 11], 2.0, 1.0 / pace, 10), Run([[1] * 11], 2.0, 1.0 / pace, 10)] for pace in (2.0, 3.0, 9.0)]
    ratio, (low, high) = speedup(decode_rate, ours, stock), interval(decode_rate, ours, stock)
    assert ratio == pytest.approx(3.0)
    assert 2.0 <= low < ratio < high <= 9.0
    assert interval(decode_rate, ours, stock) == (low, high)
    assert speedup(end_to_end_rate, ours, stock) == pytest.approx(1.0)


def test_answering_again_does_not_narrow_the_interval():
    stock = [Run([[1] * 11], 2.0, 1.0, 10) for _ in range(8)]
    ours = [Run([[1] * 11], 2.0, 1.0 / pace, 10) for pace in (1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0)]
    once, thrice = (interval(decode_rate, [ours] * count, [stock] * count) for count in (1, 3))
    assert thrice[1] - thrice[0] == pytest.approx(once[1] - once[0], rel=0.15)


def test_the_slowest_call_is_found_by_its_median():
    """By prompt 2.0, 0.9 (once 3.0, once 0.5) and nothing to measure."""

    def repetition(*seconds):
        return [Run([[1] * 11], 2.0, each, 10) for each in seconds] + [Run([[1]], 1.0, 0.0, 0)]

    stock = [repetition(1.8, 1.8)] * 3
    assert slowest([repetition(0.9, s) for s in (2.0, 0.6, 3.6)], stock) == (1, pytest.approx(0.9))
    assert slowest([[Run([[1]], 1.0, 0.0, 0)]], [[Run([[1]], 1.0, 0.0, 0)]]) is None


def test_a_batch_counts_rows_and_rounds():
    """Two rows: one takes part in three rounds, the other in one; stock needs eight steps for the longer."""
    seconds = {"prefill": 0.0, "draft": 0.3, "verify": 0.6, "other": 0.0}
    speculation = Speculation([2, 1, 2, 0], [4] * 4, seconds, row_of=[0, 1, 0, 0], batch=2)
    stock = [Run([[1] * 9, [1] * 3], 3.0, 2.0, 10)]
    found = acceptance([Run([[1] * 9, [1] * 3], 1.0, 0.9, 10, speculation=speculation)])
    assert found["acceptance_length"] == pytest.approx(9 / 4) and found["rounds"] == 4
    assert found["acceptance_by_position"] == [1, 1]  # without the last round of either row
    assert end_to_end_rate(stock) == pytest.approx(12 / 3)
    assert verify_growth([speculation], stock) == pytest.approx(0.2 / (2 / 8))


def test_break_even_and_shares_of_a_round():
    run = scripted([3, 3], draft=0.2, verify=0.5, other=0.1)
    stock = [Run([[1] * 11], 2.0, 1.0, 10)]
    assert break_even([run.speculation], stock) == pytest.approx(0.8 / 2 * 10)
    assert round_shares([run.speculation]) == pytest.approx({"draft": 0.25, "verify": 0.625, "other": 0.125})
    assert verify_growth([run.speculation], stock) == pytest.approx(0.5 / 2 * 10)
    assert break_even([Speculation()], stock) is None and verify_growth([Speculation()], stock) is None
