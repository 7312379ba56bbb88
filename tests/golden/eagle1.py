"""FLASH's baseline: EAGLE-1 with a fixed tree, its caches and every expansion of two rounds."""

import torch
from torch import nn

from hf_mmspec.modeling import DraftBudget, DraftTree, EagleConfig, EagleDrafter, TargetPrompt
from hf_mmspec.modeling.fixed_tree import EAGLE1_TREE
from tests.golden.case import Case
from tests.golden.eagle import shared_fields
from tests.golden.flash import borrowed_parts
from tests.golden.recording import recorded_drafts

WIDTH = 10  # children that the authors list for every expanded node


@torch.no_grad()
def check(case: Case) -> None:
    config = EagleConfig(**shared_fields(case), tree_choices=[list(path) for path in EAGLE1_TREE])
    drafter, borrowed = EagleDrafter(config).eval(), borrowed_parts(case)
    drafter.load_state_dict(case.weights("weights/", {}, {"embed_tokens.weight"}), strict=True)
    prompt = TargetPrompt(case.take("in/prompt_ids"), case.take("in/target_embeds"), case.take("in/target_hidden"))
    sample = case.take("in/sample_token")
    embeds = torch.cat([prompt.inputs_embeds, borrowed.embed_tokens(sample)], dim=1)
    hidden = drafter(nn.functional.pad(prompt.features, (0, 0, 0, 1)), embeds).hidden_states[0][:, :-1]
    case.same(hidden, "prefill/hidden")
    case.same(drafter.draft_logits(hidden, borrowed), "prefill/logits")

    state = drafter.prefill(prompt, sample, borrowed)
    check_cache(case, state, "prefill")
    check_tree_shape(case, check_round(case, drafter, state, "round1"))
    committed, token = case.take("round2/committed_ids"), case.take("round2/sample_token")
    assert torch.equal(committed[:, :1], sample)
    following = torch.cat([committed[:, 1:], token], dim=1)
    drafter.extend(state, case.take("round2/committed_hidden"), following)
    check_cache(case, state, "round2")
    check_round(case, drafter, state, "round2")


def check_cache(case: Case, state, name: str) -> None:
    keys, values = state.cache.rows(0)
    case.same(keys, f"{name}/k")
    case.same(values, f"{name}/v")


def check_round(case: Case, drafter: EagleDrafter, state, name: str) -> DraftTree:
    with recorded_drafts(drafter) as (_, logits):
        tree = drafter.propose(state, DraftBudget(5, WIDTH, len(EAGLE1_TREE) + 1))
    top = torch.cat(logits).topk(WIDTH)
    case.same(top.values, f"{name}/topk_logits")
    case.same(top.indices, f"{name}/topk_tokens")
    case.same(tree.tokens[None], f"{name}/tree_candidates")
    # rows in the authors' order: leaf paths sorted, shorter ones last
    case.same(torch.cat([tree.tokens, torch.tensor([-1])])[leaf_paths(tree)], f"{name}/cart_candidates")
    return tree


def leaf_paths(tree: DraftTree) -> torch.Tensor:
    paths = tree.leaf_paths().tolist()
    return torch.tensor(sorted(paths, key=lambda row: [node if node >= 0 else len(tree) for node in row]))


def check_tree_shape(case: Case, tree: DraftTree) -> None:
    case.same(tree.ancestor_mask()[None, None].float(), "tree/attn_mask")
    case.same(tree.depths, "tree/position_ids")
    case.same(leaf_paths(tree), "tree/retrieve_indices")
    # where the authors find a node's token: the root, then WIDTH children of each expanded node in turn
    expanded = sorted({path[:-1] for path in map(tuple, EAGLE1_TREE)}, key=lambda path: (len(path), path))
    nodes = sorted(map(tuple, EAGLE1_TREE), key=lambda path: (len(path), path))
    places = [0] + [1 + WIDTH * expanded.index(path[:-1]) + path[-1] for path in nodes]
    case.same(torch.tensor(places), "tree/indices")
