"""The one exception of the encoders. It says what was wanted, what came and what to do."""


class EncoderError(Exception):
    """An encoder cannot be found, loaded, saved or used as asked."""
