"""``evaluate``: how well do vectors retrieve their class mates?

Vectors come from an encoder and a data set, or are given. ``fastretrieve`` itself searches, so the
figures are those of the exact ranking. ``ranking.py`` ranks, ``metrics.py`` defines the figures,
``report.py`` draws them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common.metric import Metric
from fastretrieve.data import Dataset, Skipped
from fastretrieve.encoders import as_encoder
from fastretrieve.evaluation.labelled import (
    Labelled,
    from_items,
    from_vectors,
    gallery_pair,
    is_vectors,
    open_parts,
)
from fastretrieve.evaluation.ranking import Ranking, rank_class_mates
from fastretrieve.evaluation.report import write_report

_N_BINS = 4  # quartiles, for a column with many numbers
_MANY_VALUES = 12
_FEWEST_QUERIES = 10  # of a class, for a figure of it that is not luck


@dataclass(frozen=True)
class Evaluation:
    """The figures, and what they were measured on."""

    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]]  # class -> metrics and "n_queries"
    by: dict[str, dict[str, dict[str, float]]]  # column -> value -> metrics and "n_queries"
    n_queries: int  # that were scored
    n_gallery: int
    n_unscored: int  # queries without a label, or without any item of their class in the gallery
    metric: str
    depth: int
    skipped: list[Skipped] = field(repr=False)
    neighbours: NDArray[np.int64] = field(repr=False)  # [n_queries, k], positions in the gallery
    rows: NDArray[np.int64] = field(repr=False)  # [n_queries], positions in the queries
    values: dict[str, NDArray[np.float64]] = field(repr=False)  # metric -> [n_queries]
    queries: Dataset | None = field(repr=False, default=None)
    gallery: Dataset | None = field(repr=False, default=None)

    def __getitem__(self, name: str) -> float:
        return self.metrics[name]

    def __str__(self) -> str:
        lines = [f"{self.n_queries} queries against {self.n_gallery} items, {self.metric}"]
        lines += [f"  {name:<14}{value:.4f}" for name, value in self.metrics.items()]
        if (worst := self.worst_class()) is not None:
            lines.append(f"  worst class   {worst[1]:.4f} (accuracy of {worst[0]})")
        for column, groups in self.by.items():
            lines.append(f"by {column}:")
            lines += [f"  {name}: {_in_brief(figures)}" for name, figures in groups.items()]
        if self.n_unscored:
            lines.append(f"{self.n_unscored} queries have no label or no class mate: not scored")
        if self.skipped:
            lines.append(f"{len(self.skipped)} items skipped, such as {self.skipped[0].reason}")
        return "\n".join(lines)

    def worst_class(self, name: str = "accuracy") -> tuple[str, float] | None:
        """The class with the lowest value of a metric, and that value; a mean hides it.

        Of classes with at least ten queries; None where fewer than two have so many.
        """
        known = {
            group: values[name]
            for group, values in self.per_class.items()
            if values["n_queries"] >= _FEWEST_QUERIES
        }
        if len(known) < 2:
            return None
        worst = min(known, key=lambda group: known[group])
        return worst, known[worst]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the arrays, for JSON."""
        return {
            "metrics": self.metrics,
            "per_class": self.per_class,
            "worst_class": self.worst_class(),
            "by": self.by,
            "n_queries": self.n_queries,
            "n_gallery": self.n_gallery,
            "n_unscored": self.n_unscored,
            "metric": self.metric,
            "depth": self.depth,
            "skipped": [skipped._asdict() for skipped in self.skipped],
        }

    def to_json(self, path: str | Path) -> None:
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", "utf-8")

    def report(self, path: str | Path, *, n_rows: int = 8, k: int = 8) -> None:
        """Write a report: ``.html`` with tables and pictures, ``.png`` with the pictures alone."""
        write_report(self, Path(path), n_rows=n_rows, k=k)


