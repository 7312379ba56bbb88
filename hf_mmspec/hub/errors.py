"""The error of a conversion that cannot be done."""


class ConversionError(ValueError):
    """One sentence with cause and fix. Raised before anything is written."""
