"""The machine, commit, date and versions of a measurement."""

import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path

from fastretrieve._backends.runtime import usable_cores as usable_cores
from fastretrieve.benchmarking.peers import PEERS, version_of

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def cpu_model() -> str:
    """The processor's name as the kernel gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux: the platform's word will do
    return platform.processor() or platform.machine()


def huge_pages() -> str:
    """The kernel's setting for transparent huge pages: always, madvise or never."""
    try:
        words = HUGE_PAGES.read_text().split()
    except OSError:
        return "unknown"
    return next((word.strip("[]") for word in words if word.startswith("[")), "unknown")


def commit() -> str:
    """The commit this package runs from, with a plus if files differ, or "unknown"."""

    def git(*arguments: str) -> str:
        folder = Path(__file__).resolve().parent
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if not git("ls-files", Path(__file__).name):
            return "unknown"  # installed somewhere inside a checkout of something else
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def describe() -> dict[str, object]:
    """All of it, ready for JSON."""
    distributions = ["fastretrieve", "numpy", *(peer.distribution for peer in PEERS.values())]
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "huge_pages": huge_pages(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: version_of(name) for name in distributions},
    }
