"""Take files out of a Debian package, without root and without installing it.

Machines that reach package registries only often reach Debian's. ``apt-get download`` uses the
lists of the system, or lists of its own where the system has none (as in slim images).
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

SECONDS = 180.0  # for one step
_PROGRAMS = ("apt-get", "dpkg-deb")


class NoPackage(RuntimeError):
    """A package cannot be had here; the message says why."""


def unpacked(package: str, into: Path) -> Path:
    """Download a package into this folder and unpack it there; returns the root of its files."""
    if missing := [name for name in _PROGRAMS if shutil.which(name) is None]:
        raise NoPackage(f"the Debian package {package} needs {missing[0]}, which is not here")
    into.mkdir(parents=True, exist_ok=True)
    own = (into / "lists").resolve()
    (own / "partial").mkdir(parents=True, exist_ok=True)
    options = [
        *("-o", f"Dir::State::lists={own}"),
        *("-o", f"Dir::Cache={(into / 'cache').resolve()}"),
        *("-o", "APT::Sandbox::User="),  # may not write into a folder of this user
    ]
    try:
        _run(["apt-get", "-q", "download", package], into)
    except NoPackage:
        _run(["apt-get", "-q", *options, "update"], into)
        _run(["apt-get", "-q", *options, "download", package], into)
    found = next(into.glob(f"{package}_*.deb"), None)
    if found is None:
        raise NoPackage(f"apt-get downloaded no {package}_*.deb")
    root = into / "root"
    _run(["dpkg-deb", "-x", found.name, root.name], into)
    return root


def files(package: str, paths: Sequence[Path]) -> dict[str, bytes]:
    """The content of these files of a package (absolute paths), by name."""
    with tempfile.TemporaryDirectory(prefix="fastretrieve-") as folder:
        root = unpacked(package, Path(folder))
        found = {}
        for path in paths:
            inside = root / path.relative_to("/")
            if inside.is_symlink() or not inside.is_file():
                raise NoPackage(f"the Debian package {package} has no file {path}")
            found[path.name] = inside.read_bytes()
        return found


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoPackage(f"{' '.join(command[:1])}: {error}") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        reason = (lines or done.stderr.splitlines() or [f"exit status {done.returncode}"])[-1]
        raise NoPackage(f"{command[0]}: {reason}")
