"""Check every tier against the CPU, then measure ceilings, tiers and peers; one JSON, one table.

python benchmarks/gpu/run.py --out out/gpu.json      # see benchmarks/gpu.sh, which calls this
python benchmarks/gpu/run.py --dry-run --out x.json  # in an emulated build: all parts, tiny
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
import traceback
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from peers import PEERS
from timing import Timer, captured, copy_bandwidth, read_bandwidth

import fastretrieve as fr
from fastretrieve import _core, runtime

TIERS = ("dp4a", "mma", "wgmma")


class Case(NamedTuple):
    """A size of issue and README: what is searched, and what decides its speed."""

    n_rows: int
    dim: int
    batch: int
    k: int
    metric: str = "ip"
    cold: bool = False  # with a cold L2
    graph: bool = False  # replayed from a CUDA graph

    @property
    def name(self) -> str:
        extra = ", cold" * self.cold + ", graph" * self.graph
        return f"{self.n_rows} x {self.dim}, batch {self.batch}, k={self.k}{extra}"

    @property
    def scan_bytes(self) -> int:
        return self.n_rows * (-(-self.dim // 32) * 32 + 12)

    def floor_us(self, ceilings: dict[str, float]) -> float:
        """What reading the codes once, or multiplying them, takes at the measured ceilings."""
        operations = 2.0 * self.batch * self.n_rows * self.dim
        rate = max(ceilings.get("int8_wgmma_tops", 0), ceilings.get("int8_mma_tops", 0), 1e-3)
        return max(self.scan_bytes / ceilings["read_bytes_per_s"] * 1e6, operations / rate * 1e-6)


CASES = [
    *(Case(10_000_000, 128, batch, 10, cold=True) for batch in (1, 8, 32)),
    Case(1_000_000, 128, 1, 10, cold=True, graph=True),
    Case(100_000, 128, 1, 10, cold=True, graph=True),
    Case(1_000_000, 128, 4096, 10),
    Case(1_000_000, 128, 4096, 100),
    Case(1_000_000, 768, 1024, 10),
]
DRY_CASES = [Case(5000, 32, 1, 5), Case(4000, 64, 9, 3, "l2", cold=True, graph=True)]
CHECKS = [
    Case(200_000, 128, 40, 10, metric) for metric in ("ip", "cosine", "l2", "sqeuclidean")
] + [Case(30_000, 769, 300, 100), Case(50_000, 96, 1, 3000, "l2")]
SMALL_CHECKS = [Case(5000, 40, 9, 10, "l2"), Case(4000, 128, 70, 10)]


class Run:
    """What is measured so far; written after every part, so that a crash loses one."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.on_gpu = torch.cuda.is_available() and not options.dry_run
        self.device = "cuda" if self.on_gpu else "cpu"
        self.end = time.monotonic() + options.seconds
        self.result: dict[str, Any] = {"machine": machine(self.on_gpu), "errors": []}

    def part(self, name: str, work: Any, *arguments: Any) -> None:
        """Do some work; an error is recorded with its last lines."""
        if time.monotonic() > self.end:
            self.result["errors"].append({"part": name, "error": "no time was left"})
            return
        try:
            work(*arguments)
        except Exception as error:
            text = traceback.format_exc().splitlines()[-4:]
            self.result["errors"].append({"part": name, "error": str(error)[:400], "at": text})
            print(f"FAILED {name}: {error}", flush=True)
        Path(self.options.out).write_text(json.dumps(self.result, indent=1))


def machine(on_gpu: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__}
    facts["architectures"] = _core.cuda_architectures
    facts["backend"] = fr.backends()[1].reason
    if on_gpu:
        properties = torch.cuda.get_device_properties(0)
        facts |= {"device": properties.name, "multiprocessors": properties.multi_processor_count}
        driver = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(driver, capture_output=True, text=True, check=False)
        facts["driver"] = done.stdout.strip()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    return facts | {"commit": commit.stdout.strip()}


def index_on(rows: torch.Tensor, metric: str, tier: str) -> Any:
    """An index on the device whose scan is of this tier."""
    backend = runtime.cuda_backend("cuda", tier)
    kept, runtime.cuda_backend = runtime.cuda_backend, lambda device="cuda", tier="": backend
    try:
        index = fr.Index(rows.shape[1], metric=metric, device="cuda")
    finally:
        runtime.cuda_backend = kept
    index.add(rows)
    return index


def made(case: Case, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator(device=device).manual_seed(case.n_rows + case.dim)
    shape = (case.n_rows, case.dim)
    rows = torch.randn(shape, generator=random, device=device)
    return torch.randn((case.batch, case.dim), generator=random, device=device), rows


def as_numpy(array: Any) -> np.ndarray:
    return array.cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)


