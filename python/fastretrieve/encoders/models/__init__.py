"""The encoders of this package; each is an entry point, like those of plugins."""
