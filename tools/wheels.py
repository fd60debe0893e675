"""Build wheels for any Linux with glibc 2.17 or newer: ``tools/wheels.py OUT [ARCHITECTURE ...]``.

zig's C++ compiler (``pip install ziglang auditwheel wheel``) compiles for an old glibc and for
other processors, and links its own C++ library into the module. The wheels are for the Python that
runs this, without CUDA. auditwheel says which systems a wheel suits.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parent.parent
ARCHITECTURES = ("x86_64", "aarch64")
GLIBC = "2.17"


def compiler(architecture: str) -> Path:
    """A program that calls zig for this architecture; CMake wants one without arguments."""
    path = ROOT / "build" / f"zig-{architecture}"
    path.parent.mkdir(exist_ok=True)
    target = f"{architecture}-linux-gnu.{GLIBC}"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ziglang c++ -target {target} "$@"\n')
    path.chmod(0o755)
    return path


def build(architecture: str, out: Path) -> Path:
    """A wheel, tagged with the oldest systems that it suits."""
    suffix = f".{sysconfig.get_config_var('SOABI').rsplit('-', 3)[0]}-{architecture}-linux-gnu.so"
    definitions = {
        "CMAKE_CXX_COMPILER": compiler(architecture),
        "CMAKE_SYSTEM_NAME": "Linux",
        "CMAKE_SYSTEM_PROCESSOR": architecture,
        "PYTHON_MODULE_EXTENSION": suffix,
        "FR_WERROR": "ON",
    }
    made = out / architecture
    shutil.rmtree(made, ignore_errors=True)  # of a run that failed
    command = [sys.executable, "-m", "pip", "wheel", ROOT, "--no-deps", "--no-build-isolation"]
    command += ["--wheel-dir", made, f"--config-settings=build-dir=build/wheel-{architecture}"]
    settings = " ".join(f"-D{name}={value}" for name, value in definitions.items())
    run(command, FR_CUDA="OFF", CMAKE_ARGS=settings)
    (wheel,) = made.glob("*.whl")
    wheel = tagged(wheel, f"linux_{architecture}")  # not the platform of this Python
    wheel = tagged(wheel, suits(wheel))
    final = wheel.rename(out / wheel.name)
    made.rmdir()
    return final


def tagged(wheel: Path, platform: str) -> Path:
    """The same wheel for another platform."""
    run([sys.executable, "-m", "wheel", "tags", "--remove", f"--platform-tag={platform}", wheel])
    (found,) = wheel.parent.glob("*.whl")
    return found


def suits(wheel: Path) -> str:
    """The tag that auditwheel finds for a wheel."""
    said = run([sys.executable, "-m", "auditwheel", "show", wheel])
    tag = re.search(r'platform tag:\s+"(\w+)"', said.replace("\n", " "))
    if tag is None or not tag[1].startswith("manylinux"):
        raise SystemExit(f"auditwheel refuses {wheel.name}:\n{said}")
    return tag[1]


def run(command: list[object], **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{command[2:4]} failed:\n{done.stdout}")
    return done.stdout


if __name__ == "__main__":
    out = Path(sys.argv[1]).absolute()
    for architecture in sys.argv[2:] or ARCHITECTURES:
        print(f"building for {architecture}: some minutes", flush=True)
        made = build(architecture, out)
        print(f"{made.name}: {made.stat().st_size / 1e6:.1f} MB")
