"""FLASH against the authors' own numbers: compression, slots, training, drafts of two rounds, a padded batch.

They keep no cache and recompute everything; we read row by row into a cache of slot 0. Same numbers.
"""

import copy

import torch
from torch import nn

from hf_mmspec.modeling import BorrowedParts, DraftBudget, FlashConfig, FlashDrafter, TargetPrompt
from hf_mmspec.modeling.row_plan import take_rows
from tests.golden.case import Case
from tests.golden.losses import eagle_losses
from tests.golden.recording import recorded_drafts

NAMES = {
    "A": "image_adaptor.queries",
    "hydra_projs.": "refiner.",
    "layers.slot_embeddings": "slot_embeddings",
    "layers.input_layernorm.": "layers.0.input_layernorm.",
    "layers.post_attn_layernorm.": "layers.0.post_attention_layernorm.",
    **{f"layers.{p}_proj.": f"layers.0.self_attn.{p}_proj." for p in "qkvo"},
    **{f"layers.{p}_proj.": f"layers.0.mlp.{p}_proj." for p in ("gate", "up", "down")},
}


def check(case: Case) -> None:
    drafter, borrowed = load(case)
    ids = case.take("in/input_ids")
    assert torch.equal(case.take("in/target_embeds_shifted")[:, :-1], case.take("in/target_embeds")[:, 1:])
    spans = find_spans(case, ids[0])
    check_prefill(case, drafter, borrowed, spans)
    check_text_only(case, drafter)
    check_training(case, drafter, borrowed, spans)
    check_batch(case, drafter, borrowed)
    check_drafts(case, drafter, borrowed, spans)


def load(case: Case) -> tuple[FlashDrafter, BorrowedParts]:
    theirs = case.config
    width = theirs["hidden_size"]
    config = FlashConfig(
        vocab_size=theirs["vocab_size"],
        hidden_size=width,
        intermediate_size=4 * width,
        num_attention_heads=theirs["sar_num_heads"],
        head_dim=theirs["sar_head_dim"],
        num_slots=theirs["k"],
        num_latents=theirs["compress_len"],
        rms_norm_eps=1e-6,  # theirs, whatever their config says
        rope_theta=10000.0,
        reference_compat=True,
    )
    drafter = FlashDrafter(config).eval()
    drafter.load_state_dict(case.weights("weights/", NAMES, OF_THE_TARGET), strict=True)
    case.same(drafter.rotary_emb.inv_freq, "weights/layers.rotary_emb.inv_freq")
    return drafter, borrowed_parts(case)


OF_THE_TARGET = {"embed_tokens.weight", "layers.rotary_emb.inv_freq"}


def borrowed_parts(case: Case) -> BorrowedParts:
    weight = case.take("weights/embed_tokens.weight")
    head = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    head.weight.data = case.take("lm_head.weight")
    return BorrowedParts(nn.Embedding.from_pretrained(weight), head, weight.shape[0], weight.shape[0])


def find_spans(case: Case, ids: torch.Tensor) -> list[tuple[int, int]]:
    """As the authors: one window of image tokens, cut into equal images."""
    where = (ids == case.config["image_token_id"]).nonzero()[:, 0].tolist()
    if not where:
        return []
    size = len(where) // max(1, len(where) // case.config["image_token_per_image"])
    return [(start, start + size) for start in range(where[0], where[-1] + 1, size)]


def unshifted(drafter: FlashDrafter, features: torch.Tensor, shifted: torch.Tensor):
    """Our features and embeddings: one position more for the tail of the authors' shifted embeddings, and as many as
    the last row's slots reach."""
    k = drafter.config.num_slots
    embeds = torch.cat([torch.zeros_like(shifted[:, :1]), shifted], dim=1)
    return nn.functional.pad(features, (0, 0, 0, k)), nn.functional.pad(embeds, (0, 0, 0, k - 1))


def slots_of(drafter: FlashDrafter, length: int, *inputs, **options) -> torch.Tensor:
    """Outputs `(B, length, k, H)` by the row they start from, as the authors lay them out."""
    out = drafter(*inputs, **options)
    slots = [nn.functional.pad(hidden, (0, 0, 0, i))[:, i : i + length] for i, hidden in enumerate(out.hidden_states)]
    return torch.stack(slots, dim=2)


