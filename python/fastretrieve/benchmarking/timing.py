"""The clock: contenders take turns, so that a machine's drift slows all of them alike."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

SETTLE_SECONDS = (
    0.02  # threads that spin after their work (OpenMP's do) must not meet the next turn
)
TURN_SECONDS = 0.05
MAX_ROUNDS = 15
MAX_CALLS_IN_TURN = 1000
FLUSH_BYTES = 128 << 20  # several times the largest last-level cache of a desktop part


@dataclass
class Timing:
    """The seconds of every call, and the median of each round."""

    calls: list[float] = field(default_factory=list)
    rounds: list[float] = field(default_factory=list)

    @property
    def spent(self) -> float:
        return sum(self.calls)

    @property
    def median(self) -> float:
        return float(np.median(self.calls))

    def percentile(self, q: float) -> float:
        return float(np.percentile(self.calls, q))

    def ratio_to(self, other: "Timing") -> float:
        """How many times as long as ``other`` this took: the median over the rounds both ran in."""
        both = min(len(self.rounds), len(other.rounds))
        return float(np.median(np.divide(self.rounds[:both], other.rounds[:both])))


class CacheFlush:
    """Reads a buffer larger than the cache, so that the next call begins cold."""

    def __init__(self, n_bytes: int = FLUSH_BYTES) -> None:
        self._buffer = np.ones(n_bytes // 8)

    def __call__(self) -> None:
        self._buffer.sum()


def _turn(call: Callable[[], object], before: Callable[[], None] | None) -> list[float]:
    """Call for about TURN_SECONDS, at least once. Short calls get one that is not counted first."""
    seconds: list[float] = []
    warm_up = True
    deadline = time.perf_counter() + TURN_SECONDS
    while len(seconds) < MAX_CALLS_IN_TURN:
        if before is not None:
            before()
        start = time.perf_counter()
        call()
        end = time.perf_counter()
        if warm_up and end < deadline:
            warm_up = False
            continue
        seconds.append(end - start)
        if end >= deadline:
            break
    return seconds


def interleave(
    calls: Mapping[str, Callable[[], object]],
    *,
    seconds: float,
    max_rounds: int = MAX_ROUNDS,
    flush_cache: bool = False,
    each_round: Callable[[], None] | None = None,
) -> dict[str, Timing]:
    """Time ``calls`` in rounds until each has used ``seconds`` or ``max_rounds`` have passed.

    A call that alone takes longer than ``seconds`` is timed once. The order turns by one each
    round, so nobody always follows the same neighbour. ``each_round`` runs at the start of a round
    and is where the machine's limits are sampled, beside the contenders rather than before them.
    """
    flush = CacheFlush() if flush_cache else None
    timings = {name: Timing() for name in calls}
    names = list(calls)
    for round_number in range(max_rounds):
        active = [name for name in names if timings[name].spent < seconds]
        if not active:
            break
        if each_round is not None:
            each_round()
        shift = round_number % len(active)
        for name in active[shift:] + active[:shift]:
            time.sleep(SETTLE_SECONDS)
            turn = _turn(calls[name], flush)
            timings[name].calls += turn
            timings[name].rounds.append(float(np.median(turn)))
    return timings
