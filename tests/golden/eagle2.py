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
    """A right-padded batch. Nothing at padding means anything, on either side. The last slot of each sample reads one
    embedding more than it has positions; that stands in the shifted stream only."""
    features, shifted = case.take("in.target_hidden"), case.take("in.shifted_inputs_embeds")
    real = case.take("in.attention_mask").bool()
    spans = [eagle.runs(row) for row in case.take("in.image_mask_unshifted") & real]
    check_streams(case, loaded, features, shifted, spans)
    embeds = torch.cat([case.take("in.target_inputs_embeds")[:, :1], shifted], dim=1)
    case.same(loaded.layer_inputs(features, embeds, spans), "a.fused_input", where=real, tolerance=eagle.FUSED)
    hidden = loaded.outputs(features, embeds, spans, nn.functional.pad(real.long(), (1, 0), value=1))
    case.same(hidden, "a.out_hidden", where=real)

    head, mask = loaded.borrowed.lm_head, case.take("in.loss_mask").where(real, 0)
    feature_loss, token_loss = eagle_losses(hidden, case.take("in.shifted_target"), head, mask)
    case.same(feature_loss[None], "loss.vloss")
    case.same(token_loss[None], "loss.ploss")
    case.same((feature_loss + 0.1 * token_loss)[None], "loss.total")


def check_streams(case: Case, loaded: eagle.Loaded, features: torch.Tensor, shifted: torch.Tensor, spans) -> None:
    """Shifted streams are the unshifted ones where the next position is real too; ids are those of the embeddings in
    samples without images (in others they are not expanded)."""
    real = case.take("in.attention_mask").bool()
    inner = real & nn.functional.pad(real[:, 1:], (0, 1))
    assert torch.equal(shifted[inner], case.take("in.target_inputs_embeds").roll(-1, dims=1)[inner])
    assert torch.equal(case.take("in.shifted_target")[inner], features.roll(-1, dims=1)[inner])
    text = inner & torch.tensor([not images for images in spans])[:, None]
    assert torch.equal(loaded.borrowed.embed_tokens(case.take("in.shifted_input_ids_padded")[text]), shifted[text])
