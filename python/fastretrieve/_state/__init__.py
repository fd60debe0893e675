"""The rows of an index: immutable states, and how one becomes the next."""
