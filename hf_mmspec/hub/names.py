"""Names of models and data sets as the Hub has them, told from folders of a machine.

Asks neither the Hub nor a model.
"""

from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

EMBEDDED_TARGET = "the embedded default"


def public_name(name: str) -> str:
    """A name that may be published: of a path on this machine only its last part, without a slash. So a public name
    with a slash is one of the Hub."""
    is_path = name.startswith(("/", "./", "../", "~")) or Path(name).exists()
    return Path(name).name if is_path else name


def is_hub_id(name: str | None) -> bool:
    """Whether a public name is `ORGANISATION/NAME`."""
    if name is None or name.count("/") != 1:
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True
