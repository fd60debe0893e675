"""The one exception of the readers."""


class DataError(ValueError):
    """A data set, or one item of it, cannot be read. The message says which and what to do."""
