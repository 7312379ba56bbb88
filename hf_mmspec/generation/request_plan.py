"""Which plan a request gets: what it asks for, what is known of its models and this machine, and where it is kept.

The plans are in `controller.py` and `batch_plan.py`.
"""

from functools import partial

from transformers import GenerationConfig, PreTrainedModel

from .acceptance_memory import Kind, experience_with, hand_back
from .batch_plan import BatchCosts, BatchPlan
from .budget import Wishes
from .controller import FixedPlan, LearningPlan, Plan
from .costs import cost_record
from .learned_acceptance import LearnedAcceptance
from .learned_costs import LearnedCosts
from .switch import Switch

# Costs are handed back from requests of at least so many rounds.
_ENOUGH_ROUNDS = 8


def plan_budget(
    target: PreTrainedModel,
    drafter: PreTrainedModel,
    generation_config: GenerationConfig,
    tokens_left: int,
    rows: int = 1,
    view: PreTrainedModel | None = None,
) -> Plan:
    """The plan for one request: its own wishes, then the drafter's `generation_config`, then what is learnt. For
    several rows it is one budget for all of them in each round, chosen for what those that are left cost.

    Call it before the request's prefill: the first call for a target measures it (about two seconds, then kept).

    Args:
        generation_config: the request's; its `draft_depth`, `draft_top_k`, `draft_total_tokens` and `draft_mode`
            count where they are not None.
        tokens_left: most tokens that the answer can get.
        rows: batch size; the budget is each row's.
        view: of the target, as the request runs it; made anew where it is not given.

    Raises:
        ValueError: a wish is out of range.
    """
    wishes = Wishes.of(generation_config, drafter)
    if (complete := wishes.complete) is not None:
        return FixedPlan(complete)
    kind: Kind = "greedy"
    if generation_config.do_sample:
        kind = "drawn" if wishes.mode == "chain" else "sampled"
    experience, greedy = experience_with(target, drafter, kind), not generation_config.do_sample
    acceptance, record = LearnedAcceptance(experience.acceptance), cost_record(view or target, drafter)
    make_switch = None if wishes.to_draft else partial(Switch, tokens_left, experience.trust, experience.waited)
    if rows > 1:
        many = cost_record(view or target, drafter, rows)
        costs = BatchCosts(many.rows, record.costs, many.costs)
        # Whether drafting pays for so many rows says nothing about one.
        remember = partial(hand_back, target, drafter, kind, trust=experience.trust, waited=experience.waited)
        return BatchPlan(costs, acceptance, make_switch, wishes, greedy, remember)

    def keep(plan: LearningPlan, is_quiet: bool) -> None:
        switch = plan.switch or Switch(tokens_left, experience.trust, experience.waited)
        hand_back(target, drafter, kind, plan.acceptance, switch.trust_after(), switch.waited)
        if is_quiet and plan.costs.rounds >= _ENOUGH_ROUNDS and not plan.costs.in_doubt:
            record.revise(plan.costs.costs)

    learned = LearnedCosts(record.costs, record.in_doubt)
    switch = None if make_switch is None else make_switch()
    return LearningPlan(learned, acceptance, switch, wishes, greedy, keep)
