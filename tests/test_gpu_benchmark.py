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
import fastretrieve
from cuda_backends import NEEDS_CUDA

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "benchmarks" / "gpu"))

import report  # noqa: E402
from sizes import CASES  # noqa: E402


def test_the_script_is_bash() -> None:
    bash = shutil.which("bash")
    assert bash
    subprocess.run([bash, "-n", ROOT / "benchmarks" / "gpu.sh"], check=True)


@NEEDS_CUDA
def test_a_dry_run_goes_through_every_phase(tmp_path: Path) -> None:
    """Not those that need tools of a GPU machine: nvcc's build, the sanitizers, the profiler."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHON": sys.executable}
    env |= {"OUT": str(tmp_path / "out"), "WORK": str(tmp_path / "work"), "DRY": "1"}
    env |= {"SITE": str(Path(fastretrieve.__file__).parent.parent), "FR_CUDA": "EMU"}
    command = ["bash", str(ROOT / "benchmarks" / "gpu.sh"), "check", "ceilings", "ours", "peers"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "out" / "gpu.json").read_text())
    tiers = set(cuda_backends.PRESENT)
    assert {(trial["tier"], trial["verdict"]) for trial in found["proofs"]} == {
        (tier, "equal") for tier in tiers
    }
    assert {line["tier"] for line in found["checks"]} == tiers
    assert all(line["equal"] for line in found["checks"])
    ours = [line for line in found["times"] if line["who"].startswith("fastretrieve")]
    assert {line["who"] for line in ours} == {f"fastretrieve {tier}" for tier in tiers}
    assert len(ours) == 2 * len(tiers)
    assert all(line["share_of_floor"] > 0 for line in ours)
    (torch_line,) = (line for line in found["times"] if line["who"] == "torch float32")
    assert torch_line["recall"] == 1
    absent = {error["part"].split(":")[0].split(" ")[0] for error in found["errors"]}
    assert absent <= {"faiss", "cuvs", "flashlib", "keops"}, found["errors"]
    assert "checks equal the CPU" in (tmp_path / "out" / "table.txt").read_text()
    assert (tmp_path / "out" / "logs.tar.gz").exists()


def test_a_phase_that_is_none_is_named(tmp_path: Path) -> None:
    command = ["bash", str(ROOT / "benchmarks" / "gpu.sh"), "bulid"]
    env = os.environ | {"OUT": str(tmp_path), "WORK": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 2
    assert "no phase 'bulid': build check tests" in done.stdout


def test_a_file_that_broke_off_loses_nothing_of_the_others(tmp_path: Path) -> None:
    line = {"case": CASES[0].name, "who": "fastretrieve mma", "median_us": 1000.0}
    (tmp_path / "a.json").write_text(json.dumps({"times": [line], "errors": []}))
    (tmp_path / "b.json").write_text('{"times": [')
    (tmp_path / "c.json").write_text(json.dumps({"ceilings": {"read_bytes_per_s": 2.8e12}}))
    found = report.gathered(tmp_path)
    assert found["times"][0]["share_of_floor"] == pytest.approx(0.5)  # 1.4 GB at 2.8 TB/s
    assert [error["part"] for error in found["errors"]] == ["b.json"]
    assert "   50.0% of floor" in "\n".join(report.table(found))
