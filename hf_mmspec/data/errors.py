"""What can be wrong with data: the whole of it, or one sample.

Knows no format.
"""


class DataError(ValueError):
    """The data cannot be used; the message is one line for the user that says why and what to do."""


class UnusableSample(ValueError):
    """One sample cannot be used; callers skip it and count it under `reason`, a short fixed phrase.

    Args:
        reason: such as "no prompt" or "picture missing"; the same words for the same trouble.
        detail: what this sample has in particular.
    """

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail

    def __reduce__(self):
        return type(self), (self.reason, self.detail)
