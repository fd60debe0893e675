"""The memory that a process may take: of the machine, its container and its own limits."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

CONTAINER_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


def most_bytes() -> int:
    """What this process could take if no other took any."""
    known = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in CONTAINER_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # "max" is no limit
            known.append(int(Path(path).read_text()))
    for kind in (resource.RLIMIT_DATA, resource.RLIMIT_AS):
        limit, _ = resource.getrlimit(kind)
        known += [limit] * (limit != resource.RLIM_INFINITY)
    return min(known)
