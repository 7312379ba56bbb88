"""hf_mmspec: multimodal speculative decoding for transformers.

Importing it registers the drafters with transformers' Auto classes and teaches `generate` about them:
`target.generate(**inputs, assistant_model=AutoDrafter.from_pretrained(...))`.
"""

from .auto import AutoDrafter
from .generation import Speculation, install_hook, speculative_decoding

install_hook()

__version__ = "0.1.0"
__all__ = ["AutoDrafter", "Speculation", "__version__", "install_hook", "speculative_decoding"]
