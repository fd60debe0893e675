"""The state of a run in one file, from which it goes on as if it had never stopped.

A safetensors file: weights, optimizers and best weights as tensors, everything else as JSON in its
header. It is written beside its name, flushed and renamed, so a kill leaves the one before.
Random numbers need no state: every step seeds them by its number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from fastretrieve.atomic import replacing

FORMAT_VERSION = "1"
_WEIGHTS, _BEST, _OPTIMIZER = "weights/", "best/", "optimizer/"


class CheckpointError(RuntimeError):
    """A checkpoint is damaged, or belongs to another run."""


@dataclass
class Progress:
    """Where a run is."""

    step: int = 0  # steps done
    epochs: list[dict[str, Any]] = field(default_factory=list)  # one entry for each epoch done
    sums: dict[str, float] = field(default_factory=dict)  # of this epoch's figures so far
    n_summed: int = 0
    best_epoch: int | None = None
    best_value: float | None = None
    n_stale: int = 0  # epochs since one was better than all before
    seconds: float = 0.0
    cpu_seconds: float = 0.0  # of all threads of this process


@dataclass
class State:
    """What a checkpoint holds."""

    progress: Progress
    weights: dict[str, torch.Tensor]
    best: dict[str, torch.Tensor]  # empty before the first epoch, and where the last one counts


def weights_of(encoder: Any) -> dict[str, torch.Tensor]:
    """The encoder's tensors by name; an encoder that is no torch module has parameters only."""
    if isinstance(encoder, torch.nn.Module):
        return {name: tensor.detach() for name, tensor in encoder.state_dict().items()}
    return {str(i): p.detach() for i, p in enumerate(encoder.parameters())}


@torch.no_grad()
def set_weights(encoder: Any, weights: Mapping[str, torch.Tensor]) -> None:
    """Copy the tensors into the encoder."""
    own = weights_of(encoder)
    if set(own) != set(weights):
        raise CheckpointError("the checkpoint holds other weights than this encoder has")
    for name, tensor in own.items():
        tensor.copy_(weights[name])


def write_checkpoint(
    path: Path,
    *,
    run: str,
    state: State,
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> None:
    tensors = {_WEIGHTS + name: tensor for name, tensor in state.weights.items()}
    tensors |= {_BEST + name: tensor for name, tensor in state.best.items()}
    tensors |= _optimizer_tensors(optimizers)
    header = {
        "format_version": FORMAT_VERSION,
        "run": run,
        "progress": json.dumps(asdict(state.progress)),
    }
    # Clones: safetensors refuses tensors that share memory.
    data = save({name: t.cpu().clone().contiguous() for name, t in tensors.items()}, header)
    with replacing(path) as file:
        file.write(data)


def read_checkpoint(
    path: Path, *, run: str, optimizers: Mapping[str, torch.optim.Optimizer]
) -> State | None:
    """The state to go on from (the optimizers are set to it), or None where there is no file."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); delete it, or train with resume=False"
        ) from error
    if header.get("format_version") != FORMAT_VERSION or header.get("run") != run:
        raise CheckpointError(
            f"{path} is the checkpoint of another run (other data, options or encoder); choose "
            "another folder, or start over with resume=False"
        )
    _set_optimizers(optimizers, tensors)
    return State(
        progress=Progress(**json.loads(header["progress"])),
        weights=_with_prefix(tensors, _WEIGHTS),
        best=_with_prefix(tensors, _BEST),
    )


def run_fingerprint(**facts: Any) -> str:
    """A hash of what makes two runs the same run."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _optimizer_tensors(
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> dict[str, torch.Tensor]:
    return {
        f"{_OPTIMIZER}{player}/{index}/{name}": torch.as_tensor(value)
        for player, optimizer in optimizers.items()
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }


def _set_optimizers(
    optimizers: Mapping[str, torch.optim.Optimizer], tensors: Mapping[str, torch.Tensor]
) -> None:
    for player, optimizer in optimizers.items():
        state: dict[int, dict[str, torch.Tensor]] = {}
        for path, tensor in _with_prefix(tensors, f"{_OPTIMIZER}{player}/").items():
            index, name = path.split("/")
            state.setdefault(int(index), {})[name] = tensor
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _with_prefix(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
