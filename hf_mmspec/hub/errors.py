"""What a conversion or a publication fails with."""


class ConversionError(ValueError):
    """One sentence with cause and fix. Raised before anything is written."""


class PublishError(ValueError):
    """A drafter cannot be published as it is, or the Hub does not take it; the message names cause and fix."""
