"""``benchmarks/gpu.sh``: phases, limits and reports, with stubs in place of a GPU's tools; and its
measuring code on the CPU and the emulation, with tiny sizes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

import cuda_backends
import fastretrieve as fr
from cuda_backends import NEEDS_CUDA
from gpu_script import CASE, PATIENCE, ROOT, SCRIPT, Stubbed, end, is_running

sys.path.append(str(ROOT / "benchmarks" / "gpu"))

import report
import run
from sizes import CASES, FIRST, Case

MOST_FILES, MOST_BYTES = 8, 16 << 20
FIRST_PARTS = ["prove", "ours-mma", "ours-wgmma", "ceilings", "kernels-mma", "kernels-wgmma"]
FIRST_PARTS += ["peer-torch-bfloat16", "peer-flashlib-bfloat16"]
PHASES = ["build", "prove", "ours", "ceilings", "kernels", "peers"]


@pytest.fixture
def script(tmp_path: Path) -> Stubbed:
    return Stubbed(tmp_path)


def assert_can_be_carried_home(out: Path) -> None:
    """Few files, none large, in one folder, with plain names."""
    files = [path for path in out.rglob("*") if path.is_file()]
    assert 0 < len(files) <= MOST_FILES, files
    for path in files:
        assert path.parent == out
        assert path.stat().st_size <= MOST_BYTES
        assert re.fullmatch(r"[\w.-]+", path.name)


def test_the_script_is_bash() -> None:
    bash = shutil.which("bash")
    assert bash
    subprocess.run([bash, "-n", SCRIPT], check=True)


def test_the_limits_of_the_calls() -> None:
    limits = re.search(r"LIMIT_OF=\(\[first\]=(\d+) \[second\]=(\d+)", SCRIPT.read_text())
    assert limits
    assert int(limits[1]) <= 330
    assert int(limits[2]) <= 270


def test_the_first_call_and_those_on_its_build(script: Stubbed, tmp_path: Path) -> None:
    code, said = script.run()
    assert code == 0, said
    first = script.report()
    assert first["finished"]
    assert first["call"] == "first"
    assert first["phases"] == dict.fromkeys(PHASES, "ended")
    assert sorted(script.parts_reached()) == sorted(["build", "rates_built", *FIRST_PARTS])
    assert {line["who"] for line in first["times"]} == set(FIRST_PARTS)
    machine = first["machine"]
    assert machine["device"] == "NVIDIA Stub"
    assert (machine["driver"], machine["nvcc"]) == ("580.1", "13.0")
    assert machine["commit"] == "c0ffee"
    assert re.match(r"20\d\d-\d\d-\d\dT", machine["date"])
    assert machine["sources"] == machine["built_from"]
    assert_can_be_carried_home(script.out)

    # On a new machine, with the build of the first call and the tools beside nvcc.
    script.reached.unlink()
    site, work = script.out / "site.tar.gz", tmp_path / "other machine"
    for tool in ("ncu", "compute-sanitizer"):
        script.add_stub(tmp_path / "cuda" / "bin" / tool)
    code, said = script.run("second", SITE=str(site), WORK=str(work))
    assert code == 0, said
    second = script.report("second")
    assert second["finished"]
    assert "build" not in script.parts_reached()
    assert second["machine"]["built_from"] == machine["sources"]
    assert second["tests"] == {
        "passed": 1,
        "failed": 1,
        "failures": ["tests/test_a.py::test_two"],
    }
    assert "other-faiss" in script.parts_reached()
    code, said = script.run("third", SITE=str(site), WORK=str(work))
    assert code == 0, said
    assert {"ncu", "compute-sanitizer"} <= set(script.parts_reached())
    assert script.report("third")["finished"]
    assert_can_be_carried_home(script.out)  # of all calls together


@pytest.mark.parametrize(
    "part", ["build", "prove", "ours-wgmma", "ceilings", "kernels-mma", "peer-torch-bfloat16"]
)
def test_a_kill_leaves_the_report(part: str, script: Stubbed) -> None:
    """A kill in every phase: nothing can be written after it."""
    process = script.start(HANG=part)
    left_behind = script.wait_until_hung()
    process.kill()
    end(left_behind)
    process.communicate(timeout=PATIENCE)
    found = script.report()
    assert not found["finished"]
    assert found["machine"]["device"] == "NVIDIA Stub"
    ours = "build" if part == "build" else next(p for p in PHASES if part.startswith(p[:4]))
    before, after = PHASES[: PHASES.index(ours)], PHASES[PHASES.index(ours) + 1 :]
    assert found["phases"] == {
        **dict.fromkeys(before, "ended"),
        ours: "unfinished",
        **dict.fromkeys(after, "not reached"),
    }
    complete = FIRST_PARTS[: FIRST_PARTS.index(part)] if part in FIRST_PARTS else []
    assert {line["who"] for line in found["times"]} == set(complete)
    table = (script.out / "table.txt").read_text()
    assert f"{ours}: unfinished\n" in table
    assert all(f"{phase}: not reached\n" in table for phase in after)
    assert_can_be_carried_home(script.out)
    if part != "build":
        assert tarfile.is_tarfile(script.out / "site.tar.gz")


def test_a_signal_ends_the_part_too(script: Stubbed) -> None:
    process = script.start("tests", HANG="tests")
    hanging = script.wait_until_hung()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 143
    assert not is_running(hanging)
    found = script.report("chosen")
    assert {"part": "tests", "verdict": "stopped by a signal", "seconds": 0} in found["parts"]
    assert found["tests"]["passed"] == 1  # those before it
    assert found["tests"]["unfinished"] == "tests/test_a.py::test_three[of 4]"


def test_the_limit_of_a_call(script: Stubbed) -> None:
    """A part that hangs is killed, those behind it are named, and the call ends in time."""
    begin = time.monotonic()
    code, said = script.run(HANG="prove", LIMIT="9", LEAST="1")
    assert code == 0, said
    assert time.monotonic() - begin < PATIENCE / 2  # the part hangs for twice as long
    found = script.report()
    verdicts = {part["part"]: part["verdict"] for part in found["parts"]}
    assert found["finished"]
    assert verdicts["build"] == "done"
    assert verdicts["prove"] in ("killed at its limit", "skipped: no time was left")
    assert verdicts["peer-torch-bfloat16"] == "skipped: no time was left"
    assert "peer-torch-bfloat16: skipped: no time was left" in said


def test_without_a_build_the_rest_is_measured(script: Stubbed) -> None:
    bad = script.work.parent / "bad.tar.gz"
    bad.write_bytes(b"no archive")
    code, said = script.run(SITE=str(bad))
    assert code == 1
    assert "ours: skipped: there is no build" in said
    whos = {line["who"] for line in script.report()["times"]}
    assert whos == {"ceilings", "peer-torch-bfloat16", "peer-flashlib-bfloat16"}


def test_tools_that_are_missing_are_named(script: Stubbed) -> None:
    if any(shutil.which(tool, path="/usr/bin:/bin") for tool in ("ncu", "compute-sanitizer")):
        pytest.skip("this machine has the tools")
    code, said = script.run("sanitize", "profile")
    assert code == 0, said
    assert "compute-sanitizer: skipped: compute-sanitizer is not installed" in said
    assert "ncu: skipped: ncu is not installed" in said


def test_a_site_that_is_too_large_stays(script: Stubbed) -> None:
    code, said = script.run("build", SITE_BYTES="300000", MOST_BYTES="200000")
    assert code == 0, said
    assert "site.tar.gz: skipped: it exceeds 200000 bytes" in said
    assert sorted(path.name for path in script.out.iterdir()) == [
        "gpu-chosen.json",
        "logs.tar.gz",
        "table.txt",
    ]


def test_logs_keep_their_ends(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.log").write_bytes(os.urandom(1 << 20) + b"the end")
    report.pack_logs(tmp_path, tmp_path / "logs.tar.gz")
    assert report.MOST_LOGS * report.MOST_LOG_BYTES < MOST_BYTES
    assert (tmp_path / "logs.tar.gz").stat().st_size < 3.1 * report.MOST_LOG_BYTES
    with tarfile.open(tmp_path / "logs.tar.gz") as archive:
        for name in archive.getnames():
            file = archive.extractfile(name)
            assert file is not None
            assert file.read().endswith(b"the end")


def test_a_phase_that_is_none_is_named(script: Stubbed) -> None:
    code, said = script.run("bulid")
    assert code == 2
    assert "no phase 'bulid': build prove ours" in said


def test_a_file_that_broke_off_loses_nothing_of_the_others(tmp_path: Path) -> None:
    line = {"case": FIRST[0].name, "who": "fastretrieve mma", "median_us": 1000.0}
    (tmp_path / "a.json").write_text(json.dumps({"times": [line], "errors": []}))
    (tmp_path / "b.json").write_text('{"times": [')
    (tmp_path / "c.json").write_text(json.dumps({"ceilings": {"read_bytes_per_s": 2.8e12}}))
    found = report.gathered(tmp_path)
    assert found["times"][0]["share_of_floor"] == pytest.approx(0.5)  # 1.4 GB at 2.8 TB/s
    assert [error["part"] for error in found["errors"]] == ["b.json"]
    assert "   50.0% of floor" in "\n".join(report.table(found))


def test_the_five_cases_of_the_first_call() -> None:
    assert {(c.n_rows, c.batch, c.k, c.graph) for c in FIRST} == {
        (10_000_000, 1, 10, False),
        (10_000_000, 32, 10, False),
        (1_000_000, 1, 10, True),
        (1_000_000, 4096, 10, False),
        (1_000_000, 4096, 100, False),
    }
    assert CASE in {case.name for case in FIRST}
    assert len({case.name for case in CASES["all"]}) == len(CASES["all"])


def measured(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """What a part that needs no fastretrieve writes, on the CPU."""
    out = tmp_path / "found" / "part.json"
    out.parent.mkdir()
    both = ["--out", str(out), "--report", str(tmp_path / "report.json")]
    assert run.main([*arguments, *both, "--dry-run"]) == 0
    found: dict[str, Any] = json.loads(out.read_text())
    whole = json.loads((tmp_path / "report.json").read_text())
    assert whole["ceilings"] == found.get("ceilings", {})
    assert len(whole["times"]) == len(found.get("times", []))
    return found


def test_ceilings_are_measured_on_random_data(tmp_path: Path) -> None:
    found = measured(tmp_path, "ceilings")["ceilings"]
    assert set(found) == {"read_bytes_per_s", "copy_bytes_per_s", "int8_torch_tops"}
    assert all(value > 0 for value in found.values())


def test_torch_finds_the_exact_answers(tmp_path: Path) -> None:
    (line,) = measured(tmp_path, "peer", "--peer", "torch float32")["times"]
    assert line["recall"] == 1
    assert line["median_us"] > 0


def test_a_cpu_is_not_measured_for_a_gpu(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(SystemExit, match="torch sees no GPU"):
        run.main(["ceilings", "--out", str(tmp_path / "part.json")])
    assert not list(tmp_path.iterdir())


class OnCpu:
    """A run whose searches are those of the CPU."""

    def __init__(self) -> None:
        from timing import Timer

        self.options = Namespace(tier="mma")
        self.on_gpu, self.device, self.timer = False, "cpu", Timer(on_gpu=False)
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def record(self, kind: str, **line: Any) -> None:
        self.lines.append((kind, line))


def on_cpu(monkeypatch: pytest.MonkeyPatch, case: Case) -> Any:
    """The module that searches, with a CPU index in place of one on a GPU."""
    import searches
    from data import rows_of

    index = fr.Index(case.dim, metric=case.metric)
    index.add(rows_of(case.n_rows, case.dim, "cpu"))
    monkeypatch.setattr(searches, "index_for", lambda run, case: index)
    return searches


SMALL = Case(3000, 32, 100, 5)


def test_right_answers_get_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    searches, here = on_cpu(monkeypatch, SMALL), OnCpu()
    searches.ours(here, SMALL)
    ((kind, line),) = here.lines
    assert (kind, line["case"], line["who"]) == ("times", SMALL.name, "fastretrieve mma")
    assert line["p10_us"] <= line["median_us"] <= line["p90_us"]


@pytest.mark.parametrize("query", [0, 99], ids="query {}".format)
@pytest.mark.parametrize("from_call", [1, 2], ids=["all calls", "later calls"])
def test_wrong_answers_get_none(
    query: int, from_call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One wrong id, in the first or the last query, in the checked call or in a timed one."""
    from fastretrieve._queries.plans import SearchPlan

    searches, calls = on_cpu(monkeypatch, SMALL), []
    search = SearchPlan.__call__

    def broken(plan: SearchPlan, queries: Any) -> fr.Hits:
        hits = search(plan, queries)
        calls.append(hits)
        if len(calls) > from_call:
            plan.ids[query, -1] += 1
        return hits

    monkeypatch.setattr(SearchPlan, "__call__", broken)
    with pytest.raises(AssertionError, match="1 of 320 ids are wrong"):
        searches.ours(OnCpu(), SMALL)


