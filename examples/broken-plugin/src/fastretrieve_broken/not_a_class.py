"""Offers a function where a class is wanted."""


def Encoder() -> None:
    """Not an encoder."""
