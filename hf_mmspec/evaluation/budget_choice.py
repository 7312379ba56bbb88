"""The automatic draft budget beside the best of the budgets that were measured in the same run.

Compares rows of a report; measures nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any


def budget_choices(
    rows: Mapping[str, Sequence[Mapping[str, Any]]], name: str, budgets: Sequence[str]
) -> list[dict[str, Any]]:
    """What the automatic choice of the drafter `name` gave, and the fastest of `budgets`.

    Args:
        rows: by contender, each over the same tasks in the same order; the drafter with a budget is called
            `"name budget"`.

    Returns:
        For each row `task`, `automatic` and `best` (decode speed-ups), `best_budget` and `automatic_share`, the first
        over the second: above 1 where the automatic choice won. Empty where the drafter was measured with no budget.
    """
    fixed = {budget: rows[f"{name} {budget}"] for budget in budgets if f"{name} {budget}" in rows}
    if not fixed:
        return []
    choices = []
    for index, own in enumerate(rows[name]):
        speeds = {budget: each[index]["decode_speedup"] for budget, each in fixed.items()}
        best = max(speeds, key=lambda budget: speeds[budget])
        choices.append(
            {
                "task": own["task"],
                "automatic": own["decode_speedup"],
                "best": speeds[best],
                "best_budget": best,
                "automatic_share": own["decode_speedup"] / speeds[best],
            }
        )
    return choices
