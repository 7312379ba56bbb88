"""An authors' checkpoint loaded as a drafter, without keeping the converted folder.

The other way to the same drafter is `mmspec convert`, which pays where a checkpoint is loaded often.
"""

import tempfile
from pathlib import Path
from typing import Any

from ..modeling import FAMILIES, Drafter
from ..modeling.strict_loading import HUB_OPTIONS
from .convert import convert


def load_published(source: str, family: str | None = None, layer_ids: str | None = None, **kwargs: Any) -> Drafter:
    """Convert to a temporary folder and load that.

    Args:
        source: local folder or Hub repository.
        family: see `convert`.
        layer_ids: see `convert`.
        kwargs: as `PreTrainedModel.from_pretrained`.

    Raises:
        ConversionError: see `convert`.
    """
    hub_options = {name: kwargs.pop(name) for name in HUB_OPTIONS if name in kwargs}
    with tempfile.TemporaryDirectory(prefix="mmspec-") as folder:
        report = convert(source, Path(folder) / "drafter", family, layer_ids, **hub_options)
        drafter = FAMILIES[report.family][1].from_pretrained(report.destination, **kwargs)
    drafter.config.name_or_path = drafter.name_or_path = source
    return drafter
