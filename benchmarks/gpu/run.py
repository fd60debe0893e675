"""One part of a run of ``benchmarks/gpu.sh``; the results as JSON.

    python benchmarks/gpu/run.py prove --out prove.json
    python benchmarks/gpu/run.py check --tier mma --out check-mma.json
    python benchmarks/gpu/run.py ours --tier mma --cases first --out ours-mma.json
    python benchmarks/gpu/run.py kernels --tier mma --cases first --out kernels-mma.json
    python benchmarks/gpu/run.py ceilings --rates build/gpu/rates --out ceilings.json
    python benchmarks/gpu/run.py peer --peer faiss --cases all --out peer-faiss.json

The script starts a process for each part, because an error on a GPU ends its process; ``report.py``
puts the files together. The first four need fastretrieve and are in ``searches.py``; ceilings and
peers need torch alone. ``--dry-run`` runs in an emulated build, with tiny sizes.
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
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import report
from sizes import CASES, CHECKS, DRY_CASES, SMALL_CHECKS, Case

TIERS = ("dp4a", "mma", "wgmma")
OURS = ("prove", "check", "ours", "kernels")
FIRST_PEERS = ("torch bfloat16", "flashlib bfloat16")  # those of the first call
MAX_MATRIX_BYTES = 24e9  # of a peer that writes all scores


class Run:
    """The results so far; written after every case, so that a crash loses one."""

    def __init__(self, options: argparse.Namespace) -> None:
        import torch
        from timing import Timer

        self.options = options
        self.on_gpu = not options.dry_run
        if self.on_gpu and not torch.cuda.is_available():
            sys.exit("torch sees no GPU: figures of a CPU would say nothing; --dry-run wants none")
        self.device = "cuda" if self.on_gpu else "cpu"
        self.timer = Timer(on_gpu=self.on_gpu)
        self.end = time.monotonic() + options.seconds
        facts = {"python": platform.python_version(), "torch": torch.__version__}
        if self.on_gpu:
            properties = torch.cuda.get_device_properties(0)
            facts |= {"torch_device": properties.name}
            facts |= {"multiprocessors": properties.multi_processor_count}
        self.result: dict[str, Any] = {"machine": facts, "errors": []}

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
        if self.options.report:
            report.write(report.gathered(out.parent), self.options.report)

    def record(self, kind: str, **line: Any) -> None:
        line["when"] = datetime.now(timezone.utc).strftime("%H:%M:%S")
        self.result.setdefault(kind, []).append(line)
        print(json.dumps(line), flush=True)


def bandwidth(run: Run) -> None:
    from timing import copy_bandwidth, random_numbers, read_bandwidth

    numbers = random_numbers(4 << 30 if run.on_gpu else 4 << 20, run.device)
    found = run.result.setdefault("ceilings", {})
    found["read_bytes_per_s"] = read_bandwidth(run.timer, numbers)
    found["copy_bytes_per_s"] = copy_bandwidth(run.timer, numbers)
    print(json.dumps(found), flush=True)


def rates(run: Run) -> None:
    done = subprocess.run([run.options.rates], capture_output=True, text=True, check=True)
    run.result.setdefault("ceilings", {}).update(json.loads(done.stdout))
    print(done.stdout, flush=True)


def matrix_product(run: Run) -> None:
    from timing import int8_rate

    found = int8_rate(run.timer, 8192 if run.on_gpu else 128)
    run.result.setdefault("ceilings", {})["int8_torch_tops"] = found


def ceilings(run: Run) -> None:
    run.part("bandwidth", bandwidth)
    if run.options.rates:
        run.part("rates", rates)
    run.part("int8 product of torch", matrix_product)


def peer(run: Run, case: Case) -> None:
    """A peer's time for a case, and the share of the exact answers that it finds."""
    from data import checked_queries, exact_ids, made
    from peers import PEERS, as_ids

    name = run.options.peer
    chosen = PEERS[name]
    if case.metric != "ip" or (chosen.has_score_matrix and case.matrix_bytes > MAX_MATRIX_BYTES):
        return
    queries, rows = made(case, run.device)
    some = checked_queries(case.batch).to(run.device)
    search = chosen.prepare(queries, rows, case.k)
    found = as_ids(search())[some].cpu()
    wanted = exact_ids(queries[some], rows, case.k, chosen.metric).cpu()
    recall = float((found[:, :, None] == wanted[:, None, :]).any(dim=2).double().mean())
    times = run.timer.median_us(search, cold=case.cold)
    run.record(
        "times", case=case.name, who=name, recall=recall, metric=chosen.metric, graph=False, **times
    )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=(*OURS, "ceilings", "peer", "names"))
    parser.add_argument("--out", required=True, help="where the JSON goes")
    parser.add_argument("--report", type=Path, help="the report to rewrite after each result")
    parser.add_argument("--tier", choices=TIERS, default="dp4a")
    parser.add_argument("--peer", default=FIRST_PEERS[0])
    parser.add_argument("--cases", choices=CASES, default="first")
    parser.add_argument("--rates", help="the program built from rates.cu")
    parser.add_argument("--seconds", type=float, default=480, help="start no case after these")
    parser.add_argument("--small", action="store_true", help="small checks, for the sanitizers")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes, no GPU needed")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.what == "names":  # of the peers that the first call left out
        from peers import PEERS

        print(*(name for name in PEERS if name not in FIRST_PEERS), sep="\n")
        return 0
    run = Run(options)
    cases = DRY_CASES if options.dry_run else CASES[options.cases]
    if options.what == "ceilings":
        ceilings(run)
    elif options.what == "peer":
        for case in cases:
            run.part(f"{options.peer}: {case.name}", peer, case)
    else:
        import searches

        run.result["machine"] |= searches.facts()
        if options.what == "prove":
            run.part("prove", searches.prove)
        else:
            if options.what == "check":
                cases = SMALL_CHECKS if options.small or options.dry_run else CHECKS
            for case in cases:
                name = f"{options.what} {options.tier}: {case.name}"
                run.part(name, getattr(searches, options.what), case)
    run.write()
    return 1 if run.result["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
