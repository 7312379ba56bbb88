"""The algorithm: prefill, then rounds of propose, verify, walk, keep, until the answers are finished.

Speculative decoding in one page, for any number of rows. Knows neither a drafter family nor a target family.
"""

from collections.abc import Sequence

import torch
from transformers import GenerationConfig

from hf_mmspec.modeling import BorrowedParts, DraftBudget, Drafter, DraftTree, TargetPrompt

from .answer import Answer, StepStates
from .answers import Answers
from .controller import Plan, Round
from .conversation_cache import ConversationCache
from .draft_constraint import DraftConstraint, RoundGuidance, constraints_of, propose_guided
from .drafting import Drafting
from .learned_acceptance import trials_of
from .learned_costs import MOST_ROWS_OF_A_ROUND
from .statistics import Speculation
from .target import Target, Verified
from .uncompiled import graphs_so_far


def decode(
    target: Target,
    drafter: Drafter,
    borrowed: BorrowedParts,
    answers: Answers,
    plan: Plan,
    generation_config: GenerationConfig,
    conversation: ConversationCache | None = None,
) -> Speculation:
    """Extend `answers` until all are finished. Rounds for which `plan` has no depth are plain decoding, a token each,
    save for tokens that a row's processors force.

    Every round verifies a tree for each row that has not ended; a row that ends leaves the batch. In a `conversation`,
    which has one row, the drafter goes on from what it has read, and reads this answer to its end.
    """
    speculation = Speculation(batch=len(answers.rows))
    constraints = [constraints_of(row.processors) for row in answers.rows]
    with speculation.timing("prefill"):
        prompts = _prefill(target, answers, generation_config)
        live, drafting = answers.unfinished(), None
        if plan.may_draft and (live or conversation is not None):
            read = live or [0]
            first_tokens = [answers.rows[row].ids[:, -1:] for row in read]
            drafting = Drafting(drafter, [prompts[row] for row in read], first_tokens, borrowed, conversation)
        del prompts

    while live:
        budget = plan.next_budget(len(live))
        rows = [answers.rows[row] for row in live]
        levels = [target.exact_levels(index, row.tokens_left - 1) for index, row in enumerate(rows)]
        graphs, reading = graphs_so_far(), 0.0
        if drafting is not None and budget.limited_to(max(levels)).depth > 0:
            reading = _read_prompts(drafting, speculation)
        with speculation.round():
            waiting = 0 if drafting is None else drafting.waiting
            temperature = _proposal_temperature(budget, generation_config)
            known = [constraints[row] for row in live]
            trees, forced = _propose(drafting, rows, levels, budget, temperature, known, speculation)
            with speculation.timing("verify"):
                verified = _verify(target, trees)
            walks = [walk(*row) for row in zip(trees, verified, rows, strict=True)]
            target.keep([path for path, _ in walks])
            for row, tree, (path, _), run in zip(live, trees, walks, forced, strict=True):
                speculation.record(row, tree, path, run)
            answers.stream()

            unfinished = answers.unfinished()
            left = [index for index, row in enumerate(live) if row in unfinished]
            if 0 < len(left) < len(live):
                target.select(left)
                if drafting is not None:
                    drafting.select(left)
            read = left if conversation is None else [0]
            if read and drafting is not None:
                _follow(drafting, [verified[index] for index in read], [walks[index] for index in read])
        # Steps through a run, and catching up, are no cost of another round, and compiling hides all others.
        is_usual = waiting <= MOST_ROWS_OF_A_ROUND and not any(forced)
        if graphs_so_far() == graphs:
            plan.learn(_round(speculation, budget.top_k, is_usual, reading, rows, trees, walks, forced))
        live = unfinished
    if drafting is not None and conversation is not None:
        with speculation.timing("draft"):
            drafting.catch_up()
    return speculation


def _prefill(target: Target, answers: Answers, generation_config: GenerationConfig) -> list[TargetPrompt]:
    """Read the prompts and emit the first token of each row; what a drafter gets of the rows."""
    outputs, prompts = target.prefill(answers.prompts, generation_config)
    for row, answer in enumerate(answers.rows):
        answer.append(outputs.logits[row : row + 1, -1], StepStates.of_row(outputs, row))
    answers.stream()
    live = answers.unfinished()
    if 0 < len(live) < len(answers.rows):
        target.select(live)
    return prompts


def _read_prompts(drafting: Drafting, speculation: Speculation) -> float:
    """Before the first round that drafts: the seconds that it takes, which count for the prefill."""
    before = speculation.seconds["prefill"]
    if not drafting.has_read_prompts:
        with speculation.timing("prefill"):
            drafting.read_prompts()
    return speculation.seconds["prefill"] - before


