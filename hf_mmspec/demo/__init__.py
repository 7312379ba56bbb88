"""The embedded default target: a real small vision-language model that lives in this repository, and its tasks.

Its border: everything that makes or judges the target; nothing here knows about drafting.
"""

from .model.fast_dtype import fast_dtype
from .model.loader import load_default
from .world.grade import grade
from .world.samples import samples

__all__ = ["fast_dtype", "grade", "load_default", "samples"]
