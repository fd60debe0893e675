"""An encoder on disk: read without trust, written whole."""
