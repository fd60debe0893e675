"""Takes a name that is taken; otherwise it is sound."""

from fastretrieve.encoders.models.pixels import PixelsEncoder


class Encoder(PixelsEncoder):
    """The built-in encoder under a second roof."""
