"""Run the kernels of the zoo and compare their answers with NumPy's.

``python zoo_checks.py LIBRARY [CHECK ...] [--plant FAULT]`` runs the named checks, or all; with a
planted fault the run is expected to fail, by a wrong answer here or by an abort in the library.
Imports nothing from fastretrieve.
"""

import argparse
import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zoo_expected import expected_rounding, expected_warp

Array = NDArray[Any]


class Zoo:
    """The library: ``zoo.sum(a, 3, out)`` calls ``zoo_sum``; arrays pass as pointers."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))

    def call(self, name: str, *arguments: Array | int | bytes) -> int:
        return int(getattr(self._library, f"zoo_{name}")(*map(_as_c, arguments)))

    def __getattr__(self, name: str) -> Callable[..., None]:
        def launch(*arguments: Array | int) -> None:
            error = self.call(name, *arguments)
            if error != 0:
                raise AssertionError(f"zoo_{name} returned CUDA error {error}")

        return launch

    def plant(self, fault: str) -> None:
        if self.call("plant", fault.encode()) == 0:
            raise ValueError(f"zoo.cuh lists no fault {fault!r}")


def _as_c(argument: Array | int | bytes) -> Any:
    if isinstance(argument, np.ndarray):
        return ctypes.c_void_p(argument.ctypes.data)
    return argument if isinstance(argument, bytes) else ctypes.c_int64(argument)


def _rng() -> np.random.Generator:
    return np.random.default_rng(20240131)


def check_sum(zoo: Zoo) -> None:
    for n, n_blocks in [(1, 1), (128, 1), (1000, 3), (20_000, 7)]:
        values = _rng().integers(-1000, 1000, n, dtype=np.int32)
        total = np.zeros(1, np.int64)
        zoo.sum(values, n, n_blocks, total)
        assert total[0] == values.sum(), (n, n_blocks)


def check_maximum(zoo: Zoo) -> None:
    for n, n_blocks in [(1, 1), (100, 4), (5000, 9)]:
        values = _rng().standard_normal(n).astype(np.float32)
        workspace = np.full(1 + n_blocks, np.nan, np.float32)
        out = np.zeros(1, np.float32)
        zoo.maximum(values, n, n_blocks, workspace, out)
        assert out[0] == values.max(), (n, n_blocks)


def check_histogram(zoo: Zoo) -> None:
    values = _rng().integers(0, 50, 3000, dtype=np.uint8)
    counts = np.full(50, -1, np.int32)
    zoo.histogram(values, len(values), 50, counts)
    np.testing.assert_array_equal(counts, np.bincount(values, minlength=50))


def check_append(zoo: Zoo) -> None:
    values = _rng().integers(0, 1000, 3 * 64, dtype=np.int32)
    capacity = 20
    kept, count = np.full(capacity + 100, -1, np.int32), np.zeros(1, np.int32)
    zoo.append(values, 3, capacity, kept, count)
    assert count[0] == (values % 2).sum() > capacity
    assert np.isin(kept[:capacity], values[values % 2 == 1]).all()
    assert (kept[capacity:] == -1).all()


def check_warp(zoo: Zoo) -> None:
    values = _rng().integers(0, 8, 32, dtype=np.int32)
    out = np.full((20, 32), -99, np.int32)
    zoo.warp(values, out)
    np.testing.assert_array_equal(out, expected_warp(values))


def check_reverse(zoo: Zoo) -> None:
    values = _rng().integers(0, 1000, 64, dtype=np.int32)
    out = np.zeros(64, np.int32)
    zoo.reverse(values, out)
    np.testing.assert_array_equal(out, values.reshape(2, 32)[:, ::-1].ravel())


def check_votes(zoo: Zoo) -> None:
    values = _rng().integers(-3, 8, 70, dtype=np.int32)
    out = np.zeros(4, np.int32)
    zoo.votes(values, 70, out)
    assert out.tolist() == [(values > 0).sum(), (values == 7).any(), True, (values == 7).sum()]


def check_pipe(zoo: Zoo) -> None:
    values = _rng().integers(-1000, 1000, (9, 64), dtype=np.int32)
    out = np.zeros_like(values)
    zoo.pipe(values, len(values), out)
    np.testing.assert_array_equal(out, 3 * values)


def _codes(n_rows: int, dim: int) -> Array:
    codes = _rng().integers(-128, 128, (n_rows, dim), dtype=np.int8)
    codes[0] = -128  # the largest product there is
    return codes


def check_mma(zoo: Zoo) -> None:
    for m, n, dim in [(64, 32, 64), (1, 1, 16), (65, 40, 208)]:
        a, b = _codes(m, dim), _codes(n, dim)
        out = np.full((m, n), -7, np.int32)
        zoo.mma(a, b, m, n, dim, out)
        np.testing.assert_array_equal(out, a.astype(np.int32) @ b.T.astype(np.int32))


def check_wgmma(zoo: Zoo) -> None:
    for width in (8, 16, 32, 64, 128, 256):  # each with another layout of shared memory
        for from_registers in (0, 1):
            m, n, dim = 128, width, 256
            a, b = _codes(m, dim), _codes(n, dim)
            out = np.full((m, n), -7, np.int32)
            zoo.wgmma(a, b, m, n, dim, width, from_registers, out)
            expected = a.astype(np.int32) @ b.T.astype(np.int32)
            np.testing.assert_array_equal(out, expected, err_msg=f"N={width} {from_registers=}")


def check_pair(zoo: Zoo) -> None:
    a, b = _codes(256, 128), _codes(32, 128)
    out = np.full((256, 32), -7, np.int32)
    zoo.pair(a, b, 256, out)
    np.testing.assert_array_equal(out, a.astype(np.int32) @ b.T.astype(np.int32))


def check_rounding(zoo: Zoo) -> None:
    rng = _rng()
    n = 40
    a, b, c = rng.standard_normal((3, n)) * 2.0 ** rng.integers(-20, 20, (3, n))
    c[::2] = -(a * b)[::2]  # what a fused multiply-add leaves is the rounding error alone
    a[:3], b[:3] = [1.0, 3.0, 1e-30], [2.0**-60, 7.0, 1e-12]
    out = np.zeros((24, n))
    zoo.rounding(a, b, c, n, out)
    expected = np.array([expected_rounding(*v) for v in zip(a, b, c, strict=True)]).T
    np.testing.assert_array_equal(out.view(np.uint64) << 1, expected.view(np.uint64) << 1)


def check_half(zoo: Zoo) -> None:
    bits = np.arange(65536, dtype=np.uint16)
    out = np.zeros((2, 65536), np.float32)
    zoo.half(bits, len(bits), out)
    np.testing.assert_array_equal(out[0], bits.view(np.float16).astype(np.float32))
    wide = (bits.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(out[1], wide)


def check_integer(zoo: Zoo) -> None:
    values = np.array([0.5, 1.5, -0.5, -2.5, 3.7, 1e20, -1e20, np.nan, 16777217], np.float32)
    out = np.zeros((3, len(values)), np.int32)
    zoo.integer(values, len(values), out)
    low, high = -(2**31), 2**31 - 1
    nearest = [0, 2, 0, -2, 4, high, low, 0, 16777216]
    assert out[0].tolist() == nearest
    assert out[1].tolist() == [0, 1, -1, -3, 3, high, low, 0, 16777216]
    thirds = np.array([int(v / 3) for v in nearest])  # towards zero, as C divides
    np.testing.assert_array_equal(out[2], thirds.astype(np.float32).view(np.int32))


CELLS = np.dtype(
    [(n, np.int32) for n in ("added", "largest", "smallest", "masked", "filled", "swapped")]
    + [("exchanged", np.uint32), ("float_sum", np.float32), ("double_sum", np.float64)]
    + [("wide_added", np.uint64), ("wide_largest", np.uint64)],
    align=True,
)


def check_atomics(zoo: Zoo) -> None:
    cells = np.zeros(1, CELLS)
    cells["masked"] = cells["swapped"] = -1
    n = 3 * 64
    zoo.atomics(cells, 3)
    mixed = np.arange(n) * 37 % 101
    expected = {
        "added": n * (n - 1) // 2,
        "largest": mixed.max(),
        "smallest": mixed.min() - 50,
        "masked": -(2**31),
        "filled": 2**31 - 1,
        "swapped": 7,
        "exchanged": 5,
        "float_sum": n / 2,
        "double_sum": n / 4,
        "wide_added": n << 33,
        "wide_largest": (n - 1) << 32,
    }
    for name, value in expected.items():
        assert cells[name][0] == value, (name, cells[name][0], value)


def check_launch_errors(zoo: Zoo) -> None:
    invalid_value, invalid_configuration = 1, 9
    assert zoo.call("launch_error", 0, 32, 0) == invalid_configuration  # no blocks
    assert zoo.call("launch_error", 1, 1025, 0) == invalid_configuration
    assert (
        zoo.call("launch_error", 1, 32, 50_000) == invalid_value
    )  # more than 48 KiB, not asked for


def check_relay(zoo: Zoo) -> None:
    turn, out = np.zeros(1, np.int32), np.zeros(70, np.int32)
    zoo.relay(70, turn, out)
    np.testing.assert_array_equal(out, np.cumsum(np.arange(70)))


def check_roles(zoo: Zoo) -> None:
    values = np.zeros((129, 4), np.int32)
    values = values.ravel()[-values.ctypes.data // 4 % 4 :][:512].reshape(128, 4)  # 16-byte aligned
    values[:] = _rng().integers(0, 1000, (128, 4))
    out = np.zeros(128, np.int32)
    zoo.roles(values, out)
    np.testing.assert_array_equal(out, values.sum(axis=1))


def check_device(zoo: Zoo) -> None:
    """The device is the one that ``FR_EMU_ARCH`` names."""
    major, minor, shared_optin = 75, 76, 97
    given = os.environ.pop("FR_EMU_ARCH", None)
    try:
        assert [zoo.call("attribute", a) for a in (major, minor)] == [9, 0]
        os.environ["FR_EMU_ARCH"] = "86"
        assert [zoo.call("attribute", a) for a in (major, minor)] == [8, 6]
        assert zoo.call("attribute", shared_optin) == 99 * 1024
    finally:
        os.environ.pop("FR_EMU_ARCH", None)
        if given is not None:
            os.environ["FR_EMU_ARCH"] = given


def check_stacks_are_reused(zoo: Zoo) -> None:
    """Launches, also from threads that come and go, map no memory that stays."""

    def n_mappings() -> int:
        return len(Path("/proc/self/maps").read_text().splitlines())

    check_votes(zoo)
    before = n_mappings()
    for _ in range(20):
        thread = threading.Thread(target=check_votes, args=(zoo,))
        thread.start()
        thread.join()
    # 20 blocks of 70 stacks with guard pages would be 2800 more; a sanitizer's threads take a few.
    assert n_mappings() < before + 500, (before, n_mappings())


def check_many_threads(zoo: Zoo) -> None:
    """Launches from several Python threads at the same time do not disturb each other."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for check in (check_sum, check_pipe, check_mma, check_votes):
                check(zoo)
        except BaseException as error:  # shown by the assertion below, in the main thread
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


CHECKS = {name.removeprefix("check_"): f for name, f in globals().items() if name[:6] == "check_"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", type=Path)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=", ".join(CHECKS))
    parser.add_argument("--plant", default="none", metavar="FAULT")
    arguments = parser.parse_args()
    zoo = Zoo(arguments.library.resolve())
    zoo.plant(arguments.plant)
    for name in arguments.checks or CHECKS:
        print(name, flush=True)
        CHECKS[name](zoo)


if __name__ == "__main__":
    main()
