"""`convert`: an authors' checkpoint becomes a folder that `AutoDrafter.from_pretrained` loads, weights untouched.

Only the order of things is here: find, recognise, plan, write.
"""

from pathlib import Path
from typing import Any

from .checkpoint import open_checkpoint
from .plan import make_plan
from .recognise import check_config, recognise
from .report import Report
from .writing import SHARD_BYTES, check_destination, write


def convert(
    source: str | Path,
    destination: str | Path,
    family: str | None = None,
    layer_ids: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    **hub_options: Any,
) -> Report:
    """Convert a published checkpoint.

    Args:
        source: local folder or Hub repository of ViSpec, MSD, EAGLE-1/2, EAGLE-3 or FLASH.
        destination: a folder that does not exist yet (or is empty).
        family: `eagle`, `eagle3`, `flash`, `msd` or `vispec`, where tensors and config leave a doubt.
        layer_ids: `"inputs"` or `"outputs"`: what EAGLE-3's layer ids number, where the usual rule is wrong.
        shard_bytes: files are no larger (unless by one tensor), and no more is held at a time.
        hub_options: `token`, `revision`, `cache_dir`, `local_files_only`, ...; they reach every file.

    Raises:
        ConversionError: a `ValueError` that names cause and fix, before any file is written.
    """
    destination = Path(destination).absolute()
    check_destination(destination)
    checkpoint = open_checkpoint(source, check_config, **hub_options)
    plan = make_plan(checkpoint, recognise(checkpoint, family, layer_ids))
    report = Report.of(plan, str(destination))
    write(plan, destination, report.record(), shard_bytes)
    return report
