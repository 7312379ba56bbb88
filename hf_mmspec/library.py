"""The package as a library: its public names, `generate` and `pipeline` that know drafters, the Auto classes' too.

Imported with `hf_mmspec` itself, by the command line only once a command needs a model. Does nothing else.
"""

from .auto import AutoDrafter
from .generation import Speculation, install_hook, speculative_decoding
from .hub.publish import install_push_to_hub
from .pipelines import register_pipelines

install_hook()
install_push_to_hub()
register_pipelines()

__all__ = ["AutoDrafter", "Speculation", "install_hook", "speculative_decoding"]