def plain(drafter: FlashDrafter) -> FlashDrafter:
    """Without residual gate and refiner: the block alone."""
    block = copy.deepcopy(drafter)
    block.residual_gate.data.zero_()
    block.refiner = None
    return block


@torch.no_grad()
def check_prefill(case: Case, drafter: FlashDrafter, borrowed: BorrowedParts, spans) -> None:
    features, embeds = unshifted(drafter, case.take("in/target_hidden"), case.take("in/target_embeds_shifted"))
    latents = drafter.image_adaptor.compress(features, [spans])
    case.same(latents.flatten(0, 1)[None], "compress/tokens")
    length = features.shape[1] - drafter.config.num_slots
    rows = drafter.batch_rows(features, embeds, [spans], None)
    count = int((rows.plan.slots < length).sum())
    fused = drafter.row_inputs(rows.plan, rows.embeddings, rows.features)[:, :count]
    case.same(fused, "prefill/fused", tolerance=1e-5)
    slots = slots_of(plain(drafter), length, features, embeds, [spans])
    out = take_rows(slots.flatten(2), rows.plan.slots[:, :count]).unflatten(-1, slots.shape[2:])
    case.same(out, "prefill/sar_out")
    case.same(borrowed.lm_head(out), "prefill/logits")


@torch.no_grad()
def check_text_only(case: Case, drafter: FlashDrafter) -> None:
    """The text before the image, alone."""
    count = case.take("textonly/fused").shape[1]
    features, shifted = (case.take(f"in/{name}")[:, :count] for name in ("target_hidden", "target_embeds_shifted"))
    features, embeds = unshifted(drafter, features, shifted)
    rows = drafter.batch_rows(features, embeds, None, None)
    fused = drafter.row_inputs(rows.plan, rows.embeddings, rows.features)
    case.same(fused[:, :count], "textonly/fused", tolerance=1e-5)
    case.same(slots_of(plain(drafter), count, features, embeds), "textonly/sar_out")


@torch.no_grad()
def check_training(case: Case, drafter: FlashDrafter, borrowed: BorrowedParts, spans) -> None:
    """Slot i of row t against h of t + 1 + i. We have no rows for the image positions that compression drops. The
    authors do, made of residual gate and refiner alone, and train some of their slots: those that reach the answer."""
    features, shifted, ids = (case.take(f"in/{n}") for n in ("target_hidden", "target_embeds_shifted", "input_ids"))
    length, k = features.shape[1], drafter.config.num_slots
    text = ids != case.config["image_token_id"]
    tokens = borrowed.embed_tokens(nn.functional.pad(ids, (0, k)))
    assert torch.equal(tokens[:, :length][text], case.take("in/target_embeds")[text])
    further, embeds = unshifted(drafter, features, shifted)

    teacher_forced = slots_of(drafter, length, further, tokens, [spans])
    where = text.clone()
    where[:, -1] = False  # reads a zero embedding in theirs, where the refiner reads that of token 0
    case.same(teacher_forced, "train/pred_teacher_forced", where=where)
    options = {"borrowed": borrowed, "own_token_rate": 1.0}
    case.same(slots_of(drafter, length, further, embeds, [spans], **options), "train/pred_free_running", where=text)

    targets = torch.stack([further[:, i + 1 : i + 1 + length] for i in range(k)], dim=2)
    case.same(targets, "train/target_hidden")
    padded = nn.functional.pad(ids, (0, k))
    case.same(torch.stack([padded[:, i + 1 : i + 1 + length] for i in range(k)], dim=2), "train/target_ids")
    mask = case.take("train/loss_mask")
    without_row = without_rows(drafter, features, tokens)
    predicted = torch.where(text[..., None, None], teacher_forced, without_row)
    assert not mask[~where & ~last_of_image(text)].any()
    feature_loss, token_loss = eagle_losses(predicted, targets, borrowed.lm_head, mask)
    case.same(feature_loss, "train/vloss")
    case.same(token_loss, "train/ploss")
    case.same(feature_loss + 0.1 * token_loss, "train/loss")


