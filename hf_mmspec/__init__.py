"""hf_mmspec: multimodal speculative decoding for transformers.

Importing it registers the drafters with transformers' Auto classes and teaches `generate` and `pipeline` about them:
`target.generate(**inputs, assistant_model=AutoDrafter.from_pretrained(...))`. Only in the process of the command line
all this waits until a public name is asked for, so that `mmspec --help` need not import torch. `Chat` always waits: it
needs Pillow, which drafting does not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .startup import is_command_line

__version__ = "0.1.0"  # the only place: pyproject.toml reads it from here
__all__ = ["AutoDrafter", "Chat", "Speculation", "__version__", "install_hook", "speculative_decoding"]
# Names that need more than drafting does (Pillow; the extra `rewrite`), and their modules.
_LATER = {"Chat": ".chat", "PromptRewriter": ".rewriting.rewriter", "Rewrite": ".rewriting.rewrite"}

if TYPE_CHECKING or not is_command_line():
    from .library import AutoDrafter, Speculation, install_hook, speculative_decoding

if TYPE_CHECKING:
    from .chat import Chat
    from .rewriting.rewrite import Rewrite as Rewrite
    from .rewriting.rewriter import PromptRewriter as PromptRewriter
else:

    def __getattr__(name: str) -> Any:
        if name in _LATER:
            return getattr(import_module(_LATER[name], __name__), name)
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from . import library

        return getattr(library, name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *_LATER})
