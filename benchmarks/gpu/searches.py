"""The parts of a run that search with fastretrieve: proofs, checks, times, times by kernel."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import datetime, timezone
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from data import checked_queries, exact_ids, made, rows_of
from sizes import Case
from timing import captured

import fastretrieve as fr
from fastretrieve import _core
from fastretrieve._backends import runtime, tiers
from fastretrieve.machine import proving

PROFILED = 5  # searches
MOST_KERNELS = 12  # in the table of a case


def facts() -> dict[str, Any]:
    """The machine as the backend sees it; without a backend the part ends."""
    backend = fr.backends()[1]
    if not backend.available:
        sys.exit(f"there is no CUDA backend: {backend.reason}")
    return {"backend": backend.reason, "architectures": _core.cuda_architectures}


@lru_cache(maxsize=1)
def index_of(n_rows: int, dim: int, metric: str, device: str, tier: str) -> Any:
    """An index whose scan is of this tier; only the latest is kept."""
    with runtime.serving(runtime.cuda_backend("cuda", tier)):
        index = fr.Index(dim, metric=metric, device="cuda")
    index.add(rows_of(n_rows, dim, device))
    return index


def index_for(run: Any, case: Case) -> Any:
    return index_of(case.n_rows, case.dim, case.metric, run.device, run.options.tier)


def as_numpy(array: Any) -> np.ndarray:
    return array.cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)


def prove(run: Any) -> None:
    """The work of `fastretrieve doctor --prove`, with all tiers at the same time."""
    present = tiers.present(0)
    limit = run.options.seconds
    with ThreadPoolExecutor(len(present)) as pool:
        tried = partial(proving.tried, 0, command=proving.own_process, limit=limit)
        waiting = [pool.submit(tried, tier) for tier in present]
        for one in as_completed(waiting):
            run.record("proofs", **one.result()._asdict())
            run.write()
    trials = [one.result() for one in waiting]
    tiers.record(0, trials, datetime.now(timezone.utc).strftime("%Y-%m-%d"))
    run.result["machine"] |= facts()  # another tier may serve now
    for trial in trials:
        if trial.verdict != tiers.EQUAL:
            raise AssertionError(f"{trial.tier} {trial.verdict}: {trial.said}")


def check(run: Any, case: Case) -> None:
    """Ids and scores in every bit those of the CPU."""
    tier = run.options.tier
    queries, rows = made(case, run.device)
    found = index_for(run, case).search(queries, case.k, score_dtype="float64")
    host = fr.Index(case.dim, metric=case.metric)
    host.add(rows.cpu())
    wanted = host.search(queries.cpu().numpy(), case.k, score_dtype="float64")
    same_ids = bool((as_numpy(found.ids) == wanted.ids).all())
    same_bits = bool((as_numpy(found.scores).view(np.int64) == wanted.scores.view(np.int64)).all())
    run.record("checks", case=case.name, tier=tier, equal=same_ids and same_bits)
    if not (same_ids and same_bits):
        raise AssertionError(f"{tier} differs from the CPU: {case.name}")


def ours(run: Any, case: Case) -> None:
    """Our time for a case. Wrong answers get none: the call that is timed is checked before, with
    its results poisoned, and after.
    """
    tier = run.options.tier
    queries, rows = made(case, run.device)
    some = checked_queries(case.batch)
    wanted = as_numpy(exact_ids(queries[some], rows, case.k, case.metric))
    index = index_for(run, case)
    plan = index.plan(case.batch, k=case.k)
    call = partial(plan, queries)
    call()
    timed = captured(call) if case.graph and run.on_gpu else call

    def assert_right(when: str) -> None:
        n_wrong = int((as_numpy(plan.ids)[some.numpy()] != wanted).sum())
        if n_wrong:
            raise AssertionError(f"{tier}: {n_wrong} of {wanted.size} ids are wrong {when}")

    plan.ids[...] = -7
    plan.scores[...] = float("nan")
    timed()
    assert_right("before the timing")
    before = index.stats()
    times = run.timer.median_us(timed, cold=case.cold)
    assert_right("after the timing")
    stats = index.stats()
    line = {"case": case.name, "who": f"fastretrieve {tier}", "graph": timed is not call, **times}
    line |= {"rows_scored_per_query": stats["rows_scored_per_query"]}
    line |= {"overflows": stats["overflows"] - before["overflows"], "plan": repr(plan)}
    run.record("times", **line)


def kernels(run: Any, case: Case) -> None:
    """The time of each kernel of a search, by torch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    queries, _ = made(case, run.device)
    plan = index_for(run, case).plan(case.batch, k=case.k)
    plan(queries)
    kind = ProfilerActivity.CUDA if run.on_gpu else ProfilerActivity.CPU
    with profile(activities=[kind]) as profiler:
        for _ in range(PROFILED):
            plan(queries)
            if run.on_gpu:
                torch.cuda.synchronize()
    field = "self_device_time_total" if run.on_gpu else "self_cpu_time_total"
    times = [(e.key, getattr(e, field), e.count) for e in profiler.key_averages()]
    lines = by_kernel(times, PROFILED)
    if run.on_gpu and not lines:
        raise AssertionError("the profiler saw no kernel")
    for line in lines:
        run.record("kernels", case=case.name, tier=run.options.tier, **line)


def by_kernel(
    times: Iterable[tuple[str, float, int]], n_searches: int
) -> list[dict[str, str | float]]:
    """Microseconds and launches of a search by kernel, the longest first; the last lines of a long
    table are one.
    """
    found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for name, us, count in times:
        if us > 0:
            found[short(name)][0] += us / n_searches
            found[short(name)][1] += count / n_searches
    lines = sorted(((us, name, n) for name, (us, n) in found.items()), reverse=True)
    table = [(us, name, n) for us, name, n in lines[:MOST_KERNELS]]
    if others := lines[MOST_KERNELS:]:
        table.append((sum(us for us, _, _ in others), "others", sum(n for _, _, n in others)))
    total = sum(us for us, _, _ in table)
    return [
        {"kernel": name, "us": round(us, 2), "launches": round(n, 2), "share": us / total}
        for us, name, n in table
    ]


def short(name: str) -> str:
    """A kernel's name with its template arguments only."""
    name = re.sub(r"\((int|bool|long|anonymous namespace)\)(::)?", "", name)
    found = re.search(r"(\w+)(<[^()]*>)?\(", name)
    return "".join(part or "" for part in found.groups())[:80] if found else name[:80]
