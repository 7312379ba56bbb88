"""hf_mmspec: multimodal speculative decoding for transformers.

Importing it registers the drafters with transformers' Auto classes and teaches `generate` and `pipeline` about them:
`target.generate(**inputs, assistant_model=AutoDrafter.from_pretrained(...))`.
"""

from .auto import AutoDrafter
from .generation import Speculation, install_hook, speculative_decoding
from .hub.publish import install_push_to_hub
from .pipelines import register_pipelines

install_hook()
install_push_to_hub()
register_pipelines()

__version__ = "0.1.0"
__all__ = ["AutoDrafter", "Speculation", "__version__", "install_hook", "speculative_decoding"]
