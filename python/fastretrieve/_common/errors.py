"""The exception of files: ``StorageError``."""


class StorageError(ValueError):
    """A file is not what it should be; the message says where, and what was expected."""
