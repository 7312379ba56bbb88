"""The embedded default target: a real small vision-language model that lives in this repository, and its tasks.

Its border: everything that makes or judges the target; nothing here knows about drafting.
"""

from .fast_dtype import fast_dtype
from .grade import grade
from .loader import load_default
from .samples import samples

__all__ = ["fast_dtype", "grade", "load_default", "samples"]
