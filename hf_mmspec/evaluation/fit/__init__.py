"""Whether a drafter fits a target: from configs, then weights, then a short trial, then what drafting costs here.

Its border: it changes nothing on either model.
"""

from .check import examine
from .finding import FAIL, OK, WARN, Finding

__all__ = ["FAIL", "OK", "WARN", "Finding", "examine"]
