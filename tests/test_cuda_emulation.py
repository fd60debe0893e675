"""CUDA kernels run on the CPU as CUDA says, and a broken kernel does not pass.

The zoo (``cuda_on_cpu/zoo``) is built plain, with the address and undefined-behaviour sanitizers,
and with ThreadSanitizer; ``cuda_on_cpu/zoo_checks.py`` compares every kernel with NumPy, in a
process of its own. Then each fault that ``zoo.cuh`` lists is planted, and must be caught in the
mode that is named here.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

HERE = Path(__file__).parent
EMULATION = HERE / "cuda_on_cpu"
CSRC = HERE.parent / "csrc"
GXX = shutil.which("g++")
NVCC = shutil.which("nvcc")

pytestmark = pytest.mark.skipif(GXX is None, reason="no g++ in PATH to build the kernels with")

ASAN = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize=vptr", "-fno-omit-frame-pointer"]
FLAGS = {
    "plain": ["-O2"],
    "asan": ASAN,
    "tsan": ["-O1", "-fsanitize=thread"],
    "ucontext": ["-O0", "-DFR_EMU_UCONTEXT=1"],
}
RUNTIMES = {"asan": ["libasan.so", "libubsan.so", "libstdc++.so"], "tsan": ["libtsan.so"]}
SANITIZER_OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:exitcode=66:ignore_noninstrumented_modules=1",
}


def runtime(name: str) -> str:
    """The path of a sanitizer's library, which must be in the process before Python is."""
    found = subprocess.run([str(GXX), f"-print-file-name={name}"], capture_output=True, text=True)
    path = found.stdout.strip()
    if not Path(path).is_absolute():
        pytest.skip(f"g++ has no {name}")
    return path


