"""Offers a function where a class is wanted."""


def Encoder() -> None:  # noqa: N802
    """Not an encoder."""
