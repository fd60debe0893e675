"""Draw latency against rows under the machine's roofline (matplotlib: the extra ``plot``)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastretrieve._common.needs import wanting
from fastretrieve.benchmarking.measure import OURS, Measurement

INK, OUR_COLOUR, PEER_COLOUR, LIMIT_COLOUR = "#24292f", "#0b6e4f", "#c2571a", "#8c959f"


class PlotUnavailable(Exception):
    """Nothing to draw with, or nothing to draw."""


def draw_sweep(results: Sequence[Measurement], path: Path, *, caption: str) -> None:
    """Write the picture of the sweep in ``results``; the name's ending chooses PNG, SVG or PDF."""
    sweep = sorted((r for r in results if r.operation == "sweep"), key=lambda r: r.n_rows)
    if not sweep:
        raise PlotUnavailable("these results hold no sweep over rows; run the gaussian case")
    with wanting("plot", "a picture", error=PlotUnavailable):
        from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.6), dpi=144, layout="constrained")
    axes = figure.subplots()
    floor = _roofline(axes, sweep)
    _line(axes, sweep, OURS, OUR_COLOUR)
    if all(result.best_peer() for result in sweep):
        _line(axes, sweep, "", PEER_COLOUR)
    axes.set(xscale="log", yscale="log", xlabel="rows", ylabel="one query, ms")
    axes.set_ylim(bottom=min(floor[1], sweep[0].ours.median_ms) / 2)
    axes.set_title(
        f"Exact search, one query, dimension {sweep[0].dim}, k={sweep[0].k}, "
        f"{sweep[0].threads} threads",
        loc="left",
        color=INK,
        fontsize=11,
    )
    axes.grid(which="major", color="#d0d7de", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
    figure.text(0.995, 0.005, caption, ha="right", va="bottom", fontsize=7, color=LIMIT_COLOUR)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _roofline(axes, sweep: Sequence[Measurement]) -> list[float]:  # type: ignore[no-untyped-def]
    """Draw how long reading the codes alone takes, in milliseconds; return that for each size."""
    rows = [result.n_rows for result in sweep]
    read_rate = float(np.median([result.figures["read_rate"] for result in sweep]))
    floor = [result.figures["scanned_bytes"] / read_rate * 1e3 for result in sweep]
    axes.fill_between(rows, floor, 1e-6, color=LIMIT_COLOUR, alpha=0.25, linewidth=0)
    axes.plot(rows, floor, color=LIMIT_COLOUR, linestyle="--", linewidth=1.2)
    axes.annotate(
        f"codes at {read_rate / 1e9:.0f} GB/s",
        (rows[-2], floor[-2]),
        (6, -14),
        textcoords="offset points",
        color=INK,
        fontsize=9,
    )
    return floor


def _line(axes, sweep: Sequence[Measurement], name: str, colour: str) -> None:  # type: ignore[no-untyped-def]
    who = [r.ours if name == OURS else r.best_peer() for r in sweep]
    known = [c for c in who if c is not None]
    low_high = [[c.p10_ms for c in known], [c.p90_ms for c in known]]
    rows = [r.n_rows for r in sweep]
    label = name or f"{known[0].name.split(' x')[0]} (the better of 1 and 2 threads)"
    axes.fill_between(rows, *low_high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(
        rows, [c.median_ms for c in known], color=colour, marker="o", markersize=4, label=label
    )
