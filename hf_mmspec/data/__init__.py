"""Conversations and pictures: where prompts come from, whoever answers them.

Its border: nothing here knows a model, a drafter or a benchmark.
"""

from .conversation import Conversation, model_inputs, user_message
from .picture_file import PictureError, open_picture

__all__ = ["Conversation", "PictureError", "model_inputs", "open_picture", "user_message"]
