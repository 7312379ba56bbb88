"""Conversations of many turns with one model, whose caches go on from turn to turn.

Its border: nothing here prints, chooses a token or knows a drafter family.
"""

from .chat import Chat, Reply
from .storage import ChatFileError

__all__ = ["Chat", "ChatFileError", "Reply"]
