"""The benchmarks beside the search: adding rows, what they weigh, and ``fr.normalize``."""

from collections.abc import Callable
from functools import partial

import numpy as np

import fastretrieve as fr
from fastretrieve.benchmarking import oracle
from fastretrieve.benchmarking.cases import Case, Matrix
from fastretrieve.benchmarking.measure import OURS, Contender, Measurement, Settings, contenders
from fastretrieve.benchmarking.peers import version_of
from fastretrieve.benchmarking.timing import interleave

CHECKED_ROWS = 256


def add_rows(case: Case, rows: Matrix) -> fr.Index:
    """A new index that holds ``rows`` and can be searched."""
    index = fr.Index(rows.shape[1], metric=case.metric)
    index.add(rows)
    return index


def bench_add(case: Case, rows: Matrix, settings: Settings) -> Measurement:
    """Making an index and adding all rows, and the bytes it then holds."""
    n_rows, dim = rows.shape
    fr.set_num_threads(settings.threads)

    index = add_rows(case, rows)
    if len(index) != n_rows:
        raise oracle.WrongAnswer(f"added {n_rows} rows, the index has {len(index)}")
    figures = {"bytes": float(index.nbytes), "bytes_ratio": index.nbytes / rows.nbytes}
    del index
    calls: dict[str, Callable[[], object]] = {OURS: partial(add_rows, case, rows)}
    if "faiss" in settings.peers and version_of("faiss-cpu"):
        import faiss

        def add_to_faiss() -> None:
            faiss.IndexFlatIP(dim).add(rows)

        calls["faiss"] = add_to_faiss
    timings = interleave(calls, seconds=settings.seconds)
    figures["rows_per_second"] = n_rows / timings[OURS].median
    return _result("add", case, rows, settings, contenders(timings, {}), figures)


def bench_normalize(case: Case, rows: Matrix, settings: Settings) -> Measurement:
    """``fr.normalize`` beside ``torch.nn.functional.normalize`` on the same array."""
    fr.set_num_threads(settings.threads)
    check_normalized(rows, np.asarray(fr.normalize(rows)))
    calls: dict[str, Callable[[], object]] = {OURS: lambda: fr.normalize(rows)}
    if "torch" in settings.peers and version_of("torch"):
        import torch

        tensor = torch.from_numpy(rows)

        def normalize_with_torch() -> object:
            torch.set_num_threads(settings.threads)
            return torch.nn.functional.normalize(tensor)

        calls["torch"] = normalize_with_torch
    timings = interleave(calls, seconds=settings.seconds)
    figures = {"gigabytes_per_second": 2e-9 * rows.nbytes / timings[OURS].median}
    return _result("normalize", case, rows, settings, contenders(timings, {}), figures)


def check_normalized(rows: Matrix, normalized: Matrix) -> None:
    """Raise ``WrongAnswer`` unless some of the rows have the bits of the definition."""
    some = np.unique(np.linspace(0, len(rows) - 1, CHECKED_ROWS).astype(np.int64))
    wide = rows[some].astype(np.float64)
    norms = np.sqrt(oracle.lane_sum(wide * wide))[:, None]
    expected = np.divide(wide, norms, out=np.zeros_like(wide), where=norms > 0).astype(np.float32)
    if not np.array_equal(normalized[some], expected):
        raise oracle.WrongAnswer("fr.normalize differs from float32(float64(x) / norm)")


def _result(
    operation: str,
    case: Case,
    rows: Matrix,
    settings: Settings,
    measured: list[Contender],
    figures: dict[str, float],
) -> Measurement:
    return Measurement(
        operation=operation,
        case=case.name,
        metric=case.metric,
        n_rows=len(rows),
        dim=rows.shape[1],
        n_queries=0,
        k=0,
        threads=settings.threads,
        contenders=measured,
        figures=figures,
    )
