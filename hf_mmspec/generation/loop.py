"""The algorithm: prefill, then rounds of propose, verify, walk, keep, until the answer is finished.

Speculative decoding in one page. Knows neither a drafter family nor a target family.
"""

from collections.abc import Sequence

import torch
from transformers import GenerationConfig

from hf_mmspec.modeling import BorrowedParts, DraftBudget, Drafter, DraftState, DraftTree

from .answer import Answer, StepStates
from .conversation_cache import ConversationCache
from .draft_constraint import DraftConstraint, RoundGuidance, propose_guided
from .statistics import Speculation
from .target import Target, Verified


def decode(
    target: Target,
    drafter: Drafter,
    borrowed: BorrowedParts,
    answer: Answer,
    budget: DraftBudget,
    generation_config: GenerationConfig,
    constraints: Sequence[DraftConstraint] = (),
    conversation: ConversationCache | None = None,
) -> Speculation:
    """Extend `answer` until it is finished; with `budget.depth == 0` this is plain decoding, one token a round, save
    for tokens that `constraints` force.

    In a `conversation` the drafter goes on from what it has read, and reads this answer to its end.
    """
    speculation = Speculation()
    state: DraftState | None = None
    with speculation.timing("prefill"):
        outputs, prompt = target.prefill(answer.ids, generation_config)
        token = answer.append(
            outputs.logits[:, -1], StepStates(outputs.get("hidden_states"), outputs.get("attentions"))
        )
        del outputs
        if budget.depth > 0 and conversation is not None:
            state = conversation.read(drafter, prompt, _as_row([token], answer), borrowed)
        elif budget.depth > 0 and not answer.finished:
            state = drafter.prefill(prompt, _as_row([token], answer), borrowed)
        del prompt

    temperature = _proposal_temperature(budget, generation_config)
    while not answer.finished:
        with speculation.timing("other"):
            before = dict(speculation.seconds)
            guidance = _guidance(constraints, target, answer, speculation)
            forced = 0 if guidance is None else len(guidance.forced)
            levels = target.exact_levels(min(forced + budget.depth, answer.tokens_left - 1))
            limited = budget.limited_to(levels - forced)
            tree = _propose(drafter, state, token, limited, temperature, answer, speculation, guidance)
            with speculation.timing("verify"), target.model._optimize_model_for_decode():
                verified = target.verify(tree)
                if verified.logits.device.type != "cpu":
                    # The walk waits for it anyway; waiting here counts the time where it belongs.
                    torch.accelerator.synchronize(verified.logits.device)
            path, tokens = walk(tree, verified, answer)
            target.keep(path)
            token = tokens[-1]
            if state is not None and not (answer.finished and conversation is None):
                with speculation.timing("draft"):
                    kept = verified.features[:, torch.tensor(path, device=verified.features.device)]
                    drafter.extend(state, kept, _as_row(tokens, answer))
            speculation.accepted.append(len(path) - 1)
            speculation.drafted.append(len(tree) - 1)
            speculation.forced.append(min(forced, len(path) - 1))
        # `other` took the time of the whole round: what the models used of it is counted above.
        for part in ("draft", "verify"):
            speculation.seconds["other"] -= speculation.seconds[part] - before[part]
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


def _guidance(constraints, target, answer, speculation) -> RoundGuidance | None:
    """What is known about the next tokens beforehand; None where no processor can tell."""
    if not constraints:
        return None
    with speculation.timing("draft"):
        levels = target.exact_levels(answer.tokens_left - 1)
        return RoundGuidance(constraints, answer.ids[0].tolist(), levels)


def _propose(drafter, state, token, budget, temperature, answer, speculation, guidance) -> DraftTree:
    """The next tree; only the root where nothing is drafted or the limits leave no room for a draft."""
    if guidance is not None:
        with speculation.timing("draft"):
            root = torch.tensor([token], device=answer.ids.device)
            return propose_guided(drafter, state, root, budget, temperature, guidance)
    if state is None or budget.depth == 0:
        return DraftTree.root_only(torch.tensor([token], device=answer.ids.device))
    with speculation.timing("draft"):
        return drafter.propose(state, budget, temperature)


def _proposal_temperature(budget: DraftBudget, generation_config: GenerationConfig) -> float | None:
    """Chains are sampled where the target samples; trees are always deterministic."""
    if budget.mode == "chain" and generation_config.do_sample:
        return generation_config.temperature or 1.0
    return None


def _as_row(tokens: list[int], answer: Answer) -> torch.Tensor:
    return torch.tensor([tokens], device=answer.ids.device)
