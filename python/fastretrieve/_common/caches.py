"""The user's cache: a folder for files that can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def folder() -> Path:
    """The package's folder in the user's cache, which need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastretrieve"
