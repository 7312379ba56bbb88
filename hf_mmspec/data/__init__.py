"""Conversations and pictures: where prompts come from, whoever answers them.

Its border: nothing here runs a model, or knows a drafter or a benchmark.
"""

from .columns import Columns
from .conversation import Conversation, model_inputs, user_message
from .errors import DataError, UnusableSample
from .picture_file import PictureError, open_picture
from .placeholders import PlaceholderError, check_text, find_placeholder
from .sources import Conversations, Source, open_source

__all__ = [
    "Columns",
    "Conversation",
    "Conversations",
    "DataError",
    "PictureError",
    "PlaceholderError",
    "Source",
    "UnusableSample",
    "check_text",
    "find_placeholder",
    "model_inputs",
    "open_picture",
    "open_source",
    "user_message",
]