def evaluate(
    encoder_or_vectors: Any,
    dataset: Any = None,
    *,
    gallery: Any = None,
    labels: Any = None,
    split: str | None = None,
    k: int | Sequence[int] = (1, 5, 10),
    metric: Metric = "cosine",
    by: str | Sequence[str] = (),
    depth: int | None = None,
    device: str | None = None,
    batch_size: int = 256,
    workers: int | None = None,
) -> Evaluation:
    """Search for the class mates of every item and say how many come first.

    ``encoder_or_vectors`` is an encoder (or its name or directory) with a data set, or vectors
    [n, dim] with ``labels`` or a data set of the same length. ``gallery`` is what is searched: a
    data set, or ``(vectors, labels)``; without one, every item searches all others. Of files with
    splits (IDX, CIFAR, ...) the held-out one searches "train", unless ``split`` names one alone.
    ``by`` names columns of the data set to break the figures down by. ``depth`` cuts the ranking
    (the default is all of it: some 10 ms a query for 60,000 items); ``map`` and ``ndcg`` are then
    those at that depth, and ``map@r`` is left out where it would need more.

    >>> vectors = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], np.float32)
    >>> evaluate(vectors, labels=["a", "a", "b", "b"])["accuracy"]
    1.0
    """
    ks = sorted({int(each) for each in ([k] if isinstance(k, int) else k)})
    if not ks or ks[0] < 1:
        raise ValueError(f"k lists numbers of neighbours, at least 1 each, got {k}")
    if is_vectors(encoder_or_vectors):
        if split is not None:
            raise ValueError(f"split={split!r} chooses items of a data set, but vectors came")
        queries = from_vectors(
            encoder_or_vectors, dataset if labels is None else labels, name="vectors"
        )
        rows = queries if gallery is None else from_vectors(*gallery_pair(gallery), name="gallery")
    else:
        encoder = as_encoder(encoder_or_vectors, device=device)
        options = {"batch_size": batch_size, "workers": workers}
        dataset, searched = open_parts(dataset, labels, split, modality=encoder.modality)
        gallery = searched if gallery is None else gallery
        queries = from_items(encoder, dataset, **options)
        rows = queries if gallery is None else from_items(encoder, gallery, **options)
    ranking = rank_class_mates(
        queries,
        rows.relabel(queries.classes),
        alone=gallery is None,
        ks=ks,
        metric=metric,
        depth=depth,
    )
    return _evaluation(queries, rows, ranking, [by] if isinstance(by, str) else by)


def _evaluation(
    queries: Labelled, rows: Labelled, ranking: Ranking, columns: Sequence[str]
) -> Evaluation:
    scored, values = ranking.rows, ranking.values
    names = np.array([queries.classes[label] for label in queries.labels[scored]], object)
    return Evaluation(
        metrics=_means(values),
        per_class=_broken_down(values, names),
        by={name: _broken_down(values, _binned(queries.column(name)[scored])) for name in columns},
        n_queries=len(scored),
        n_gallery=len(rows),
        n_unscored=len(queries) - len(scored),
        metric=ranking.metric,
        depth=ranking.depth,
        skipped=[*queries.skipped, *(() if rows is queries else rows.skipped)],
        neighbours=ranking.neighbours,
        rows=scored,
        values=values,
        queries=queries.dataset,
        gallery=rows.dataset,
    )


def _in_brief(figures: Mapping[str, float]) -> str:
    shown = ", ".join(f"{name} {figures[name]:.4f}" for name in ("accuracy", "map"))
    return f"{shown} ({figures['n_queries']:.0f} queries)"


def _means(values: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    return {name: float(value.mean()) for name, value in values.items()}


def _broken_down(
    values: Mapping[str, NDArray[np.float64]], groups: NDArray[Any]
) -> dict[str, dict[str, float]]:
    """The metrics of each group of queries, in order of the group's name."""
    table = {}
    for name in sorted(set(groups.tolist()), key=str):
        mine = groups == name
        table[str(name)] = {"n_queries": float(mine.sum())} | _means(
            {metric: value[mine] for metric, value in values.items()}
        )
    return table


def _binned(column: NDArray[Any]) -> NDArray[Any]:
    """A column as groups: its values, or quarters of its range where it holds many numbers."""
    values = column.tolist()
    numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    present = [value for value in values if value is not None]
    groups = np.empty(len(values), object)
    if len(numbers) < len(present) or len(set(numbers)) <= _MANY_VALUES:
        groups[:] = ["(none)" if value in (None, "") else str(value) for value in values]
        return groups
    edges = np.quantile(numbers, np.linspace(0, 1, _N_BINS + 1))
    for i, value in enumerate(values):
        place = (
            min(int(np.searchsorted(edges, value, "right")) - 1, _N_BINS - 1)
            if value is not None
            else -1
        )
        groups[i] = "(none)" if place < 0 else f"{edges[place]:.4g} to {edges[place + 1]:.4g}"
    return groups
