"""``benchmarks/gpu.sh`` and its Python parts can start: on the emulation, with tiny sizes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cuda_backends

ROOT = Path(__file__).resolve().parent.parent


def test_the_script_is_bash() -> None:
    bash = shutil.which("bash")
    assert bash
    subprocess.run([bash, "-n", ROOT / "benchmarks" / "gpu.sh"], check=True)


@pytest.mark.skipif(
    bool(cuda_backends.reason()), reason=f"no CUDA backend: {cuda_backends.reason()}"
)
def test_a_dry_run_checks_and_measures_every_tier(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    run = [sys.executable, ROOT / "benchmarks" / "gpu" / "run.py", "--dry-run", "--out", out]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(run, capture_output=True, text=True, env=env, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert found["tiers"] == cuda_backends.tiers()
    assert all(line["equal"] for line in found["checks"])
    ours = [line for line in found["times"] if line["who"].startswith("fastretrieve")]
    assert len(ours) == 2 * len(found["tiers"])
    peers = {error["part"].split(":")[0] for error in found["errors"]}
    assert peers <= {"faiss", "cuvs", "flashlib", "keops"}, found["errors"]
