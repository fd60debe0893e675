"""The kernels for ARM, compiled by a cross compiler and run by qemu: each must answer as the scalar
one, and a processor that lacks an instruction must never meet it.

Needs Debian's g++-aarch64-linux-gnu and qemu-user-static; skipped where they are missing, unless
FASTRETRIEVE_REQUIRE_ARM is set, as CI does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kernel_cases

COMPILER, QEMU = "aarch64-linux-gnu-g++", "qemu-aarch64-static"
SOURCE = Path(__file__).parent / "kernels"
MISSING = [name for name in (COMPILER, QEMU) if shutil.which(name) is None]
PROCESSORS = {"max": ["i8mm", "neon"], "neoverse-n1": ["neon"], "cortex-a72": []}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING) and not os.environ.get("FASTRETRIEVE_REQUIRE_ARM"),
        reason=f"no {' and no '.join(MISSING)}: apt install g++-aarch64-linux-gnu qemu-user-static",
    ),
]


@pytest.fixture(scope="module")
def compare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that compares, for ARM, linked statically so that it needs no libraries there."""
    out = tmp_path_factory.mktemp("kernels")
    cmake = shutil.which("cmake", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert cmake, "no cmake"
    settings = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_SYSTEM_NAME": "Linux",
        "CMAKE_SYSTEM_PROCESSOR": "aarch64",
        "CMAKE_CXX_COMPILER": COMPILER,
        "CMAKE_EXE_LINKER_FLAGS": "-static",
    }
    options = [f"-D{name}={value}" for name, value in settings.items()]
    for command in ([cmake, "-S", SOURCE, "-B", out, *options], [cmake, "--build", out, "-j2"]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return out / "compare"


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cases") / "cases"
    kernel_cases.write(path)
    return path


@pytest.mark.parametrize("processor", PROCESSORS)
def test_kernels_answer_as_the_scalar_ones(processor: str, compare: Path, cases: Path) -> None:
    tables = PROCESSORS[processor]
    command = [QEMU, "-cpu", processor, compare, cases, *tables]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    n = 14 * len(tables)
    assert done.stdout.startswith(f"{n} of {n} kernels compared")