def check(run: Run, case: Case, tier: str) -> None:
    """Ids and scores in every bit those of the CPU."""
    queries, rows = made(case, run.device)
    found = index_on(rows, case.metric, tier).search(queries, case.k, score_dtype="float64")
    host = fr.Index(case.dim, metric=case.metric)
    host.add(rows.cpu())
    wanted = host.search(queries.cpu().numpy(), case.k, score_dtype="float64")
    same_ids = bool((as_numpy(found.ids) == wanted.ids).all())
    same_bits = bool((as_numpy(found.scores).view(np.int64) == wanted.scores.view(np.int64)).all())
    equal = same_ids and same_bits
    line = {"case": case.name, "metric": case.metric, "tier": tier, "equal": equal}
    run.result.setdefault("checks", []).append(line)
    print("equal" if equal else "DIFFERS", tier, case.name, case.metric, flush=True)
    if not equal:
        raise AssertionError(f"{tier} differs from the CPU: {case.name}, {case.metric}")


def ceilings(run: Run, timer: Timer) -> None:
    n_bytes = 4 << 30 if run.on_gpu else 4 << 20
    found = {"copy_bytes_per_s": copy_bandwidth(timer, n_bytes)}
    found["read_bytes_per_s"] = read_bandwidth(timer, n_bytes)
    run.result["ceilings"] = found
    if run.options.rates:
        done = subprocess.run([run.options.rates], capture_output=True, text=True, check=True)
        found |= json.loads(done.stdout)
    print(json.dumps(found), flush=True)


def exact_ids(case: Case, queries: torch.Tensor, rows: torch.Tensor) -> np.ndarray:
    """The answer for the first queries by the canonical scores of the CPU."""
    host = fr.Index(case.dim, metric=case.metric)
    host.add(rows.cpu())
    return np.asarray(host.search(queries[:4].cpu().numpy(), case.k).ids)


def measure(run: Run, timer: Timer, case: Case) -> None:
    """Every tier, then the peers, on the same tensors; wrong answers have no speed."""
    queries, rows = made(case, run.device)
    wanted = exact_ids(case, queries, rows)
    floor = case.floor_us(run.result["ceilings"])
    for tier in run.result["tiers"]:
        line: dict[str, Any] = {"case": case.name, "who": f"fastretrieve {tier}", "floor_us": floor}
        index = index_on(rows, case.metric, tier)
        plan = index.plan(case.batch, k=case.k)
        if not (as_numpy(plan(queries).ids)[:4] == wanted).all():
            raise AssertionError(f"{tier}: wrong ids, {case.name}")
        call = partial(plan, queries)
        timed = captured(call) if case.graph and run.on_gpu else call
        line |= timer.median_us(timed, cold=case.cold)
        line["share_of_floor"] = floor / line["median_us"]
        stats = index.stats()
        line |= {"rows_scored_per_query": stats["rows_scored_per_query"], "plan": repr(plan)}
        record(run, line)
        del index, plan, call, timed
    for name, peer in PEERS.items():
        run.part(f"{name}: {case.name}", peer_line, run, timer, case, name, peer, queries, rows)


def peer_line(
    run: Run, timer: Timer, case: Case, name: str, peer: Any, queries: Any, rows: Any
) -> None:
    if case.metric != "ip" or 4 * case.batch * case.n_rows > 24e9:
        return  # no score matrix of that size
    line = {"case": case.name, "who": name}
    record(run, line | timer.median_us(peer(queries, rows, case.k), cold=case.cold))


def record(run: Run, line: dict[str, Any]) -> None:
    run.result.setdefault("times", []).append(line)
    share = f"{100 * line['share_of_floor']:5.1f}% of the floor" if "share_of_floor" in line else ""
    print(f"{line['case']:45} {line['who']:20} {line['median_us']:12.1f} us {share}", flush=True)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="where the JSON goes")
    parser.add_argument("--rates", help="the program built from rates.cu")
    parser.add_argument("--parts", help="verdicts of gpu.sh, to keep beside the rest")
    parser.add_argument("--seconds", type=float, default=480, help="start no part after these")
    parser.add_argument("--check-only", action="store_true", help="compare with the CPU, no times")
    parser.add_argument("--small", action="store_true", help="small checks, for the sanitizers")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes, no GPU needed")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    run = Run(options)
    available, reason = fr.backends()[1][1:3]
    if not available:
        sys.exit(f"there is no CUDA backend: {reason}")
    run.result["tiers"] = []
    small = options.small or options.dry_run
    for tier in TIERS:
        before = len(run.result["errors"])
        for case in SMALL_CHECKS if small else CHECKS:
            run.part(f"check {tier}", check, run, case, tier)
        if len(run.result["errors"]) == before:
            run.result["tiers"].append(tier)  # only what is right is timed
    if not options.check_only:
        timer = Timer(on_gpu=run.on_gpu, repeats=30 if run.on_gpu else 3)
        run.part("ceilings", ceilings, run, timer)
        for case in DRY_CASES if options.dry_run else CASES:
            run.part(case.name, measure, run, timer, case)
    if options.parts:
        run.result["parts"] = Path(options.parts).read_text().splitlines()
    Path(options.out).write_text(json.dumps(run.result, indent=1))
    for error in run.result["errors"]:
        print("error:", error["part"], error["error"][:200])
    return 1 if len(run.result["tiers"]) < 1 else 0


if __name__ == "__main__":
    sys.exit(main())
