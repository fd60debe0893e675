"""Fails when imported, in a way that only running it shows."""

raise RuntimeError("the model server is not reachable")
