"""``benchmarks/gpu.sh`` on a machine without a GPU: its processes are replaced by a stub.

The stub stands for python3, nvcc, nvidia-smi and the tools. It writes the results of a part, and
can hang in one. The report is the real one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "benchmarks" / "gpu.sh"
PATIENCE = 60  # seconds that nothing here takes
CASE = "1000000 x 128, batch 4096, k=10"

STUB = r"""#!/usr/bin/env bash
name=$(basename "$0")
case "$name $*" in
  *gpu/report.py*) exec "$REAL_PYTHON" "$@" ;;
  nvidia-smi*) echo "NVIDIA Stub, 580.1, 143771 MiB, 9.0"; exit ;;
  "nvcc --version") echo "Cuda compilation tools, release 13.0, V13.0.88"; exit ;;
  nvcc*) name=rates_built ;;
  *"-m pip install"*)
    name=build
    if [[ $* != *flashlib* ]]; then
      mkdir -p "$WORK/site/fastretrieve"
      head -c "${SITE_BYTES:-1000}" /dev/urandom >"$WORK/site/fastretrieve/_core.so"
    fi ;;
  *"-m pytest"*)
    name=tests
    echo "tests/test_a.py::test_one[with spaces] PASSED [ 10%]"
    echo "tests/test_a.py::test_two FAILED [ 20%]"
    [ "${HANG:-}" != tests ] || printf '%s ' "tests/test_a.py::test_three[of 4]" ;;
  *" names "*) echo faiss; exit ;;
  *--out*)
    while [ "$1" != --out ]; do shift; done
    [[ $name = ncu || $name = compute-sanitizer ]] || name=$(basename "$2" .json)
    echo "{\"times\": [{\"case\": \"$CASE\", \"who\": \"$name\", \"median_us\": 1000.0}]}" >"$2" ;;
esac
echo "$name" >>"$REACHED"
[ "$name" = "${HANG:-}" ] || exit 0
echo $$ >"$HUNG.part"
mv "$HUNG.part" "$HUNG"
exec sleep 120
"""


class Stubbed:
    """A folder in which the script runs with stubs."""

    def __init__(self, folder: Path) -> None:
        self.out, self.work = folder / "out", folder / "work"
        self.reached, self.hung = folder / "reached", folder / "hung"
        stubs = folder / "stubs"
        stubs.mkdir()
        for name in ("python3", "nvcc", "nvidia-smi"):
            self.add_stub(stubs / name)
        self.env = {"PATH": f"{stubs}:/usr/bin:/bin", "CUDA_HOME": str(folder / "cuda")}
        self.env |= {"REAL_PYTHON": sys.executable, "HOME": str(folder), "CASE": CASE}
        self.env |= {"OUT": str(self.out), "WORK": str(self.work)}
        self.env |= {"REACHED": str(self.reached), "HUNG": str(self.hung), "COMMIT": "c0ffee"}

    def add_stub(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(STUB)
        path.chmod(0o755)

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", str(SCRIPT), *arguments],
            env=self.env | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, **env: str) -> tuple[int, str]:
        process = self.start(*arguments, **env)
        said, _ = process.communicate(timeout=PATIENCE)
        return process.returncode, said

    def wait_until_hung(self) -> int:
        """The process that hangs in the part that was to."""
        end = time.monotonic() + PATIENCE
        while not self.hung.exists():
            assert time.monotonic() < end, "the part was never reached"
            time.sleep(0.01)
        return int(self.hung.read_text())

    def report(self, call: str = "first") -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / f"gpu-{call}.json").read_text())
        return found

    def parts_reached(self) -> list[str]:
        return self.reached.read_text().split() if self.reached.exists() else []


def is_running(process: int) -> bool:
    """Whether a process does anything; one that only waits for its parent to ask does not."""
    try:
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False


def end(process: int) -> None:
    """Kill what a killed script has left, and the ``timeout`` above it."""
    parent = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(process, 9)
    if parent > 1 and b"timeout" in Path(f"/proc/{parent}/cmdline").read_bytes():
        os.kill(parent, 9)
