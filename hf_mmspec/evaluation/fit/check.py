"""The order of a check: what is cheap comes first, and what does not fit ends it.

Loads both models once; judges nothing itself.
"""

from collections.abc import Iterator

from .. import loading
from .configs import compare_configs, drafter_config, target_config
from .finding import FAIL, Finding
from .speed import expected_speed
from .trial import report_trials
from .weights import compare_weights


def examine(model: str | None, drafter: str, dtype: str = "auto", quantize: str | None = None) -> Iterator[Finding]:
    """Find out whether a drafter fits a target, a finding at a time.

    Args:
        model: folder or repository of the target; None for the embedded default.
        drafter: folder or repository of the drafter.
        dtype, quantize: as `load_target` takes them.

    Yields:
        Findings. After a FAIL of the configs no weights are loaded; after one of the weights nothing is run.

    Raises:
        OSError, ValueError: one of the two cannot be read.
    """
    config = drafter_config(drafter)
    found = compare_configs(config, target_config(model))
    yield from found
    if any(each.verdict == FAIL for each in found):
        return
    target, processor = loading.load_target(model, dtype, quantize)
    loaded = loading.load_drafter(drafter, target)
    found = compare_weights(loaded, target, config.dtype)
    yield from found
    if any(each.verdict == FAIL for each in found):
        return
    for each in report_trials(loaded, target, processor):
        yield each
        if each.verdict == FAIL:
            return
    yield expected_speed(loaded, target)
