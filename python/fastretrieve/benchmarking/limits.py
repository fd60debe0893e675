"""The best rates of the machine, sampled between the measurements that are compared with them."""

from dataclasses import dataclass, field

import numpy as np

from fastretrieve import _core
from fastretrieve.benchmarking.timing import Timing

READ_BYTES = 512 << 20  # far beyond any cache, so that it is memory that streams
PEAK_SECONDS = 0.03


@dataclass
class MachineLimits:
    """The streaming read rate and the int8 multiply-add rate of ``threads``, once a round."""

    threads: int
    read_rates: list[float] = field(default_factory=list)  # bytes a second
    int8_rates: list[float] = field(default_factory=list)  # multiply-adds a second

    def sample(self) -> None:
        self.read_rates.append(_core.probe_read_bandwidth(READ_BYTES, self.threads))
        self.int8_rates.append(_core.probe_int8_peak(self.threads, PEAK_SECONDS))

    @property
    def read_rate(self) -> float:
        return float(np.median(self.read_rates))

    @property
    def int8_rate(self) -> float:
        return float(np.median(self.int8_rates))

    def share_of_read(self, n_bytes: int, timing: Timing) -> float:
        """Reading ``n_bytes`` at the measured rate, as a share of the time that was taken."""
        return _share(n_bytes, self.read_rates, timing)

    def share_of_int8(self, multiply_adds: int, timing: Timing) -> float:
        """``multiply_adds`` at the measured peak, as a share of the time that was taken."""
        return _share(multiply_adds, self.int8_rates, timing)


def _share(work: int, rates: list[float], timing: Timing) -> float:
    both = min(len(rates), len(timing.rounds))
    return float(np.median(work / np.multiply(rates[:both], timing.rounds[:both])))