def without_rows(drafter: FlashDrafter, features: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """What the authors predict where no row is: `(B, L, k, H)`."""
    gated = features[:, :, None] * drafter.residual_gate[:, None]
    context, slots = torch.zeros_like(features), [gated[:, :, 0]]
    for slot in range(1, drafter.config.num_slots):
        context = context + tokens[:, slot : slot + features.shape[1]]
        slots.append(drafter.refiner(slot, context, gated[:, :, slot]))
    return torch.stack(slots, dim=2)


def last_of_image(text: torch.Tensor) -> torch.Tensor:
    """Image positions right before text, up to three."""
    near = nn.functional.pad(text, (0, 3))
    return ~text & (near[:, 1:-2] | near[:, 2:-1] | near[:, 3:])


@torch.no_grad()
def check_batch(case: Case, drafter: FlashDrafter, borrowed: BorrowedParts) -> None:
    """Right padding, free running; nothing at padding means anything."""
    mask = case.take("batch/attention_mask")
    ids = case.take("batch/input_ids").where(mask.bool(), 0)
    features, shifted = case.take("batch/target_hidden"), case.take("batch/target_embeds_shifted")
    spans = [find_spans(case, row) for row in ids]
    features, embeds = unshifted(drafter, features, shifted)
    text = (ids != case.config["image_token_id"]) & mask.bool()
    mask = nn.functional.pad(nn.functional.pad(mask, (1, 0), value=1), (0, drafter.config.num_slots - 1))
    options = {"borrowed": borrowed, "own_token_rate": 1.0}
    case.same(slots_of(drafter, ids.shape[1], features, embeds, spans, mask, **options), "batch/pred", where=text)


@torch.no_grad()
def check_drafts(case: Case, drafter: FlashDrafter, borrowed: BorrowedParts, spans) -> None:
    """Two rounds of a greedy chain. The prompt ends before the last id, which is the pending token."""
    ids = case.take("in/input_ids")
    prompt = TargetPrompt(
        ids[:, :-1], case.take("in/target_embeds")[:, :-1], case.take("in/target_hidden")[:, :-1], spans
    )
    state = drafter.prefill(prompt, ids[:, -1:], borrowed)
    check_chain(case, drafter, state, "round1")
    committed, features = case.take("round2/committed_ids"), case.take("round2/committed_hidden")
    assert torch.equal(committed[:, :1], ids[:, -1:])
    following = torch.cat([committed[:, 1:], case.take("round2/next_token")], dim=1)
    check_buffers(case, drafter, borrowed, prompt, features, following)
    drafter.extend(state, features, following)
    check_chain(case, drafter, state, "round2")
    state.has_images = False  # opens the residual gate, which the released decoding leaves out after images
    check_chain(case, drafter, state, "round2_residual")


def check_buffers(case: Case, drafter: FlashDrafter, borrowed: BorrowedParts, prompt, features, following) -> None:
    """Their growing inputs, which we turn into cache rows and forget."""
    pending = borrowed.embed_tokens(case.take("in/input_ids")[:, -1:])
    embeds = torch.cat([prompt.inputs_embeds, pending], dim=1)
    rows = drafter.batch_rows(nn.functional.pad(prompt.features, (0, 0, 0, 1)), embeds, [prompt.visual_spans], None)
    buffer = drafter.row_inputs(rows.plan, rows.embeddings, rows.features)
    case.same(buffer, "round1/buffer", tolerance=1e-5)
    more = drafter.fuse(borrowed.embed_tokens(following), features, None)
    case.same(torch.cat([buffer, more], dim=1), "round2/buffer", tolerance=1e-5)
    is_latent = prompt.visual_mask.gather(1, rows.plan.slots)[..., None]
    residual = torch.where(is_latent, 0, rows.features)
    case.same(torch.cat([residual, features], dim=1), "round2_residual/residual")


def check_chain(case: Case, drafter: FlashDrafter, state, name: str) -> None:
    k = drafter.config.num_slots
    with recorded_drafts(drafter) as (hidden, logits):
        tree = drafter.propose(state, DraftBudget(k, 1, k + 1, "chain"))
    case.same(torch.cat(hidden)[None], f"{name}/draft_hidden")
    if name != "round2_residual":
        case.same(torch.cat(logits)[None], f"{name}/draft_logits")
    case.same(tree.tokens[None, 1:], f"{name}/draft_tokens")
