"""The tier of the CUDA scan that a device gets, and why.

A device gets the best tier that has proved itself there. ``proving.py`` compares every tier with
the CPU, bit for bit, and this module keeps the verdicts in a file of the user's cache. They hold
for one device, driver and build; without a readable verdict the plainest tier serves.
``FASTRETRIEVE_CUDA_TIER`` forces one, proved or not.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from fastretrieve import _core
from fastretrieve._common import caches
from fastretrieve._common.atomic import replacing

TIERS = ("dp4a", "mma", "wgmma")  # the plainest first
PLAIN = TIERS[0]
EQUAL, DIFFERS = "equal", "differs"  # the verdicts that decide; others say what failed
MOST_RECORDS = 64  # many machines may share a home folder
DRIVER_FILE = Path("/proc/driver/nvidia/version")  # of Linux, while the driver is loaded


class Trial(NamedTuple):
    """How a tier fared on a device."""

    tier: str
    verdict: str  # equal, differs, or how its process ended
    said: str  # where it differs, its last words, or how much was compared if it is equal
    seconds: float


class Record(NamedTuple):
    """The trials of a device."""

    when: str
    trials: list[Trial]


class Choice(NamedTuple):
    """A tier, and why this one."""

    tier: str
    reason: str
    usable: bool = True  # False: the plainest tier has given wrong answers and no other is better


def record_file() -> Path:
    """The file of proved tiers."""
    return caches.folder() / "cuda-tiers.json"


def driver_version() -> str:
    """The version of the kernel module; empty if unknown."""
    text = DRIVER_FILE.read_text() if DRIVER_FILE.exists() else ""
    found = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", text)
    return found[1] if found else ""


def identity(device: int) -> dict[str, str]:
    """The device, driver and build that a proof holds for."""
    from importlib.metadata import version  # takes longer than the rest of this module

    name, major, minor, *_ = _core.cuda_devices()[device]
    return {
        "device": name,
        "compute_capability": f"{major}.{minor}",
        "driver": f"{driver_version()} for CUDA {_core.cuda_versions()[0]}",
        "fastretrieve": version("fastretrieve"),
        "core": hashlib.sha256(Path(str(_core.__file__)).read_bytes()).hexdigest(),
    }


def recorded(device: int) -> Record | None:
    """The record of this device, driver and build; None if there is no readable one."""
    try:
        records = json.loads(record_file().read_text())["records"]
        wanted = identity(device) if records else {}  # it reads the whole native module
        for record in records:
            if record["identity"] == wanted:
                return Record(str(record["when"]), [Trial(*trial) for trial in record["trials"]])
    except (OSError, ValueError, LookupError, TypeError, RuntimeError):
        return None  # the plainest tier serves, and says so; `doctor --prove` writes another
    return None


def record(device: int, trials: list[Trial], when: str) -> Path:
    """Replace the record of a device."""
    mine = {"identity": identity(device), "when": when, "trials": trials}
    path = record_file()
    try:
        others = [
            other
            for other in json.loads(path.read_text())["records"]
            if other["identity"] != mine["identity"]
        ]
    except (OSError, ValueError, LookupError, TypeError):
        others = []
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        kept = [*others[1 - MOST_RECORDS :], mine]
        file.write(json.dumps({"records": kept}, indent=1).encode())
    proved.cache_clear()
    return path


def present(device: int) -> list[str]:
    """The tiers that a device and this build have, the plainest first."""
    major = _core.cuda_devices()[device][1]
    return list(TIERS[: TIERS.index(_core.cuda_best_tier(major)) + 1])


def chosen(device: int) -> Choice:
    """The tier for the searches of a device."""
    if forced := os.environ.get("FASTRETRIEVE_CUDA_TIER"):
        return Choice(forced, "FASTRETRIEVE_CUDA_TIER asks for it")
    return proved(device)


@cache  # the file is read once a process
def proved(device: int) -> Choice:
    """The tier that the record of the device allows."""
    tiers, found = present(device), recorded(device)
    if found is None:
        return Choice(PLAIN, _unproved(tiers[1:]))
    verdicts = {trial.tier: trial.verdict for trial in found.trials}
    failed = [f"{tier} {verdict}" for tier, verdict in verdicts.items() if verdict != EQUAL]
    beside = f", but {' and '.join(failed)}" if failed else ""
    for tier in reversed(tiers):
        if verdicts.get(tier) == EQUAL:
            return Choice(tier, f"it equalled the CPU on this device on {found.when}{beside}")
    reason = f"no tier has equalled the CPU on this device: {', '.join(failed)}"
    return Choice(PLAIN, reason, usable=verdicts.get(PLAIN) != DIFFERS)


def _unproved(better: list[str]) -> str:
    if not better:
        return "this device and build have no other"
    verb = "is" if len(better) == 1 else "are"
    return (
        f"{' and '.join(better)} {verb} not proved on this device; "
        f"`fastretrieve doctor --prove` tries {'it' if len(better) == 1 else 'them'}"
    )
