"""Write the folder of a run: a log, curves, and sheets of the encoder's drawings.

``log.jsonl`` has a line for the start, one for each epoch, and one for the end. It is rewritten
each time from the state of the run, so a resumed run has neither gaps nor doubles.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fastretrieve._common.atomic import replacing
from fastretrieve.data.modalities import kind_of
from fastretrieve.encoders.base import move_batch, take_batch
from fastretrieve.encoders.protocol import Batch
from fastretrieve.training.pictures import draw_curves, draw_sheet

_SHEET_ROWS, _SHEET_COLUMNS = 4, 8
_TRANSLATED = 12  # columns of a sheet of originals and translations
_SHEET_SEED = 0  # one seed for all sheets: the same latents, epoch after epoch


class Journal:
    """Writes into ``folder``; without one it writes nothing."""

    def __init__(self, folder: Path | None, *, start: Mapping[str, Any]) -> None:
        self.folder, self.start = folder, dict(start)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def write(self, epochs: Sequence[Mapping[str, Any]], *, end: Mapping[str, Any] | None) -> None:
        """The log and the curves so far."""
        if self.folder is None:
            return
        lines = [{"event": "start", **self.start}]
        lines += [{"event": "epoch", **epoch} for epoch in epochs]
        lines += [{"event": "end", **end}] if end is not None else []
        with replacing(self.folder / "log.jsonl") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines).encode())
        if epochs:
            draw_curves(self.folder / "curves.png", panels_of(epochs))

    def sheet(self, encoder: Any, probe: Batch | None, *, epoch: int) -> None:
        """Draw samples, and originals above their reconstructions or translations, as far as the
        encoder can.
        """
        if self.folder is None or not kind_of(encoder.modality).is_picture:
            return
        if "generate" in encoder.capabilities:
            drawn = encoder.generate(_SHEET_ROWS * _SHEET_COLUMNS, seed=_SHEET_SEED)
            draw_sheet(self.folder / f"samples-{epoch:04d}.png", list(drawn.split(_SHEET_COLUMNS)))
        if "reconstruct" in encoder.capabilities and probe is not None:
            originals = take_batch(probe, slice(0, _SHEET_COLUMNS))
            device = getattr(encoder, "device", torch.device("cpu"))
            rebuilt = encoder.reconstruct(move_batch(originals, device))
            draw_sheet(
                self.folder / f"rebuilt-{epoch:04d}.png", [torch.as_tensor(originals), rebuilt]
            )
        if "translate" in encoder.capabilities and probe is not None:
            shown = [probe[i : i + _TRANSLATED] for i in (0, _TRANSLATED)]
            rows = [row for row in shown if len(row)]
            pairs = [[row, torch.as_tensor(encoder.translate(row))] for row in rows]
            draw_sheet(self.folder / f"translated-{epoch:04d}.png", [r for p in pairs for r in p])


def panels_of(epochs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """The figures of the epochs as curves: losses in one, shares of 1 in the other."""
    panels: dict[str, dict[str, list[float]]] = {"losses": {}, "shares": {}}
    skipped = ("epoch", "seconds", "cpu_seconds", "lr", "wait_share")
    for epoch in epochs:
        for name, value in epoch.items():
            if name in skipped or not isinstance(value, (int, float)):
                continue
            is_share = any(word in name for word in ("recall", "precision", "accuracy"))
            panels["shares" if is_share else "losses"].setdefault(name, []).append(float(value))
    return panels
