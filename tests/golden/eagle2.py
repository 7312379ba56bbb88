"""EAGLE-2 and MSD: the format's checks, and the losses of MSD's training path."""

import torch
from torch import nn

from hf_mmspec.modeling import EagleConfig, EagleDrafter, MSDConfig, MSDDrafter
from tests.golden import eagle
from tests.golden.case import Case
from tests.golden.losses import eagle_losses


def check(case: Case) -> None:
    loaded = load(case)
    if case.has("loss.total"):
        check_training(case, loaded)
    else:
        eagle.check_rounds(case, loaded)


def load(case: Case) -> eagle.Loaded:
    config_class, drafter_class = (MSDConfig, MSDDrafter) if case.family == "msd" else (EagleConfig, EagleDrafter)
    style = MSDConfig.layer_style(case.config["model_type"])
    if case.config.get("qkv_bias"):
        style["attention_bias"] = True
    config = config_class(**eagle.shared_fields(case), fc_bias=case.config.get("bias", True), **style)
    drafter = drafter_class(config).eval()
    drafter.load_state_dict(case.weights("sd.", {}, {"embed_tokens.weight"}), strict=True)
    return eagle.Loaded(drafter, eagle.borrowed_parts(case, "head.weight"))


@torch.no_grad()
def check_training(case: Case, loaded: eagle.Loaded) -> None:
    """A right-padded batch. Padding rows are garbage on their side; the last slot of each sample reads the padded
    tail of the shifted embeddings, which becomes one more position here."""
    features, shifted = case.take("in.target_hidden"), case.take("in.shifted_inputs_embeds")
    assert torch.equal(case.take("in.target_inputs_embeds")[:, 1:], shifted[:, :-1])
    embeds = torch.cat([case.take("in.target_inputs_embeds"), shifted[:, -1:]], dim=1)
    ids = case.take("in.shifted_input_ids_padded")
    is_text = ~case.take("in.image_mask_unshifted")
    spans = [eagle.runs(~row) for row in is_text]
    mask = case.take("in.attention_mask")
    real = mask.bool()
    text_only = mask.sum(1) < mask.shape[1]
    assert torch.equal(loaded.borrowed.embed_tokens(ids[text_only]), shifted[text_only])
    case.same(loaded.layer_inputs(features, embeds, spans), "a.fused_input", where=real, tolerance=eagle.FUSED)
    hidden = loaded.outputs(features, embeds, spans, nn.functional.pad(mask, (1, 0), value=1))
    case.same(hidden, "a.out_hidden", where=real)

    target = torch.nn.functional.pad(features[:, 1:], (0, 0, 0, 1))
    case.same(target, "in.shifted_target")
    feature_loss, token_loss = eagle_losses(hidden, target, loaded.borrowed.lm_head, case.take("in.loss_mask"))
    case.same(feature_loss[None], "loss.vloss")
    case.same(token_loss[None], "loss.ploss")
    case.same((feature_loss + 0.1 * token_loss)[None], "loss.total")
