"""What nvcc makes of the kernels: no spills, no local memory, tensor cores that need not wait, and
kernels that wait for the one before them.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from test_cuda_emulation import CSRC, NVCC, find_nvdisasm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NVCC is None, reason="no nvcc in PATH"),
]


class Wanted(NamedTuple):
    source: str
    architecture: str
    instructions: set[str]


SCANS = [  # sm_75 spills four bytes, and has no tier that needs tensor cores
    Wanted("scan_mma.cu", "sm_80", {"IMMA"}),
    Wanted("scan_mma.cu", "sm_120", {"IMMA"}),
    Wanted("scan_wgmma.cu", "sm_90a", {"IGMMA"}),
]
OTHERS = ["encode.cu", "select.cu", "finish.cu", "transform.cu"]
# finish sorts and selects in one kernel; a few bytes there cost nothing.
ALLOWED_STACK = {"finish.cu": 16}


def compiled(source: str, architecture: str, cubin: Path) -> str:
    """What ptxas says of each kernel."""
    number = architecture.removeprefix("sm_")
    done = subprocess.run(
        [
            str(NVCC),
            "-std=c++17",
            f"-gencode=arch=compute_{number},code={architecture}",
            "-cubin",
            "--fmad=false",
            "-Xptxas=-v",
            f"-I{CSRC}",
            CSRC / "cuda" / source,
            "-o",
            cubin,
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    # ptxas says so when it has to put waits between wgmma and the use of its registers.
    assert not re.search("warning|serialized", done.stderr), done.stderr
    return done.stderr


def stack_and_spills(report: str) -> list[tuple[int, int, int]]:
    found = re.findall(
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report
    )
    assert found, report
    return [(int(a), int(b), int(c)) for a, b, c in found]


def kernels(code: str) -> dict[str, str]:
    """The machine code of each kernel."""
    parts = re.split(r"^\.text\.(\S+):$", code, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("wanted", SCANS, ids=lambda w: f"{w.source} {w.architecture}")
def test_scans_keep_to_registers_and_use_tensor_cores(wanted: Wanted, tmp_path: Path) -> None:
    cubin = tmp_path / "scan.cubin"
    report = compiled(wanted.source, wanted.architecture, cubin)
    assert set(stack_and_spills(report)) == {(0, 0, 0)}, report
    # All the shared memory of a block is asked for at launch: scan_grid counts on it.
    assert "bytes smem" not in report, report
    if (nvdisasm := find_nvdisasm()) is None:
        pytest.skip("compiled; no nvdisasm to look at the machine code (nvidia-cuda-nvdisasm)")
    code = subprocess.run([nvdisasm, "-c", cubin], capture_output=True, text=True, check=True)
    assert set(re.findall(r"\bIG?MMA\b", code.stdout)) == wanted.instructions
    assert not re.search(r"\b(LDL|STL)\b", code.stdout)
    assert re.search(r"\bLDG\.E\S*128\S*CONSTANT", code.stdout), "codes come 16 bytes at a time"
    # The filter converts no product: its tiers sum in floats.
    for name, kernel in kernels(code.stdout).items():
        assert "dp4a" in name or not re.search(r"\bI2F(P\.F32\.S32)? ", kernel), name


@pytest.mark.parametrize("source", sorted({w.source for w in SCANS}) + OTHERS[:3])
def test_kernels_that_may_begin_early_wait_before_they_read(source: str, tmp_path: Path) -> None:
    if (nvdisasm := find_nvdisasm()) is None:
        pytest.skip("no nvdisasm to look at the machine code (nvidia-cuda-nvdisasm)")
    cubin = tmp_path / "turn.cubin"
    compiled(source, "sm_90a", cubin)
    done = subprocess.run([nvdisasm, "-c", cubin], capture_output=True, text=True, check=True)
    for name, code in kernels(done.stdout).items():
        if "encode_rows" in name:  # waited for by its caller
            continue
        memory = re.search(r"\b(LDG?|STG?|ATOMG?|RED)\.", code)
        assert memory, name
        before = code[: memory.start()]
        assert "ACQBULK" in before, f"{name} does not wait for the kernel before it"
        last = "finish" in name  # what follows it is not ours
        assert ("PREEXIT" in code) != last, name


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("source", OTHERS)
def test_other_kernels_need_little_local_memory(
    source: str, architecture: str, tmp_path: Path
) -> None:
    report = compiled(source, architecture, tmp_path / "other.cubin")
    assert max(max(row) for row in stack_and_spills(report)) <= ALLOWED_STACK.get(source, 0)
