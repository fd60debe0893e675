"""``pip install`` that takes only files whose hashes stand in ``requirements.lock``.

    python tools/install.py 'fastretrieve[test]' scikit-build-core

pip resolves the wanted packages at the versions of ``constraints.txt``. Those that the lock knows
are installed by their hashes first, then the rest: torch and fastretrieve itself. A package that is
in neither file is named, and refused with ``FR_LOCKED=1``, as in CI. ``--no-deps`` takes names of
the lock as they are, for the pip of an old Python, which cannot report what it resolves.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-qq"]
CONSTRAINED = ["--constraint", str(ROOT / "constraints.txt")]
UNLOCKED = ("torch", "fastretrieve", "nvidia-", "cuda-", "triton")  # torch's libraries are its own


def normal(name: str) -> str:
    """A distribution's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked() -> dict[tuple[str, str], str]:
    """The entries of the lock by name and version."""
    text = (ROOT / "requirements.lock").read_text()
    entries = re.findall(r"^[\w.-]+==(?:[^\n]*\\\n)*[^\n]*$", text, re.MULTILINE)
    found = {}
    for entry in entries:
        name, _, rest = entry.partition("==")
        found[normal(name), re.split(r"[ ;\\]", rest, maxsplit=1)[0]] = entry
    return found


def missing(wanted: list[str]) -> list[tuple[str, str]]:
    """Name and version of each package that has to be installed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        resolve = [*PIP, *CONSTRAINED, "--dry-run", "--report", str(report), *wanted]
        subprocess.run(resolve, check=True)
        items = json.loads(report.read_text())["install"]
    return [(normal(item["metadata"]["name"]), item["metadata"]["version"]) for item in items]


def install_by_hash(chosen: list[str]) -> None:
    """Install these entries of the lock and nothing else."""
    if not chosen:
        return
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(chosen) + "\n")
        file.flush()
        subprocess.run([*PIP, "--no-deps", "--require-hashes", "-r", file.name], check=True)


def main(wanted: list[str]) -> None:
    """Install what is wanted, by the lock as far as it reaches."""
    entries, chosen, strangers = locked(), [], []
    if wanted[:1] == ["--no-deps"]:
        install_by_hash([entry for (name, _), entry in entries.items() if name in wanted])
        return
    for name, version in missing(wanted):
        if (name, version) in entries:
            chosen.append(entries[name, version])
        elif not name.startswith(UNLOCKED):
            strangers.append(f"{name} {version}")
    if strangers:
        print(f"not in requirements.lock: {', '.join(strangers)}; pin them in constraints.txt")
        if os.environ.get("FR_LOCKED"):
            sys.exit(1)
    install_by_hash(chosen)
    subprocess.run([*PIP, *CONSTRAINED, *wanted], check=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
