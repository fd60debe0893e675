"""The one exception of the gallery. It says what was wanted, what came and what to do."""


class GalleryError(RuntimeError):
    """A gallery cannot be made, opened, changed or searched as asked."""
