"""Encoders that are broken on purpose, one a module."""