def test_a_call_that_writes_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay that does no work would find the answers of the call before it."""
    from fastretrieve._queries.plans import SearchPlan

    searches, calls = on_cpu(monkeypatch, SMALL), []
    search = SearchPlan.__call__

    def lazy(plan: SearchPlan, queries: Any) -> Any:
        calls.append(queries)
        return search(plan, queries) if len(calls) == 1 else None

    monkeypatch.setattr(SearchPlan, "__call__", lazy)
    with pytest.raises(AssertionError, match="320 of 320 ids are wrong before the timing"):
        searches.ours(OnCpu(), SMALL)


def test_times_by_kernel() -> None:
    import searches

    ours = "void fastretrieve::cuda::scan_mma_kernel<8>(fastretrieve::cuda::ScanArgs)"
    same = "void (anonymous namespace)::scan_mma_kernel<(int)8>(ScanArgs)"
    times = [(ours, 30.0, 5), (same, 30.0, 5), ("Memset (Device)", 20.0, 5), ("launch", 0.0, 9)]
    table = searches.by_kernel(times, n_searches=5)
    assert [(line["kernel"], line["us"], line["launches"]) for line in table] == [
        ("scan_mma_kernel<8>", 12.0, 2.0),
        ("Memset (Device)", 4.0, 1.0),
    ]
    assert table[0]["share"] == 0.75
    many = searches.by_kernel([(f"kernel{i}(int)", 1.0, 1) for i in range(50)], n_searches=1)
    assert len(many) == searches.MOST_KERNELS + 1
    assert sum(line["us"] for line in many) == 50


@NEEDS_CUDA
def test_a_dry_run_goes_through_every_phase(tmp_path: Path) -> None:
    """Not those that need tools of a GPU machine: nvcc's build, the sanitizers, the profiler."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHON": sys.executable}
    env |= {"OUT": str(tmp_path / "out"), "WORK": str(tmp_path / "work"), "DRY": "1"}
    env |= {"SITE": str(Path(fr.__file__).parent.parent), "FR_CUDA": "EMU"}
    chosen = ["prove", "ours", "ceilings", "kernels", "check", "peers"]
    command = ["bash", str(SCRIPT), *chosen]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "out" / "gpu-chosen.json").read_text())
    assert found["finished"]
    tiers = set(cuda_backends.PRESENT)
    assert {(trial["tier"], trial["verdict"]) for trial in found["proofs"]} == {
        (tier, "equal") for tier in tiers
    }
    assert {line["tier"] for line in found["checks"]} == tiers
    assert all(line["equal"] for line in found["checks"])
    ours = [line for line in found["times"] if line["who"].startswith("fastretrieve")]
    assert {line["who"] for line in ours} == {"fastretrieve mma", "fastretrieve wgmma"}
    assert len(ours) == 4
    assert all(line["share_of_floor"] > 0 for line in ours)
    assert {line["tier"] for line in found["kernels"]} == {"mma", "wgmma"}
    (torch_line,) = (line for line in found["times"] if line["who"] == "torch bfloat16")
    assert torch_line["recall"] > 0.9
    absent = {error["part"].split(":")[0] for error in found["errors"]}
    assert absent <= {"flashlib bfloat16"}, found["errors"]
    assert "checks equal the CPU" in (tmp_path / "out" / "table.txt").read_text()
    assert_can_be_carried_home(tmp_path / "out")
