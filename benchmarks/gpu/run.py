"""Check tiers against the CPU, or measure ceilings, a tier or a peer; the results as JSON.

    python benchmarks/gpu/run.py prove --out prove.json
    python benchmarks/gpu/run.py check --tier mma --out check-mma.json
    python benchmarks/gpu/run.py ceilings --rates build/gpu/rates --out ceilings.json
    python benchmarks/gpu/run.py ours --tier mma --out ours-mma.json
    python benchmarks/gpu/run.py peer --peer faiss --out peer-faiss.json

``benchmarks/gpu.sh`` calls this, a process for each, because an error on a GPU ends its process;
``report.py`` puts the files together. ``--dry-run`` runs in an emulated build, with tiny sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import traceback
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from peers import PEERS, as_ids, exact_ids
from sizes import CASES, CHECKS, DRY_CASES, SMALL_CHECKS, Case, made
from timing import Timer, captured, copy_bandwidth, read_bandwidth

import fastretrieve as fr
from fastretrieve import _core
from fastretrieve._backends import runtime
from fastretrieve.machine import proving

TIERS = ("dp4a", "mma", "wgmma")
MAX_MATRIX_BYTES = 24e9  # of a peer that writes all scores


class Run:
    """What is found so far; written after every part, so that a crash loses one."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.on_gpu = torch.cuda.is_available() and not options.dry_run
        self.device = "cuda" if self.on_gpu else "cpu"
        self.timer = Timer(on_gpu=self.on_gpu)
        self.end = time.monotonic() + options.seconds
        self.result: dict[str, Any] = {"machine": machine(self.on_gpu), "errors": []}

    def part(self, name: str, work: Any, *arguments: Any) -> None:
        """Do some work; an error is recorded with its last lines."""
        if time.monotonic() > self.end:
            self.result["errors"].append({"part": name, "error": "no time was left"})
        else:
            try:
                work(self, *arguments)
            except Exception as error:
                text = traceback.format_exc().splitlines()[-4:]
                said = f"{type(error).__name__}: {error}"[:400]
                self.result["errors"].append({"part": name, "error": said, "at": text})
                print(f"FAILED {name}: {said}", flush=True)
        self.write()

    def write(self) -> None:
        out = Path(self.options.out)
        partial_file = out.with_suffix(".part")
        partial_file.write_text(json.dumps(self.result, indent=1))
        os.replace(partial_file, out)

    def record(self, kind: str, **line: Any) -> None:
        self.result.setdefault(kind, []).append(line)
        print(json.dumps(line), flush=True)


def machine(on_gpu: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__}
    facts["architectures"] = _core.cuda_architectures
    facts["backend"] = fr.backends()[1].reason
    if on_gpu:
        properties = torch.cuda.get_device_properties(0)
        facts |= {"device": properties.name, "multiprocessors": properties.multi_processor_count}
        driver = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        facts["driver"] = output_of(driver)
    return facts | {"commit": output_of(["git", "rev-parse", "HEAD"])}


