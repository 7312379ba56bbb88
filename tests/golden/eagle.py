"""EAGLE-2, MSD and EAGLE-3 against the authors' own numbers: one format, so one set of checks."""

from dataclasses import dataclass

import torch
from torch import nn

from hf_mmspec.generation.answer import Answer
from hf_mmspec.generation.loop import walk
from hf_mmspec.generation.target import Verified
from hf_mmspec.modeling import BorrowedParts, DraftBudget, DraftTree, TargetPrompt
from hf_mmspec.modeling.autoregressive import AutoregressiveDrafter
from hf_mmspec.modeling.row_plan import SlottedBatch
from tests.golden.case import Case

FUSED = 1e-5  # the tolerance of fused inputs
SAME_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
)
LONG = 48  # a longer prompt may come without `a.kv.*`


def shared_fields(case: Case) -> dict:
    """Our config's fields from the authors' config. Positions are 1-D, so that `mrope` means plain rotary."""
    theirs = case.config
    fields = {name: theirs[name] for name in SAME_FIELDS if name in theirs}
    scaling = theirs.get("rope_scaling")
    if scaling is not None and scaling.get("type", scaling.get("rope_type")) != "mrope":
        fields["rope_scaling"] = scaling
    return {"rope_theta": 10000.0, **fields}


@dataclass
class Loaded:
    """A drafter with a case's weights, what it borrows, and how its embeddings become layer inputs."""

    drafter: AutoregressiveDrafter
    borrowed: BorrowedParts

    @torch.no_grad()
    def layer_inputs(self, features: torch.Tensor, embeds: torch.Tensor, spans) -> torch.Tensor:
        """For the slots of `features (B, L, F)`; `embeds (B, L + 1, H)` go one further."""
        projected = self.drafter.project(nn.functional.pad(features, (0, 0, 0, 1)))
        slots = [torch.arange(features.shape[1])] * features.shape[0]
        plan = self.drafter.plan_rows(SlottedBatch(embeds, projected, slots, spans))
        return self.drafter.row_inputs(plan, embeds[:, 1:], projected[:, :-1])

    @torch.no_grad()
    def outputs(self, features: torch.Tensor, embeds: torch.Tensor, spans, mask=None) -> torch.Tensor:
        """The training path's outputs for the same slots."""
        features = nn.functional.pad(features, (0, 0, 0, 1))
        return self.drafter(features, embeds, spans, mask).hidden_states[0][:, :-1]


def borrowed_parts(case: Case, head_name: str | None) -> BorrowedParts:
    weight = case.take("sd.embed_tokens.weight")
    head = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    if head_name is not None:
        head.weight.data = case.take(head_name)
    return BorrowedParts(nn.Embedding.from_pretrained(weight), head, weight.shape[0], weight.shape[0])


def read_prompt(case: Case, loaded: Loaded) -> TargetPrompt:
    """The prompt by expanded positions. Only MSD has images, and embeddings of its own."""
    ids, features = case.take("in.input_ids"), case.take("in.target_hidden")
    if not case.has("in.image_mask"):
        return TargetPrompt(ids, loaded.borrowed.embed_tokens(ids), features)
    mask = case.take("in.image_mask")
    expanded = case.take("in.expanded_ids")
    assert torch.equal(expanded[~mask], ids[ids >= 0] if (ids < 0).any() else ids[~mask])
    prompt = TargetPrompt(expanded, case.take("in.target_inputs_embeds"), features, runs(mask[0]))
    assert torch.equal(prompt.visual_mask, mask)
    return prompt


def runs(mask: torch.Tensor) -> list[tuple[int, int]]:
    """Half-open runs of True. Adjacent images, which a mask cannot tell apart, are the same to MSD."""
    edges = torch.diff(nn.functional.pad(mask.long(), (1, 1)))
    return list(zip((edges == 1).nonzero()[:, 0].tolist(), (edges == -1).nonzero()[:, 0].tolist(), strict=True))


