"""The drafters of a run: their names in the report, loading, and what a drafter is without its eyes.

Knows nothing about prompts or clocks.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from hf_mmspec import auto
from hf_mmspec.modeling import Drafter
from hf_mmspec.modeling.row_drafter import RowDrafter
from hf_mmspec.modeling.visual_rows import SkippedRows

from . import loading
from .contenders import BASELINES
from .prompts import unique_names


@dataclass(frozen=True)
class Entry:
    """A drafter that takes part.

    Args:
        name: in the report.
        source: folder or Hub repository.
        blind: whether images are hidden from it.
    """

    name: str
    source: str
    blind: bool = False


def name_drafters(drafters: Sequence[str], text_only: Sequence[str] = (), blind: bool = False) -> list[Entry]:
    """Entries with unique names: the family (`model_type`) where no other drafter has it, else the folder's name.

    Args:
        drafters: folders or Hub repositories.
        text_only: the same; they are used without the images.
        blind: enter each of `drafters` a second time, without the images.

    Raises:
        DrafterLoadError: a config.json is missing or unreadable.
    """
    wanted = [(source, False) for source in drafters]
    wanted += [(source, True) for source in (*text_only, *(drafters if blind else ()))]
    families = {source: auto.read_config(source, {}).get("model_type") or "drafter" for source, _ in wanted}
    shared = [family for family in families.values() if list(families.values()).count(family) > 1]
    names = {
        source: Path(source).resolve().name if family in shared else family for source, family in families.items()
    }
    hint = " without images"
    free = unique_names([names[source] + hint * is_blind for source, is_blind in wanted], taken=BASELINES)
    return [Entry(name, source, is_blind) for name, (source, is_blind) in zip(free, wanted, strict=True)]


def load_drafters(entries: Sequence[Entry], target: PreTrainedModel) -> dict[str, Drafter]:
    """All of them by name, bound to `target` once so that one that does not fit is noticed at once; a folder that is
    entered twice is loaded once.

    Raises:
        ValueError: a drafter does not fit the target, or cannot do without images.
    """
    loaded: dict[str, Drafter] = {}
    for entry in entries:
        if entry.source not in loaded:
            loaded[entry.source] = loading.load_drafter(entry.source, target)
            loaded[entry.source].bind(target)
    return {entry.name: _as_entered(loaded[entry.source], entry) for entry in entries}


def without_images(drafter: Drafter) -> Drafter:
    """The same drafter, sharing its weights, with visual positions cut out of what it reads (`SkippedRows`).

    Raises:
        ValueError: the family does not read rows, so nothing can be cut.
    """
    if not isinstance(drafter, RowDrafter):
        raise ValueError(f"images cannot be hidden from a drafter of the family {drafter.config.model_type!r}")
    twin = copy.copy(drafter)
    twin._modules = dict(drafter._modules)
    twin.image_adaptor = SkippedRows()
    return twin


def _as_entered(drafter: Drafter, entry: Entry) -> Drafter:
    return without_images(drafter) if entry.blind else drafter
