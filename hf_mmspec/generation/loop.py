"""The algorithm: prefill, then rounds of propose, verify, walk, keep, until the answer is finished.

Speculative decoding in one page. Knows neither a drafter family nor a target family.
"""

import torch
from transformers import GenerationConfig

from hf_mmspec.modeling import BorrowedParts, DraftBudget, Drafter, DraftTree

from .answer import Answer, StepStates
from .controller import Plan, Round
from .learned_acceptance import trials_of
from .reader import DraftReader
from .statistics import Speculation
from .target import Target, Verified


def decode(
    target: Target,
    drafter: Drafter,
    borrowed: BorrowedParts,
    answer: Answer,
    plan: Plan,
    generation_config: GenerationConfig,
) -> Speculation:
    """Extend `answer` until it is finished. Rounds for which `plan` has no depth are plain decoding, a token each."""
    speculation = Speculation()
    reader: DraftReader | None = None
    with speculation.timing("prefill"):
        outputs, prompt = target.prefill(answer.ids, generation_config)
        token = answer.append(
            outputs.logits[:, -1], StepStates(outputs.get("hidden_states"), outputs.get("attentions"))
        )
        del outputs
        if plan.may_draft and not answer.finished:
            reader = DraftReader(drafter, borrowed, prompt, _as_row([token], answer))
        del prompt

    with target.model._optimize_model_for_decode():
        while not answer.finished:
            budget = plan.next_budget()
            levels = target.exact_levels(min(budget.depth, answer.tokens_left - 1))
            if reader is not None and levels > 0 and not reader.has_read_prompt:
                with speculation.timing("prefill"):
                    reader.read_prompt()
            with speculation.round():
                waiting = reader.waiting_rows if reader is not None else 0
                temperature = _proposal_temperature(budget, generation_config)
                tree = _propose(reader, token, budget.limited_to(levels), temperature, answer, speculation)
                with speculation.timing("verify"):
                    verified = target.verify(tree)
                    if verified.logits.device.type != "cpu":
                        # The walk waits for it anyway; waiting here counts the time where it belongs.
                        torch.accelerator.synchronize(verified.logits.device)
                path, tokens = walk(tree, verified, answer)
                target.keep(path)
                token = tokens[-1]
                if reader is not None and not answer.finished:
                    kept = verified.features[:, torch.tensor(path, device=verified.features.device)]
                    reader.follow(kept, _as_row(tokens, answer))
                speculation.count(tree, path)
            trials = trials_of(tree, path, is_cut=answer.finished)
            costs = speculation.costs_of_round(tree, budget.top_k, waiting)
            plan.learn(Round(costs, trials, emitted=len(path), is_tail=answer.finished))
    return speculation


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


def _propose(reader, token, budget, temperature, answer, speculation) -> DraftTree:
    """The next tree; only the root where nothing is drafted or the limits leave no room for a draft."""
    if reader is None or budget.depth == 0:
        return DraftTree.root_only(torch.tensor([token], device=answer.ids.device))
    with speculation.timing("draft"):
        return reader.propose(budget, temperature)


def _proposal_temperature(budget: DraftBudget, generation_config: GenerationConfig) -> float | None:
    """Chains are sampled where the target samples; trees are always deterministic."""
    if budget.mode == "chain" and generation_config.do_sample:
        return generation_config.temperature or 1.0
    return None


def _as_row(tokens: list[int], answer: Answer) -> torch.Tensor:
    return torch.tensor([tokens], device=answer.ids.device)
