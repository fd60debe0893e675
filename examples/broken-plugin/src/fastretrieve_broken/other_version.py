"""Speaks a version of the protocol that does not exist yet."""


class Encoder:
    name = "broken-version"
    api_version = 99