def check_rounds(case: Case, loaded: Loaded, fused=lambda inputs: inputs) -> None:
    """Prefill (a), first tree (b), second round (c) and greedy verification (d). `fused` picks what the authors
    recorded as the fused input out of ours."""
    drafter, borrowed, prompt = loaded.drafter, loaded.borrowed, read_prompt(case, loaded)
    sample = case.take("in.sample_token")
    ids = case.take("in.input_ids")
    case.same(torch.cat([ids[:, 1:], sample], dim=1), "a.shifted_input_ids")
    embeds = torch.cat([prompt.inputs_embeds, borrowed.embed_tokens(sample)], dim=1)
    if case.has("in.image_mask"):
        case.same(embeds[:, 1:], "a.shifted_inputs_embeds")
    spans = [prompt.visual_spans]
    case.same(fused(loaded.layer_inputs(prompt.features, embeds, spans)), "a.fused_input", tolerance=FUSED)
    hidden = loaded.outputs(prompt.features, embeds, spans)
    case.same(hidden, "a.out_hidden")
    with torch.no_grad():
        case.same_last_rows(drafter.draft_logits(hidden, borrowed), "a.logits")

    state = drafter.prefill(prompt, sample, borrowed)
    length = prompt.features.shape[1]
    keys, values = state.cache.rows(0)
    if length <= LONG or case.has("a.kv.k") or case.has("a.kv.v"):
        case.same(keys, "a.kv.k")
        case.same(values, "a.kv.v")
    # the authors' depth counts steps after level 1
    budget = DraftBudget(case.parameters["depth"] + 1, case.parameters["top_k"], case.parameters["total_tokens_ctor"])
    tree = drafter.propose(state, budget)
    check_tree(case, tree, "b")
    assert state.cache.stable == int(case.take("b.stable_kv_len")) == length

    check_accepted(case, tree)
    check_walk(case, tree)
    accepted, token = case.take("c.in.accepted_tokens"), case.take("c.in.next_sample_token")
    case.same(torch.cat([ids, accepted, token], dim=1), "c.in.full_input_ids")
    features, following = case.take("c.in.accepted_target_hidden"), torch.cat([accepted[:, 1:], token], dim=1)
    more = torch.cat([borrowed.embed_tokens(accepted[:, :1]), borrowed.embed_tokens(following)], dim=1)
    case.same(fused(loaded.layer_inputs(features, more, [[]])), "c.fused_input", tolerance=FUSED)
    drafter.extend(state, features, following)
    keys, values = state.cache.rows(0)
    case.same(keys[:, :, length:], "c.kv.k_last")
    case.same(values[:, :, length:], "c.kv.v_last")
    assert state.cache.stable == int(case.take("c.stable_kv_len"))
    check_tree(case, drafter.propose(state, budget), "c")


def leaf_paths(case: Case, tree: DraftTree) -> torch.Tensor:
    """Leaves in the order of the case: when sampling, rows are sorted with -1 last."""
    paths = tree.leaf_paths()
    if not case.parameters["sampling_sort"]:
        return paths
    return torch.tensor(sorted(paths.tolist(), key=lambda row: [node if node >= 0 else len(tree) for node in row]))


def check_tree(case: Case, tree: DraftTree, name: str) -> None:
    case.same(tree.tokens[None], f"{name}.draft_tokens")
    case.same(tree.depths, f"{name}.tree_position_ids")
    case.same(tree.ancestor_mask()[None, None].float(), f"{name}.tree_mask")
    case.same(leaf_paths(case, tree), f"{name}.retrieve_indices")


def check_accepted(case: Case, tree: DraftTree) -> None:
    """What the case commits is a path of the tree."""
    row, count = leaf_paths(case, tree)[int(case.take("c.in.path_row"))], case.parameters["n_accept"] + 1
    case.same(row[None, :count], "c.in.accepted_path")
    assert torch.equal(tree.tokens[row[:count]][None], case.take("c.in.accepted_tokens"))


class _Greedy:
    return_dict_in_generate = output_scores = output_logits = output_hidden_states = output_attentions = False
    do_sample, max_length = False, 10**6


def check_walk(case: Case, tree: DraftTree) -> None:
    """Our walk over the tree, token by token, is the authors' comparison of whole rows."""
    paths = leaf_paths(case, tree)
    case.same(torch.cat([tree.tokens, torch.tensor([-1])])[paths], "d.candidates")
    answer = Answer(
        tree.tokens[None, :1], lambda ids, scores: scores, lambda ids, s: torch.tensor([False]), _Greedy, None
    )
    verified = Verified(case.take("d.tree_logits"), torch.empty(0), 0, torch.empty(0), None, None)
    path, tokens = walk(tree, verified, answer)
    case.same(torch.tensor([len(path) - 1]), "d.accept_length")
    case.same(torch.tensor(tokens[-1:]), "d.greedy_next")
    # a walk that ends at the root is on every row; the authors then report the first
    rows = [i for i, row in enumerate(paths.tolist()) if row[: len(path)] == path]
    case.same(torch.tensor(rows[:1]), "d.best_candidate")
