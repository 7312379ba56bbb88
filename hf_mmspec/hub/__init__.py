"""Drafters from and to elsewhere: authors' checkpoints become ours."""

from .convert import convert
from .errors import ConversionError
from .load import load_published
from .report import Report

__all__ = ["ConversionError", "Report", "convert", "load_published"]
