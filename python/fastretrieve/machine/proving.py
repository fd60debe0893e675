"""``fastretrieve doctor --prove``: does every tier of the CUDA scan equal the CPU on this device?

Each tier works through the same cases in a process of its own, with a time limit, because a broken
kernel ends its process or hangs. Every bit of ids and float64 scores is compared. ``tiers.py``
keeps the verdicts. An emulated build leaves out searches that would take minutes.

    python -m fastretrieve.machine.proving DEVICE TIER    # in such a process; it prints JSON lines
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve import _core
from fastretrieve._backends import tiers
from fastretrieve._backends.runtime import serving
from fastretrieve._backends.tiers import DIFFERS, EQUAL, Trial
from fastretrieve._common.metric import METRICS, Metric
from fastretrieve._queries.results import Hits
from fastretrieve.index import Index

LIMIT_SECONDS = 300.0  # for a tier, torch's start included
MOST_EMULATED = 3e6  # products of codes in a search
KINDS = ("scattered", "ties", "near duplicates", "edges of the range")
SEARCHES = ((1, 1), (1, 10), (8, 100), (64, 10), (300, 10))  # (batch, k)
Rows = NDArray[np.float32]
Command = Callable[[int, str], list[str]]
Say = Callable[[dict[str, Any]], None]


class ProofCase(NamedTuple):
    """An index and the searches in it."""

    kind: str
    n_rows: int
    dim: int
    metric: Metric
    dtype: Any = "float32"
    searches: tuple[tuple[int, int], ...] = SEARCHES
    small_plans: bool = True  # few rows pass every stage of a scan

    @property
    def name(self) -> str:
        return f"{self.n_rows} x {self.dim} {self.dtype}, {self.kind}, {self.metric}"


def cases() -> Iterator[ProofCase]:
    """Dimensions and batches around every tile, rows of which 17 have no codes, hard numbers."""
    dims = (1, 31, 32, 33, 64, 65, 127, 128, 129, 256, 768, 769)
    for i, dim in enumerate(dims):
        for j, metric in enumerate(METRICS):
            yield ProofCase(KINDS[(i + j) % len(KINDS)], 64 * 19 + 17, dim, metric)
    for dtype, metric in (("float16", METRICS[0]), ("bfloat16", METRICS[2])):
        yield ProofCase(KINDS[0], 64 * 19 + 17, 100, metric, dtype)
    for metric in METRICS:  # plans as users have them
        yield ProofCase(KINDS[0], 64 * 60 + 17, 48, metric, small_plans=False)
    several = ((1, 10), (8, 1), (64, 100), (600, 10))
    yield ProofCase(KINDS[0], 300_017, 128, METRICS[0], searches=several, small_plans=False)
    yield ProofCase(KINDS[0], 200_017, 128, METRICS[3], searches=several, small_plans=False)
    yield ProofCase(KINDS[2], 100_017, 64, METRICS[1], searches=several[:2], small_plans=False)
    yield ProofCase(KINDS[0], 60_017, 768, METRICS[1], searches=several[:3], small_plans=False)


def numbers(case: ProofCase) -> tuple[Rows, Rows]:
    """Queries, some of which are rows or their opposites, and rows of a case."""
    random = np.random.default_rng([9, case.n_rows, case.dim])
    shape = (case.n_rows, case.dim)
    if case.kind == "ties":
        rows = random.integers(-2, 3, shape).astype(np.float32)
    else:
        rows = random.standard_normal(shape, dtype=np.float32)
    if case.kind == "scattered":
        rows *= random.choice(np.array([0.1, 1, 1, 5], np.float32), (case.n_rows, 1))
    elif case.kind == "near duplicates":  # more survive than a buffer holds
        rows = rows[:1] + np.float32(1e-6) * rows
    elif case.kind == "edges of the range":  # of norms, see docs/exactness.md
        rows *= np.float32(2) ** random.integers(-75, 76, (case.n_rows, 1)).astype(np.float32)
        rows[::50] = 0
    n = max(batch for batch, _ in case.searches)
    queries = np.resize(rows[random.permutation(case.n_rows)[:n]], (n, case.dim))
    queries[1::3] *= -1
    queries[2::3] = np.roll(queries[2::3], 1, axis=1) + np.float32(0.25)
    return queries, rows


def filled(case: ProofCase, rows: Rows, device: str) -> Index:
    """An index of the rows, in two segments, less some of them."""
    index = Index(case.dim, metric=case.metric, dtype=case.dtype, device=device)
    index.add(rows[: case.n_rows // 3])
    index.add(rows[case.n_rows // 3 :])
    index.remove(np.arange(5, case.n_rows, 97))
    return index


def masks(case: ProofCase, batch: int, k: int) -> Any:
    """No mask, one for all queries, or one for each, in turns."""
    which = (batch + k + case.dim) % 3
    shape = (case.n_rows - len(range(5, case.n_rows, 97)),)
    random = np.random.default_rng([10, batch, k])
    if which == 0 or batch * shape[0] > 1e7:
        return None
    return random.random(shape if which == 1 else (batch, *shape)) < 0.4


def difference(found: Hits, wanted: Hits) -> str:
    """The first difference between results; empty if they are equal in every bit."""
    same = found.ids == wanted.ids
    same &= found.scores.view(np.int64) == wanted.scores.view(np.int64)
    if same.all():
        return ""
    q, i = (int(n) for n in np.argwhere(~same)[0])
    return (
        f"query {q}, place {i}: id {found.ids[q, i]} with {found.scores[q, i]!r} instead of "
        f"id {wanted.ids[q, i]} with {wanted.scores[q, i]!r}; {int((~same).sum())} places differ"
    )


def compare(case: ProofCase, backend: Any, *, most: float, begin: Say) -> Iterator[str]:
    """The first difference in each search of a case that needs at most ``most`` products; empty if
    there is none.
    """
    searches = [(n, k) for n, k in case.searches if n * case.n_rows * case.dim <= most]
    if not searches:
        return
    queries, rows = numbers(case)
    host = filled(case, rows, "cpu")
    with serving(backend):
        there = filled(case, rows, "cuda")
    for batch, k in searches:
        where, sent = masks(case, batch, k), queries[:batch]
        wanted = host.search(sent, k, where=where, score_dtype="float64")
        placed = backend.memory.placed(sent)
        for q in [sent] if placed is sent else [sent, placed]:
            name = f"{case.name}, batch {batch}, k={k}"
            begin({"begins": name})
            scores, ids = there.search(q, k, where=where, score_dtype="float64")
            found = Hits(backend.memory.to_host(scores), backend.memory.to_host(ids))
            differs = difference(found, wanted)
            yield f"{name}: {differs}" if differs else ""


def main(arguments: list[str]) -> int:
    """Let a tier of a device prove itself; JSON lines report what it does and finds."""
    from fastretrieve._backends.cuda import CudaBackend

    device, tier = int(arguments[0]), arguments[1]
    emulated = bool(_core.cuda_state()[1])
    if not emulated:
        import torch

        torch.cuda.set_device(device)
    backends = {
        small: CudaBackend("cuda", tier=tier, emulated=emulated, small_plans=small)
        for small in (True, False)
    }
    n_equal, most = 0, MOST_EMULATED if emulated else float("inf")
    for case in cases():
        for differs in compare(case, backends[case.small_plans], most=most, begin=tell):
            if differs:
                tell({DIFFERS: differs})
                return 1
            n_equal += 1
    tell({EQUAL: n_equal})
    return 0


def tell(news: dict[str, Any]) -> None:
    """Print one line, at once, for the process that waits."""
    print(json.dumps(news), flush=True)


def own_process(device: int, tier: str) -> list[str]:
    """The command that runs :func:`main`."""
    return [sys.executable, "-m", "fastretrieve.machine.proving", str(device), tier]


def tried(device: int, tier: str, *, command: Command, limit: float) -> Trial:
    """Try a tier in a process of its own."""
    begin = time.monotonic()
    try:
        done = subprocess.run(
            command(device, tier), capture_output=True, text=True, timeout=limit, check=False
        )
        output, errors, ended = done.stdout, done.stderr, f"ended with exit code {done.returncode}"
    except subprocess.TimeoutExpired as error:
        output, errors, ended = _text(error.stdout), "", f"was still running after {limit:.0f} s"
    said: dict[str, Any] = {}
    for line in output.splitlines(keepends=True):
        if line.startswith("{") and line.endswith("}\n"):  # the last may have broken off
            said |= json.loads(line)
    seconds = round(time.monotonic() - begin, 1)
    if DIFFERS in said:
        return Trial(tier, DIFFERS, said[DIFFERS], seconds)
    if EQUAL in said and ended.endswith(" 0"):
        return Trial(tier, EQUAL, f"{said[EQUAL]} searches", seconds)
    last = (errors.strip().splitlines() or [""])[-1][:300]
    where = f"at {said['begins']}" if "begins" in said else "before its first search"
    return Trial(tier, ended, f"{where}{': ' if last else ''}{last}", seconds)


def prove(
    device: int,
    *,
    say: Callable[[Trial], object] = print,
    command: Command | None = None,
    limit: float = LIMIT_SECONDS,
) -> list[Trial]:
    """Try every tier of a device, and keep the verdicts for later indexes."""
    trials = []
    for tier in tiers.present(device):
        trials.append(tried(device, tier, command=command or own_process, limit=limit))
        say(trials[-1])
    when = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    tiers.record(device, trials, when)
    return trials


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
