"""ViSpec against the authors' own numbers: adaptor, prefill, caches, trees of two rounds."""

import torch
from torch import nn

from hf_mmspec.modeling import BorrowedParts, DraftBudget, DraftState, DraftTree, TargetPrompt, ViSpecConfig
from hf_mmspec.modeling import ViSpecDrafter as Drafter
from tests.golden.case import Case

# beginnings of the authors' names -> ours
NAMES = {"imadpt.q": "image_adaptor.queries", "imadpt.": "image_adaptor."}
OF_THE_TARGET = {"embed_tokens.weight", "lm_head.weight"}
SAME_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
    "num_q",
    "fc_bias",
)


def check(case: Case) -> None:
    drafter, borrowed = load_drafter(case), load_target(case)
    spans = [(start, stop) for start, stop in case.config["image_spans"]]
    prompt = TargetPrompt(
        case.take("in/input_ids"), case.take("in/target_embeds"), case.take("in/target_hidden"), spans
    )
    assert torch.equal(prompt.visual_mask, case.take("in/image_mask"))
    check_images(case, drafter, prompt)
    check_rows(case, drafter, borrowed, prompt)

    state = drafter.prefill(prompt, case.take("in/first_token"), borrowed)
    check_state(case, state, "prefill/k", "prefill/v")
    assert state.next_position == int(case.take("prefill/next_position"))
    # the authors' depth counts steps after level 1
    budget = DraftBudget(case.config["depth"] + 1, case.config["top_k"], case.config["total_tokens"])
    check_tree(case, drafter.propose(state, budget), "round1")

    next_tokens = torch.cat([case.take("round2/committed_ids")[:, 1:], case.take("round2/next_token")], dim=1)
    drafter.extend(state, case.take("round2/committed_hidden"), next_tokens)
    check_state(case, state, "round2/stable_k", "round2/stable_v")
    check_tree(case, drafter.propose(state, budget), "round2")


def load_drafter(case: Case) -> Drafter:
    theirs = case.config
    config = ViSpecConfig(
        **{name: theirs[name] for name in SAME_FIELDS if name in theirs},
        attention_bias=theirs.get("qkv_bias", False),
        rope_theta=theirs.get("rope_theta", 10000.0),
        rope_scaling=theirs.get("rope_scaling"),
    )
    drafter = Drafter(config).eval()
    drafter.load_state_dict(case.weights("weights/", NAMES, OF_THE_TARGET), strict=True)
    return drafter


def load_target(case: Case) -> BorrowedParts:
    rows, hidden = case.config["vocab_size"], case.config["hidden_size"]
    head = nn.Linear(hidden, rows, bias=False)
    head.weight.data = case.take("weights/lm_head.weight")
    embeddings = nn.Embedding.from_pretrained(case.take("weights/embed_tokens.weight"))
    return BorrowedParts(embeddings, head, vocab_size=rows, head_size=rows)


@torch.no_grad()
def check_images(case: Case, drafter: Drafter, prompt: TargetPrompt) -> None:
    for i, (start, stop) in enumerate(prompt.visual_spans):
        case.same(drafter.image_adaptor(prompt.inputs_embeds[:, start:stop]), f"prefill/compressed_{i}")


@torch.no_grad()
def check_rows(case: Case, drafter: Drafter, borrowed: BorrowedParts, prompt: TargetPrompt) -> None:
    """Outputs by slot, through the training path. Slots of dropped image positions are zero on both sides."""
    first_token = borrowed.embed_tokens(case.take("in/first_token"))
    embeds = torch.cat([prompt.inputs_embeds, first_token], dim=1)
    features = nn.functional.pad(prompt.features, (0, 0, 0, 1))
    hidden = drafter(features, embeds, [prompt.visual_spans]).hidden_states[0][:, :-1]
    case.same(hidden, "prefill/hidden")
    kept = case.take("prefill/hidden").abs().sum(-1, keepdim=True) > 0
    case.same(drafter.draft_logits(hidden, borrowed) * kept, "prefill/logits")


def check_state(case: Case, state: DraftState, keys_name: str, values_name: str) -> None:
    keys, values = state.cache.rows(0)
    case.same(keys, keys_name)
    case.same(values, values_name)
    image_feature = state.image_feature
    if image_feature is None:
        image_feature = torch.zeros(1, 1, case.config["hidden_size"])
    case.same(image_feature[0], "prefill/global_feature")


def check_tree(case: Case, tree: DraftTree, name: str) -> None:
    case.same(tree.tokens[None], f"{name}/draft_tokens")
    case.same(tree.depths, f"{name}/tree_position_ids")
    case.same(tree.ancestor_mask()[None, None], f"{name}/tree_mask")
    case.same(tree.leaf_paths(), f"{name}/retrieve_indices")
