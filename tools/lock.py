"""Write ``requirements.lock``: the pins of ``constraints.txt`` with the hashes of their files.

    python tools/lock.py

It asks the package index that pip is configured for, and takes every file of a pinned version, so
that one lock serves all platforms. Run it after each change of ``constraints.txt``. ``install.py``
beside it installs by the lock.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# torch comes from an index of the user's choice: its CPU and CUDA builds differ by design.
UNLOCKED = {"torch"}
HEAD = """\
# Made by tools/lock.py from constraints.txt: every pin, with the SHA-256 of each of its files.
# tools/install.py installs by it and refuses a file with another hash.
"""


def index_url() -> str:
    """The index of pip's configuration."""
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    configured = subprocess.run(command, capture_output=True, text=True, check=False)
    return configured.stdout.strip().rstrip("/") or "https://pypi.org/simple"


def file_hashes(index: str, name: str, version: str) -> list[str]:
    """The SHA-256 of every wheel and source distribution of one version."""
    request = urllib.request.Request(
        f"{index}/{name}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        files = json.load(answer)["files"]
    wanted = {
        file["hashes"]["sha256"] for file in files if version_of(file["filename"], name) == version
    }
    if not wanted:
        raise SystemExit(f"{index} has no file of {name} {version}; mend its pin")
    return sorted(wanted)


def version_of(filename: str, name: str) -> str:
    """The version in the name of a distribution; "" where it is none that pip installs."""
    if filename.endswith(".whl"):
        return filename.split("-")[1]
    return filename[len(name) + 1 :].removesuffix(".tar.gz") if ".tar.gz" in filename else ""


def main() -> None:
    """Write the lock."""
    index, lines = index_url(), [HEAD]
    for pin in (ROOT / "constraints.txt").read_text().splitlines():
        if not pin or pin.startswith("#"):
            continue
        name, _, rest = pin.partition("==")
        if name in UNLOCKED:
            continue
        hashes = file_hashes(index, name, rest.partition(";")[0].strip())
        lines.append(" \\\n    ".join([pin, *(f"--hash=sha256:{each}" for each in hashes)]) + "\n")
        print(f"{pin}: {len(hashes)} files")
    (ROOT / "requirements.lock").write_text("".join(lines))


if __name__ == "__main__":
    main()