def output_of(command: list[str]) -> str:
    """What a command says; empty where there is no such command."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def index_on(rows: torch.Tensor, metric: str, tier: str) -> Any:
    """An index on the device whose scan is of this tier."""
    with runtime.serving(runtime.cuda_backend("cuda", tier)):
        index = fr.Index(rows.shape[1], metric=metric, device="cuda")
    index.add(rows)
    return index


def as_numpy(array: Any) -> np.ndarray:
    return array.cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)


def prove(run: Run) -> None:
    """What `fastretrieve doctor --prove` finds: every tier, each in a process of its own."""
    limit = run.options.seconds / len(TIERS)
    found = proving.prove(0, limit=limit, say=lambda t: run.record("proofs", **t._asdict()))
    for trial in found:
        if trial.verdict != "equal":
            raise AssertionError(f"{trial.tier} {trial.verdict}: {trial.said}")


def check(run: Run, case: Case) -> None:
    """Ids and scores in every bit those of the CPU."""
    tier = run.options.tier
    queries, rows = made(case, run.device)
    found = index_on(rows, case.metric, tier).search(queries, case.k, score_dtype="float64")
    host = fr.Index(case.dim, metric=case.metric)
    host.add(rows.cpu())
    wanted = host.search(queries.cpu().numpy(), case.k, score_dtype="float64")
    same_ids = bool((as_numpy(found.ids) == wanted.ids).all())
    same_bits = bool((as_numpy(found.scores).view(np.int64) == wanted.scores.view(np.int64)).all())
    run.record("checks", case=case.name, tier=tier, equal=same_ids and same_bits)
    if not (same_ids and same_bits):
        raise AssertionError(f"{tier} differs from the CPU: {case.name}")


def ceilings(run: Run) -> None:
    n_bytes = 4 << 30 if run.on_gpu else 4 << 20
    found = {"copy_bytes_per_s": copy_bandwidth(run.timer, n_bytes)}
    found["read_bytes_per_s"] = read_bandwidth(run.timer, n_bytes)
    run.result["ceilings"] = found
    print(json.dumps(found), flush=True)


def rates(run: Run) -> None:
    done = subprocess.run([run.options.rates], capture_output=True, text=True, check=True)
    run.result.setdefault("ceilings", {}).update(json.loads(done.stdout))
    print(done.stdout, flush=True)


def ours(run: Run, case: Case) -> None:
    """Our time for a case; wrong answers have no speed."""
    tier = run.options.tier
    queries, rows = made(case, run.device)
    wanted = exact_ids(queries[:4], rows, case.k, "ip" if case.metric == "ip" else "l2")
    index = index_on(rows, case.metric, tier)
    plan = index.plan(case.batch, k=case.k)
    if not (as_numpy(plan(queries).ids)[:4] == as_numpy(wanted)).all():
        raise AssertionError(f"{tier}: wrong ids, {case.name}")
    call = partial(plan, queries)
    timed = captured(call) if case.graph and run.on_gpu else call
    times = run.timer.median_us(timed, cold=case.cold)
    stats = index.stats()
    line = {"case": case.name, "who": f"fastretrieve {tier}", **times}
    line |= {"rows_scored_per_query": stats["rows_scored_per_query"]}
    line |= {"overflows": stats["overflows"], "plan": repr(plan)}
    run.record("times", **line)


def peer(run: Run, case: Case) -> None:
    """A peer's time for a case, and how many of the exact answers it finds."""
    name = run.options.peer
    chosen = PEERS[name]
    if case.metric != "ip" or (chosen.has_score_matrix and case.matrix_bytes > MAX_MATRIX_BYTES):
        return
    queries, rows = made(case, run.device)
    search = chosen.prepare(queries, rows, case.k)
    found = as_ids(search())[:4].cpu()
    wanted = exact_ids(queries[:4], rows, case.k, chosen.metric).cpu()
    recall = float((found[:, :, None] == wanted[:, None, :]).any(dim=2).double().mean())
    run.record(
        "times",
        case=case.name,
        who=name,
        recall=recall,
        metric=chosen.metric,
        **run.timer.median_us(search, cold=case.cold),
    )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("prove", "check", "ceilings", "ours", "peer"))
    parser.add_argument("--out", required=True, help="where the JSON goes")
    parser.add_argument("--tier", choices=TIERS, default="dp4a")
    parser.add_argument("--peer", choices=PEERS, default="torch float32")
    parser.add_argument("--rates", help="the program built from rates.cu")
    parser.add_argument("--seconds", type=float, default=480, help="start no part after these")
    parser.add_argument("--small", action="store_true", help="small checks, for the sanitizers")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes, no GPU needed")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    available, reason = fr.backends()[1][1:3]
    if not available:
        sys.exit(f"there is no CUDA backend: {reason}")
    run = Run(options)
    small = options.small or options.dry_run
    if options.what == "prove":
        run.part("prove", prove)
    elif options.what == "ceilings":
        run.part("bandwidth", ceilings)
        if options.rates:
            run.part("rates", rates)
    elif options.what == "check":
        for case in SMALL_CHECKS if small else CHECKS:
            run.part(f"check {options.tier}: {case.name}", check, case)
    else:
        work, who = (ours, options.tier) if options.what == "ours" else (peer, options.peer)
        for case in DRY_CASES if options.dry_run else CASES:
            run.part(f"{who}: {case.name}", work, case)
    run.write()
    return 1 if run.result["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
