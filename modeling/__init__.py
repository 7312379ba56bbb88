"""Drafters for `model.generate(assistant_model=...)`: their configs, models, trees and request states.

Imports torch, transformers and siblings only: these files are also published beside the weights as remote code.
"""

from transformers import AutoConfig, AutoModel

from .binding import DrafterMismatchError
from .configuration_drafter import DrafterConfig
from .configuration_eagle import EagleConfig
from .configuration_eagle3 import Eagle3Config
from .configuration_flash import FlashConfig
from .configuration_msd import MSDConfig
from .configuration_vispec import ViSpecConfig
from .draft_state import BorrowedParts, DrafterCache, DraftState, TargetPrompt
from .draft_tree import DraftBudget, DraftTree
from .modeling_drafter import Drafter
from .modeling_eagle import EagleDrafter
from .modeling_eagle3 import Eagle3Drafter
from .modeling_flash import FlashDrafter
from .modeling_msd import MSDDrafter
from .modeling_vispec import ViSpecDrafter
from .strict_loading import DrafterLoadError

# model_type -> (config, model): a new family is one more line here
FAMILIES = {
    "eagle": (EagleConfig, EagleDrafter),
    "eagle3": (Eagle3Config, Eagle3Drafter),
    "flash": (FlashConfig, FlashDrafter),
    "msd": (MSDConfig, MSDDrafter),
    "vispec": (ViSpecConfig, ViSpecDrafter),
}

for _name, (_config, _model) in FAMILIES.items():
    AutoConfig.register(_name, _config, exist_ok=True)
    AutoModel.register(_config, _model, exist_ok=True)

__all__ = [
    "FAMILIES",
    "BorrowedParts",
    "DraftBudget",
    "DraftState",
    "DraftTree",
    "Drafter",
    "DrafterCache",
    "DrafterConfig",
    "DrafterLoadError",
    "DrafterMismatchError",
    "Eagle3Config",
    "Eagle3Drafter",
    "EagleConfig",
    "EagleDrafter",
    "FlashConfig",
    "FlashDrafter",
    "MSDConfig",
    "MSDDrafter",
    "TargetPrompt",
    "ViSpecConfig",
    "ViSpecDrafter",
]
