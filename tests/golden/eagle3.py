"""EAGLE-3: the format's checks, and the training-time test over seven steps with its gradients."""

import torch
from torch import nn

from hf_mmspec.modeling import Eagle3Config, Eagle3Drafter
from tests.golden import eagle
from tests.golden.case import Case

NAMES = {"midlayer.": "layers.0."}


def check(case: Case) -> None:
    loaded = load(case)
    if case.has("out.loss"):
        check_training_time_test(case, loaded)
    else:
        # the authors' fused input is the projected feature, the second half of ours
        eagle.check_rounds(case, loaded, fused=lambda inputs: inputs.chunk(2, dim=-1)[1])


def load(case: Case) -> eagle.Loaded:
    size = case.config["draft_vocab_size"]
    fields = {**eagle.shared_fields(case), "draft_vocab_size": size, "feature_layers": [0, 1, 2]}
    drafter = Eagle3Drafter(Eagle3Config(**fields)).eval()
    weights = case.weights("sd.", NAMES, {"embed_tokens.weight", "t2d"})
    if size == case.config["vocab_size"]:
        weights.setdefault("d2t", torch.zeros(size, dtype=torch.long))
    drafter.load_state_dict(weights, strict=True)
    if size < case.config["vocab_size"] or case.has("sd.t2d"):
        case.same(in_draft_vocabulary(drafter), "sd.t2d")
    return eagle.Loaded(drafter, eagle.borrowed_parts(case, head_name=None))


def in_draft_vocabulary(drafter: Eagle3Drafter) -> torch.Tensor:
    """`bool (vocab_size,)`: target tokens that the drafter can draft."""
    ids = drafter.to_target_ids(torch.arange(drafter.config.draft_vocab_size))
    return torch.zeros(drafter.config.vocab_size, dtype=torch.bool).index_fill(0, ids, True)


def check_training_time_test(case: Case, loaded: eagle.Loaded) -> None:
    """The authors keep a slot and shift its token at each step; here the row moves on and keeps its token, so their
    slot j of step k is our row j + k. Past the end they read token 0, which becomes more positions here. Nothing at
    padding means anything, hence no slot that has read a token from there."""
    drafter, steps = loaded.drafter, case.take("out.plosses").shape[0]
    ids, real = case.take("in.input_ids"), case.take("in.attention_mask").bool()
    length, features = ids.shape[1], torch.where(real[..., None], case.take("in.target_hidden_cat3"), 0)
    tokens = nn.functional.pad(ids.clamp(0, drafter.config.vocab_size - 1), (0, steps))
    embeds = loaded.borrowed.embed_tokens(tokens)
    hidden_states = drafter(nn.functional.pad(features, (0, 0, 0, steps)), embeds, steps=steps).hidden_states

    losses, accuracies = [], []
    where, known = real, nn.functional.pad(real, (0, steps), value=True)
    for step, rows in enumerate(hidden_states):
        hidden = rows[:, step : step + length]
        where = where & known[:, step + 1 : step + 1 + length]
        case.same(hidden.detach(), f"out.hidden_step{step}", where=where)
        loss, accuracy = soft_cross_entropy(case, drafter, hidden, step)
        losses.append(loss)
        accuracies.append(accuracy)
    case.same(torch.stack(losses).detach(), "out.plosses")
    case.same(torch.stack(accuracies), "out.acces")
    total = sum(0.8**step * loss for step, loss in enumerate(losses))
    case.same(total.detach()[None], "out.loss")
    total.backward()
    case.same(drafter.fc.weight.grad, "grad.fc.weight")
    case.same(drafter.lm_head.weight.grad, "grad.lm_head")
    case.same(drafter.layers[0].self_attn.q_proj.weight.grad, "grad.q_proj")


def soft_cross_entropy(case: Case, drafter: Eagle3Drafter, hidden: torch.Tensor, step: int):
    """Where the target's favourite is in the draft vocabulary, averaged over all slots, padding included; with the
    share of right favourites."""
    target = shift_left(case.take("in.target_logits"), step + 1)
    wanted = in_draft_vocabulary(drafter)
    real_mask = case.take("in.loss_mask").where(case.take("in.attention_mask").bool(), 0)
    mask = shift_left(real_mask[..., None], step)[..., 0]
    counted = (mask * wanted[target.argmax(-1)]).bool()
    probs, logits = target[counted][:, wanted].softmax(-1), drafter.draft_logits(hidden[counted])
    loss = -(probs * logits.log_softmax(-1)).sum() / counted.numel()
    right = logits.argmax(-1) == probs.argmax(-1)
    return loss, right.sum() / (mask.sum() + 1e-6)


def shift_left(values: torch.Tensor, by: int) -> torch.Tensor:
    return nn.functional.pad(values[:, by:], (0, 0, 0, by))
