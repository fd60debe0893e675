"""The picture of ``bench_recall.py``: recall against queries a second, one panel a case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastretrieve.benchmarking.plots import INK, LIMIT_COLOUR, OUR_COLOUR

SCAN, EXACT = "fastretrieve, scan", "fastretrieve, exact"
RATE = "queries_per_second"
LOWEST = 0.7  # recall that is shown
PEER_COLOURS = ("#c2571a", "#4c6fb1", "#8250a0", "#b58900", "#c0392b", "#7f5539")

Point = Mapping[str, Any]


def rate_at(points: Sequence[Point], recall: float) -> float | None:
    """The best rate with at least this recall."""
    return max((point[RATE] for point in points if point["recall"] >= recall), default=None)


def frontier(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in both ways, by recall."""
    best = [point for point in points if rate_at(points, point["recall"]) == point[RATE]]
    return sorted(best, key=lambda point: point["recall"])


def draw(cases: Mapping[str, Mapping[str, Any]], path: Path, *, batch: int) -> None:
    """Write the picture of all cases."""
    if not cases:
        return
    columns = min(3, len(cases))
    lines = -(-len(cases) // columns)
    figure = Figure(figsize=(5 * columns, 3.9 * lines + 0.6), dpi=144, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flat
    names: dict[str, str] = {}  # of peers, and their colours
    for axes, (name, case) in zip(panels, cases.items(), strict=False):
        for contender in case["contenders"]:
            points = [point for point in contender["points"] if point["batch"] == batch]
            _line(axes, contender["name"], points, names)
        axes.set(yscale="log", xlim=(LOWEST, 1.015), xlabel="recall@10")
        axes.set_ylabel("queries a second")
        title = f"{name}: {case['n_rows']:,} x {case['dim']}, {case['metric']}"
        axes.set_title(title, loc="left", color=INK, fontsize=10)
        axes.grid(which="major", color="#d0d7de", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in list(figure.axes)[len(cases) :]:
        axes.set_visible(False)
    shown = {}
    for axes in figure.axes:
        lines_of, labels = axes.get_legend_handles_labels()
        shown.update(zip(labels, lines_of, strict=True))
    where = {"loc": "outside lower center", "ncols": 2 * columns}
    figure.legend(shown.values(), shown, **where, frameon=False, fontsize=8)
    figure.suptitle(f"One thread, batch {batch}, k=10", x=0.01, ha="left", color=INK, fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _line(axes: Axes, name: str, points: Sequence[Point], names: dict[str, str]) -> None:
    """One contender: an exact one is a mark at the right edge."""
    best = frontier(points)
    x, y = [point["recall"] for point in best], [point[RATE] for point in best]
    style: dict[str, Any] = {"marker": "o", "markersize": 3.5, "linewidth": 1.3}
    if name == SCAN:
        style |= {"color": LIMIT_COLOUR, "marker": "D", "markersize": 6, "linestyle": "none"}
    elif name == EXACT:
        style |= {"color": OUR_COLOUR, "marker": "*", "markersize": 13, "linestyle": "none"}
    elif name.startswith("fastretrieve"):
        dashed = "-" if "recall" in name else "--"
        style |= {"color": OUR_COLOUR, "linewidth": 2, "linestyle": dashed}
    else:
        colour = names.setdefault(name, PEER_COLOURS[len(names) % len(PEER_COLOURS)])
        style |= {"color": colour}
    axes.plot(x, y, label=name, **style)
