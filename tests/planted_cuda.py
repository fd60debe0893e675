"""Plant faults in a copy of the CUDA kernels, one at a time, and see whether tests notice.

    python tests/planted_cuda.py            # all of them; builds the emulation once for each
    python tests/planted_cuda.py barrier    # those whose name holds "barrier"

Lanes and blocks run in a random order, as ``FR_EMU_SEED`` says. ``test_planted.py`` keeps the
faults in step with the sources.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import planted
from planted import Fault

CHOSEN = "every_tier or segments or batches or near_duplicates or hard_cases or 4096"

FAULTS: dict[str, Fault] = {
    "barrier: finish counts on before all have read": Fault(
        "cuda/finish.cu", "__syncthreads();  // all have read it before", "// before"
    ),
    "barrier: ranks of a block are read before they are there": Fault(
        "cuda/block.cuh",
        "if (lane == 0) warps[warp] = __popc(votes);\n  __syncthreads();",
        "if (lane == 0) warps[warp] = __popc(votes);",
    ),
    "fragment: the second half of the rows is taken for the first": Fault(
        "cuda/layout.hpp", "in_block / 8 + 2 * (in_step / 16)", "2 * (in_block / 8) + in_step / 16"
    ),
    "fragment: lanes of a query piece are one off": Fault(
        "cuda/scan_mma.cu", "shared + lane * 4;", "shared + (lane ^ 1) * 4;"
    ),
    "descriptor: pieces follow at the distance of groups": Fault(
        "cuda/scan_wgmma.cu", "octet_bytes, kPieceBytes)", "kPieceBytes, octet_bytes)"
    ),
    "tail: rows behind the last strip are forgotten": Fault(
        "cuda/finish.cu",
        "int64_t begin = segment.n_strips * kStripRows; begin < segment.n_rows;",
        "int64_t begin = segment.n_rows; begin < segment.n_rows;",
    ),
    "filter: the reach of the query is forgotten": Fault(
        "cuda/device.cuh", "__fmaf_rn(filter.x, x.error, value)", "__fmaf_rn(0, x.error, value)"
    ),
    "filter: a pair that only reaches the threshold is dropped": Fault(
        "cuda/device.cuh", "return !(value < filter.w);", "return value > filter.w;"
    ),
    "panel: rows have no error": Fault(
        "cuda/panel_filter.cuh", "__fmaf_ru(-kMagic, x.scale, error)", "-kMagic * x.scale"
    ),
    "panel: it has the reach of its last query": Fault(
        "cuda/panel_filter.cuh", "reach = fmaxf(reach, filter.x);", "reach = filter.x;"
    ),
    "panel: the lower row is judged as the upper one": Fault(
        "cuda/panel_filter.cuh",
        "y = row_filter(panel, rows.lower)",
        "y = row_filter(panel, rows.upper)",
    ),
    "panel: half a square counts twice": Fault(
        "cuda/panel_filter.cuh", "falls[q] = filter.z;", "falls[q] = 2 * filter.z;"
    ),
    "chunk: the codes of the next strip are those of this one": Fault(
        "cuda/scan_wgmma.cu", "load_chunk(layout, following, 0)", "load_chunk(layout, strip, 0)"
    ),
    "chunk: mma multiplies the next strip as this one": Fault(
        "cuda/scan_mma.cu", "load_chunk(layout, following, 0)", "load_chunk(layout, strip, 0)"
    ),
    "chunk: rows of the next strip keep the numbers of this one": Fault(
        "cuda/scan_wgmma.cu", "    rows = next_rows;\n", ""
    ),
    "chunk: the last step of a rest is left out": Fault(
        "cuda/scan_wgmma.cu", "multiply<kQueries, 2>", "multiply<kQueries, 1>"
    ),
    "stages: strips of the sample are scanned twice": Fault(
        "cuda/device.cuh",
        "(index + static_cast<int64_t>(__umul64hi(uint64_t{index} + 1, inverse)) + 1) * stride",
        "index * stride",
    ),
    "turn: the selection begins while the scan goes on": Fault(
        "cuda/select.cu", "  take_turn();\n", ""
    ),
    "launch: a kernel gets the shared memory of one launch": Fault(
        "cuda/scan.cuh", "static_cast<int>(args.shared_bytes)", "static_cast<int>(shared_bytes)"
    ),
    "selection: a warp does not count those before it": Fault(
        "cuda/block.cuh", "for (int w = 0; w < warp; ++w) through += warps[w];", ""
    ),
    "threshold: only k - 1 rows reach it": Fault(
        "cuda/select.cu", "nth_smallest(count, args.k - 1,", "nth_smallest(count, args.k / 2,"
    ),
    "overflow: survivors that did not fit are forgotten": Fault(
        "cuda/finish.cu", "args.batch.counts[query] > args.batch.limit;\n  Found", "false;\n  Found"
    ),
}


def build(work: Path) -> None:
    out = work / "build"
    if not out.exists():
        command = [sys.executable, "-m", "pybind11", "--cmakedir"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        options = ["-DCMAKE_BUILD_TYPE=Release", "-DFR_CUDA=EMU"]
        python = f"-DPython_EXECUTABLE={sys.executable}"
        pybind = f"-Dpybind11_DIR={done.stdout.strip()}"
        configure = ["cmake", "-S", work, "-B", out, python, pybind, *options]
        subprocess.run(configure, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", out, "-j2"], check=True, capture_output=True)
    (module,) = out.glob("_core.*.so")
    target = work / "python" / "fastretrieve" / module.name
    target.unlink(missing_ok=True)
    target.write_bytes(module.read_bytes())


def verdict(work: Path) -> str:
    """Which test noticed, or "-"."""
    tests = [work / "tests" / "test_cuda.py", "-k", CHOSEN]
    command = [sys.executable, "-c", planted.RUN, work / "python", planted.SKIPPED, *tests]
    env = os.environ | {"FR_EMU_SEED": "1"}
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, env=env)
    if done.returncode == 0:
        return "-"
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    return failed[0].split("::")[-1].split(" ")[0] if failed else "the emulation stopped it"


def main() -> int:
    chosen = [name for name in FAULTS if all(word in name for word in sys.argv[1:])]
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        planted.copy_checkout(work)
        build(work)
        assert verdict(work) == "-", "the tests fail without any fault"
        for name in chosen:
            path = work / "csrc" / FAULTS[name].path
            text = path.read_text()
            path.write_text(text.replace(FAULTS[name].right, FAULTS[name].wrong))
            build(work)
            found = verdict(work)
            path.write_text(text)
            missed += found == "-"
            print("|", name, "|", found, "|", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} faults were caught")
    return missed


if __name__ == "__main__":
    sys.exit(main())
