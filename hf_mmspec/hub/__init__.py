"""Drafters from and to elsewhere: authors' checkpoints become ours, and ours are published."""

from .convert import convert
from .errors import ConversionError, PublishError
from .load import load_published
from .publication import plan_publication
from .publish import publish
from .report import Report

__all__ = [
    "ConversionError",
    "PublishError",
    "Report",
    "convert",
    "load_published",
    "plan_publication",
    "publish",
]