class Zoo(NamedTuple):
    mode: str
    library: Path

    def run(self, *arguments: str, **settings: int) -> subprocess.CompletedProcess[str]:
        """Run ``zoo_checks.py``; ``seed=1`` sets ``FR_EMU_SEED``, and so on."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("FR_EMU_")}
        env |= SANITIZER_OPTIONS | {"OPENBLAS_NUM_THREADS": "1"}
        env |= {f"FR_EMU_{name.upper()}": str(value) for name, value in settings.items()}
        if self.mode in RUNTIMES:
            env["LD_PRELOAD"] = ":".join(map(runtime, RUNTIMES[self.mode]))
        command = [sys.executable, "zoo_checks.py", str(self.library), *arguments]
        done = subprocess.run(
            command, cwd=EMULATION, env=env, capture_output=True, text=True, timeout=300
        )
        if "unexpected memory mapping" in done.stderr:
            pytest.skip("ThreadSanitizer cannot start under this kernel's address randomisation")
        return done


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Zoo]]:
    """The zoo in a mode, built at its first use."""
    built: dict[str, Zoo] = {}
    folder = tmp_path_factory.mktemp("zoo")

    def build(mode: str) -> Zoo:
        if mode not in built:
            library = folder / f"libzoo_{mode}.so"
            warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
            includes = ["-DFR_EMU=1", f"-I{EMULATION}", f"-I{CSRC}", "-x", "c++"]
            options = ["-std=c++17", "-g1", "-fPIC", "-shared", "-pthread", *FLAGS[mode], *warnings]
            subprocess.run(
                [str(GXX), *options, *includes, EMULATION / "zoo" / "zoo.cu", "-o", library],
                check=True,
            )
            built[mode] = Zoo(mode, library)
        return built[mode]

    yield build
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("mode", "settings"),
    [
        ("plain", {}),
        *(("plain", {"seed": seed}) for seed in (1, 2, 3)),
        ("plain", {"threads": 3, "seed": 4}),
        ("asan", {"seed": 1}),
        ("tsan", {}),
        ("tsan", {"seed": 2, "threads": 2}),  # blocks of different threads race too
        ("ucontext", {"seed": 1}),
    ],
    ids=str,
)
def test_kernels_answer_as_numpy_does(
    zoo: Callable[[str], Zoo], mode: str, settings: dict[str, int]
) -> None:
    done = zoo(mode).run(**settings)
    assert done.returncode == 0, done.stdout + done.stderr


class Fault(NamedTuple):
    check: str
    mode: str
    caught: str  # what the output says
    threads: int = 1
    seed: int = 0


RACE = "ThreadSanitizer: data race"
WRONG = "AssertionError"
FAULTS = {
    "sum_reads_one_past_the_end": Fault("sum", "asan", "heap-buffer-overflow"),
    "sum_has_no_barrier": Fault("sum", "tsan", RACE),
    "sum_shuffles_in_a_branch": Fault(
        "sum", "plain", r"deadlock: .*__shfl_xor_sync: mask ffffffff, arrived 00000001"
    ),
    "sum_barrier_in_a_branch": Fault(
        "sum", "plain", r"sum_kernel block\(0,0,0\) .*ends while others wait at __syncthreads"
    ),
    "sum_adds_without_atomic": Fault("sum", "tsan", RACE, threads=2),
    "sum_mask_shifts_by_32": Fault("sum", "asan", "shift exponent 32 is too large"),
    "last_block_has_no_fence": Fault("maximum", "tsan", RACE, threads=2),
    "append_asks_before_it_takes": Fault("append", "plain", WRONG, seed=1),
    "histogram_is_not_cleared": Fault("histogram", "plain", WRONG),
    "histogram_writes_past_shared": Fault(
        "histogram", "plain", "write past the end of dynamic shared memory, 0 bytes after its 200"
    ),
    "warp_lane_outside_its_mask": Fault("warp", "plain", "not in its own mask 7fffffff"),
    "warp_masks_differ": Fault("warp", "plain", "with mask fffffff0 where other lanes"),
    "warp_reads_outside_mask": Fault(
        "warp", "plain", "lane 0 reads lane 20, which is not in mask 0000ffff"
    ),
    "warp_names_an_exited_lane": Fault("warp", "plain", "a lane that __syncwarp waits for has exi"),
    "warp_lane_never_comes": Fault(
        "warp", "plain", "deadlock: .*arrived ffffffef; barrier 0 .*: 1 of 32 threads arrived"
    ),
    "exchange_has_no_syncwarp": Fault("reverse", "tsan", RACE),
    "votes_use_different_barriers": Fault(
        "votes", "plain", "__syncthreads_count where others wait at __syncthreads_or"
    ),
    "mma_waits_too_little": Fault("mma", "plain", "ends with cp.async still pending"),
    "mma_has_no_barrier_after_wait": Fault("mma", "tsan", RACE),
    "mma_has_no_barrier_at_end": Fault("mma", "tsan", RACE),
    "mma_swaps_fragments": Fault("mma", "plain", WRONG),
    "mma_copies_misaligned": Fault("mma", "plain", "4 bytes past a multiple of 16"),
    "mma_never_waits": Fault("mma", "plain", "ends with cp.async still pending"),
    "wgmma_stores_unswizzled": Fault("wgmma", "plain", WRONG),
    "wgmma_halves_group_stride": Fault("wgmma", "plain", WRONG),
    "wgmma_has_no_wait": Fault("wgmma", "plain", "ends with wgmma still pending"),
    "wgmma_reads_sums_early": Fault("wgmma", "plain", WRONG),
    "wgmma_has_no_proxy_fence": Fault("wgmma", "plain", "no thread has done fence.proxy.async"),
    "wgmma_has_no_register_fence": Fault("wgmma", "plain", "without a wgmma.fence since the last"),
    "wgmma_has_no_barrier_at_end": Fault("wgmma", "tsan", RACE),
    "wgmma_warps_differ": Fault("wgmma", "plain", "warps of a warpgroup issue different instr"),
    "pair_waits_for_one_too_few": Fault("pair", "plain", WRONG),
    "pipe_consumer_does_not_wait": Fault("pipe", "tsan", RACE),
    "pipe_producer_does_not_wait": Fault("pipe", "tsan", RACE),
    "pipe_counts_one_warp_too_many": Fault("pipe", "plain", "for 160 threads in a block of 128"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_planted_fault_is_caught(zoo: Callable[[str], Zoo], name: str) -> None:
    fault = FAULTS[name]
    done = zoo(fault.mode).run(fault.check, "--plant", name, threads=fault.threads, seed=fault.seed)
    assert done.returncode != 0, f"{name} passed unnoticed"
    assert re.search(fault.caught, done.stderr), done.stderr


def test_every_fault_of_the_zoo_is_planted() -> None:
    listed = re.findall(r"^  X\((\w+)\)", (EMULATION / "zoo" / "zoo.cuh").read_text(), re.MULTILINE)
    assert set(listed) == {"none", *FAULTS}


@pytest.mark.skipif(NVCC is None, reason="no nvcc in PATH")
@pytest.mark.parametrize(
    ("architecture", "instructions"),
    [("sm_75", set()), ("sm_80", {"IMMA"}), ("sm_90a", {"IMMA", "IGMMA"}), ("sm_100", {"IMMA"})],
)
def test_the_same_sources_compile_with_nvcc(
    architecture: str, instructions: set[str], tmp_path: Path
) -> None:
    cubin = tmp_path / "zoo.cubin"
    options = ["-std=c++17", f"-arch={architecture}", "-cubin", f"-I{CSRC}"]
    done = subprocess.run(
        [str(NVCC), *options, EMULATION / "zoo" / "zoo.cu", "-o", cubin],
        capture_output=True,
        text=True,
    )
    # ptxas speaks up when it has to insert waits between wgmma and the use of its registers.
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr == ""
    if (nvdisasm := find_nvdisasm()) is None:
        pytest.skip("compiled; no nvdisasm to look at the machine code (nvidia-cuda-nvdisasm)")
    code = subprocess.run([nvdisasm, "-c", cubin], capture_output=True, text=True, check=True)
    assert set(re.findall(r"\bIG?MMA\b", code.stdout)) == instructions


def find_nvdisasm() -> str | None:
    beside_python = sorted(Path(sys.prefix).glob("lib/python*/site-packages/nvidia/*/bin/nvdisasm"))
    return shutil.which("nvdisasm") or next(map(str, beside_python), None)


def test_kernels_keep_the_conventions_that_let_both_compilers_read_them() -> None:
    """PTX, launches and dynamic shared memory have one home each, in ``csrc/cuda``."""
    homes = {
        r"\basm\b": ("async.cuh", "mma.cuh", "wgmma.cuh"),
        r"<<<": ("launch.hpp",),
        r"extern __shared__": ("launch.hpp",),
        r"#include <cuda_runtime": ("launch.hpp",),
    }
    for path in sorted(path for path in (CSRC / "cuda").rglob("*") if path.is_file()):
        for pattern, allowed in homes.items():
            found = re.search(pattern, re.sub(r"//.*", "", path.read_text()))
            assert not found or path.name in allowed, f"{path.name} contains {pattern}"
