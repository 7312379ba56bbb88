"""Conversations and pictures: where prompts come from, whoever answers them.

Its border: nothing here runs a model, or knows a drafter or a benchmark.
"""

from .conversation import Conversation, model_inputs, user_message
from .picture_file import PictureError, open_picture
from .placeholders import PlaceholderError, check_text, find_placeholder

__all__ = [
    "Conversation",
    "PictureError",
    "PlaceholderError",
    "check_text",
    "find_placeholder",
    "model_inputs",
    "open_picture",
    "user_message",
]
