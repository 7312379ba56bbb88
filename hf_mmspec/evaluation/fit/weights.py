"""What loaded weights tell about a drafter and a target, before anything runs.

Compares and looks; runs no forward.
"""

import torch
from transformers import PreTrainedModel

from hf_mmspec.modeling import Drafter
from hf_mmspec.modeling.binding import find_head, fingerprint, similar, unwrap

from .finding import FAIL, WARN, Finding, judged


def compare_weights(drafter: Drafter, target: PreTrainedModel, stored: torch.dtype | None) -> list[Finding]:
    """All that the weights tell.

    Args:
        drafter: in the target's dtype, on its device.
        stored: dtype of the drafter's files.
    """
    head = judged("head", f"{type(target).__name__} with its head", lambda: drafter.bind(target))
    if head.verdict == FAIL:
        return [head]
    return [head, _fingerprint(drafter, target), _dtype(target.dtype, stored), _finite(drafter)]


def _fingerprint(drafter: Drafter, target: PreTrainedModel) -> Finding:
    expected = drafter.config.target_fingerprint
    if not expected:
        advice = "the drafter does not say which weights it was trained with: the self-test below tells"
        return Finding("fingerprint", "not recorded", WARN, advice)
    found = fingerprint(unwrap(target).get_input_embeddings(), find_head(target))
    other = [part for part, numbers in expected.items() if part in found and not similar(numbers, found[part])]
    if other:
        advice = "fine-tuned, rotated or other weights: the text stays exact, but check L below, or train a drafter"
        return Finding("fingerprint", f"another {' and '.join(other)} than in the training", WARN, advice)
    return Finding("fingerprint", f"{' and '.join(expected)} as in the training")


def _dtype(target: torch.dtype, stored: torch.dtype | None) -> Finding:
    found = f"stored as {_name(stored)}, runs as {_name(target)} like the target"
    if target == torch.float16 and stored != torch.float16:
        return Finding("dtype", found, WARN, "float16 ends at 65504: if logits below are not finite, use bfloat16")
    return Finding("dtype", found)


def _finite(drafter: Drafter) -> Finding:
    # with buffers: an int8 layer has no parameters, and one of weights that are not finite has scales that are not
    numbers = {**dict(drafter.named_parameters()), **dict(drafter.named_buffers())}
    broken = [name for name, each in numbers.items() if each.is_floating_point() and not bool(each.isfinite().all())]
    if broken:
        advice = "use a wider dtype (bfloat16, float32); if they are so in the file, get or train the drafter again"
        return Finding("weights", f"{len(broken)} are not finite, {broken[0]} for example", FAIL, advice)
    return Finding("weights", f"{sum(map(torch.Tensor.numel, numbers.values())) / 1e6:.1f} M numbers, all finite")


def _name(dtype: torch.dtype | None) -> str:
    return str(dtype or "unknown").removeprefix("torch.")