def _verify(target: Target, trees: Sequence[DraftTree]) -> list[Verified]:
    """One forward of the target over each row's tree."""
    with target.model._optimize_model_for_decode():
        verified = target.verify(trees)
    device = verified[0].logits.device
    if device.type != "cpu":
        torch.accelerator.synchronize(device)  # the walk waits for it anyway; here the time counts where it belongs
    return verified


def walk(tree: DraftTree, verified: Verified, answer: Answer) -> tuple[list[int], list[int]]:
    """Emit tokens along the tree until the target leaves it or the answer is finished.

    The target chooses each token from its own processed distribution, exactly as without a drafter; where a child
    carries that token, its logits are already there and the walk goes on. For deterministic proposals this accepts
    with the same probability as recursive rejection sampling (SpecInfer, EAGLE), and needs no other random numbers
    than plain sampling does. Sampled chains use the p/q test of `Answer.append`.

    Returns:
        The accepted node indices, root first, and the tokens emitted after each of them (the last is the bonus).
    """
    children = tree.children()
    node, path, tokens = 0, [0], []
    while True:
        draft = None
        if tree.proposal_probs is not None and children[node]:
            drafted_token, drafted_node = next(iter(children[node].items()))
            draft = drafted_token, tree.proposal_probs[drafted_node]
        tokens.append(answer.append(verified.logits[node : node + 1], verified.states(node), draft))
        next_node = children[node].get(tokens[-1])
        if answer.finished or next_node is None:
            return path, tokens
        node = next_node
        path.append(node)


def _propose(
    drafting: Drafting | None,
    rows: Sequence[Answer],
    levels: Sequence[int],
    budget: DraftBudget,
    temperature: float | None,
    constraints: Sequence[Sequence[DraftConstraint]],
    speculation: Speculation,
) -> tuple[list[DraftTree], list[int]]:
    """Each row's next tree, only the root where nothing is drafted or the limits leave no room for a draft; and how
    many tokens of it are forced."""
    if any(constraints):
        return _propose_guided(drafting, rows, levels, budget, temperature, constraints, speculation)
    nothing = [0] * len(rows)
    budgets = [budget.limited_to(most) for most in levels]
    if drafting is None or all(each.depth == 0 for each in budgets):
        return [DraftTree.root_only(row.ids[0, -1]) for row in rows], nothing
    with speculation.timing("draft"):
        return drafting.propose(budgets, temperature), nothing


def _propose_guided(
    drafting: Drafting | None,
    rows: Sequence[Answer],
    levels: Sequence[int],
    budget: DraftBudget,
    temperature: float | None,
    constraints: Sequence[Sequence[DraftConstraint]],
    speculation: Speculation,
) -> tuple[list[DraftTree], list[int]]:
    """As `_propose`, with what the rows' processors know about the next tokens beforehand."""
    with speculation.timing("draft"):
        guidances = [
            RoundGuidance(own, row.ids[0].tolist(), most)
            for own, row, most in zip(constraints, rows, levels, strict=True)
        ]
        forced = [len(each.forced) for each in guidances]
        budgets = [budget.limited_to(most - run) for most, run in zip(levels, forced, strict=True)]
        roots = [row.ids[0, -1:] for row in rows]
        return propose_guided(drafting, roots, budgets, temperature, guidances), forced


def _follow(drafting: Drafting, verified: Sequence[Verified], walks: Sequence[tuple[list[int], list[int]]]) -> None:
    """Let the drafter know what was accepted in each row."""
    device = verified[0].features.device
    features = [
        each.features[:, torch.tensor(path, device=device)] for each, (path, _) in zip(verified, walks, strict=True)
    ]
    drafting.follow(features, [torch.tensor([tokens], device=device) for _, tokens in walks])


def _round(
    speculation: Speculation,
    top_k: int,
    is_usual: bool,
    reading: float,
    rows: Sequence[Answer],
    trees: Sequence[DraftTree],
    walks: Sequence[tuple[list[int], list[int]]],
    forced: Sequence[int],
) -> Round:
    """What the plan learns from. Forced tokens are no drafter's merit."""
    paths = [path for path, _ in walks]
    by_row = list(zip(rows, trees, paths, forced, strict=True))
    return Round(
        speculation.costs_of_round(trees, top_k, is_usual),
        [trial for row, tree, path, run in by_row for trial in trials_of(tree, path, row.finished, run)],
        emitted=sum(len(path) - min(run, len(path) - 1) for path, run in zip(paths, forced, strict=True)),
        forced=max(forced),
        is_tail=any(row.finished for row in rows),
        reading=reading,
    )


def _proposal_temperature(budget: DraftBudget, generation_config: GenerationConfig) -> float | None:
    """Chains are sampled where the target samples; trees are always deterministic."""
    if budget.mode == "chain" and generation_config.do_sample:
        return generation_config.temperature or 1.0
    return None
