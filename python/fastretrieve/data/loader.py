"""Batches read ahead of the network, by threads or processes, in a fixed order.

A worker takes a whole batch: it reads the items, and calls the encoder's ``preprocess`` on them.
Pillow releases the interpreter's lock while it decodes and resizes, so threads are enough for image
files; processes help where ``preprocess`` is slow Python. Batches and their order do not depend on
the workers. An item that cannot be read is left out, counted and listed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve._backends.runtime import usable_cores
from fastretrieve.data.dataset import Dataset
from fastretrieve.data.errors import DataError, Skipped

Preprocess = Callable[[Any], Any]


class Loaded(NamedTuple):
    """A batch from ``preprocess``, and the items in it."""

    batch: Any
    labels: NDArray[np.int64]  # [n], -1 where an item has none
    rows: NDArray[np.int64]  # [n], positions in the data set


class Loader:
    """Reads a data set in batches.

    >>> from fastretrieve.data import open_dataset
    >>> data = open_dataset(np.arange(40, dtype=np.uint8).reshape(10, 2, 2))
    >>> with Loader(data, np.stack, batch_size=4) as loader:
    ...     [len(batch) for batch, labels, rows in loader]
    [4, 4, 2]
    """

    def __init__(
        self,
        dataset: Dataset,
        preprocess: Preprocess,
        *,
        batch_size: int = 256,
        workers: int | None = None,
        kind: Literal["thread", "process"] = "thread",
        size: int | None = None,
    ) -> None:
        """``size`` is the side images will be resized to, so that JPEGs decode at a reduced size.

        ``workers=0`` reads in the caller's thread; None takes one for each core, up to 8.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if kind not in ("thread", "process"):
            raise ValueError(f"kind must be 'thread' or 'process', got {kind!r}")
        self.dataset = dataset
        self.batch_size = batch_size
        self.workers = min(usable_cores(), 8) if workers is None else workers
        self.wait_seconds = 0.0  # how long the consumer waited for a batch
        self.total_seconds = 0.0  # from asking for the first batch to the end
        self._task = _BatchTask(dataset, preprocess, size)
        self._kind = kind
        self._pool: Executor | None = None
        self._skipped: dict[int, Skipped] = {}

    def __iter__(self) -> Iterator[Loaded]:
        return self.batches(np.arange(len(self.dataset)))

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def skipped(self) -> list[Skipped]:
        """The items that could not be read so far, in order of position, with reasons."""
        return [self._skipped[row] for row in sorted(self._skipped)]

    @property
    def wait_share(self) -> float:
        """The share of its time that the consumer spent waiting for data."""
        return self.wait_seconds / self.total_seconds if self.total_seconds else 0.0

    def batches(self, order: NDArray[np.int64] | Iterable[NDArray[np.int64]]) -> Iterator[Loaded]:
        """One pass: ``order`` is an array of positions, or one array for each batch."""
        parts = self._cut(order) if isinstance(order, np.ndarray) else order
        started = time.perf_counter()
        before = self.total_seconds
        results = map(self._task, parts) if self.workers == 0 else self._ahead(parts)
        while True:
            asked = time.perf_counter()
            result = next(results, None)
            now = time.perf_counter()
            self.wait_seconds += now - asked
            self.total_seconds = before + now - started
            if result is None:
                return
            loaded, skipped = result
            self._skipped.update(skipped)
            if loaded is not None:
                yield loaded

    def _cut(self, order: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size]

    def close(self) -> None:
        """Stop the workers; another pass would start new ones."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _ahead(self, order: Iterable[NDArray[np.int64]]) -> Iterator[_Result]:
        """Results in order, with two batches for each worker under way or waiting."""
        pool = self._pool = self._pool or self._make_pool()
        run = _run_in_process if self._kind == "process" else self._task
        pending: deque[Future[_Result]] = deque()
        try:
            for rows in order:
                pending.append(pool.submit(run, rows))
                if len(pending) > 2 * self.workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:  # the consumer stopped early, or a batch failed
                future.cancel()

    def _make_pool(self) -> Executor:
        if self._kind == "thread":
            return ThreadPoolExecutor(self.workers, thread_name_prefix="fastretrieve-loader")
        # Spawned, not forked: a fork copies locks that torch's threads may hold.
        return ProcessPoolExecutor(
            self.workers,
            mp_context=get_context("spawn"),
            initializer=_start_process,
            initargs=(self._task,),
        )


_Result = tuple[Loaded | None, dict[int, Skipped]]


class _BatchTask:
    """Reads the items of one batch and preprocesses them, in a worker."""

    def __init__(self, dataset: Dataset, preprocess: Preprocess, size: int | None) -> None:
        self.dataset, self.preprocess, self.size = dataset, preprocess, size

    def __call__(self, rows: NDArray[np.int64]) -> _Result:
        skipped: dict[int, Skipped] = {}
        items = self.dataset.read_many(rows)
        if items is None:
            items, rows = self._read(rows, skipped)
        if len(rows) == 0:
            return None, skipped
        try:
            batch = self.preprocess(items)
        except (ValueError, TypeError) as error:
            good = self._sift(items, rows, skipped)
            if not good:
                return None, skipped
            if len(good) == len(rows):
                raise DataError(
                    f"preprocess takes these {len(rows)} items one by one but not together: {error}"
                ) from error
            rows = rows[good]
            batch = self.preprocess([items[i] for i in good])
        return Loaded(batch, self.dataset.labels[rows], rows), skipped

    def _read(
        self, rows: NDArray[np.int64], skipped: dict[int, Skipped]
    ) -> tuple[list[Any], NDArray[np.int64]]:
        items, kept = [], []
        for row in rows.tolist():
            try:
                items.append(self.dataset.read(row, size=self.size))
                kept.append(row)
            except DataError as error:
                skipped[row] = Skipped(self.dataset.key(row), str(error))
        return items, np.array(kept, np.int64)

    def _sift(self, items: Any, rows: NDArray[np.int64], skipped: dict[int, Skipped]) -> list[int]:
        """Which items ``preprocess`` takes alone; the others are skipped with its reason."""
        good = []
        for i, row in enumerate(rows.tolist()):
            try:
                self.preprocess(items[i : i + 1])
                good.append(i)
            except (ValueError, TypeError) as error:
                skipped[row] = Skipped(self.dataset.key(row), str(error))
        return good


def longest_side(encoder: Any) -> int | None:
    """The side to which an encoder resizes images; they may be decoded that small.

    >>> from fastretrieve import create_encoder
    >>> longest_side(create_encoder("pixels", image_size=(48, 64)))
    64
    """
    return max(getattr(encoder, "image_size", None) or (0,)) or None


_process_task: _BatchTask | None = None


def _start_process(task: _BatchTask) -> None:
    global _process_task
    _process_task = task


def _run_in_process(rows: NDArray[np.int64]) -> _Result:
    if _process_task is None:
        raise RuntimeError("a loader's worker process was not initialised")
    return _process_task(rows)
