"""The directory of a gallery: its items, its vectors, and the one commit point of both."""
