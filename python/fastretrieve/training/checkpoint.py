"""The state of a run in one file, from which the run resumes as if it had never stopped.

A safetensors file: weights, optimizers and best weights as tensors, everything else as JSON in its
header, with a SHA-256 of the whole file. It is written beside its name, flushed and renamed, so
a kill leaves the previous one. Random numbers need no state: every step seeds them by its number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from fastretrieve._common.atomic import replacing
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.saved.opening import brief, ordinary_file
from fastretrieve.encoders.saved.weights import entries_of

FORMAT_VERSION = "2"
_WITHOUT_SUM = "1"  # before the checksum; such a run can still be resumed
_NO_SUM = "0" * 64
_WEIGHTS, _BEST, _OPTIMIZER = "weights/", "best/", "optimizer/"


class CheckpointError(RuntimeError):
    """A checkpoint is damaged, or belongs to another run."""


@dataclass
class RunProgress:
    """How far a run is."""

    step: int = 0  # steps done
    epochs: list[dict[str, Any]] = field(default_factory=list)  # one entry for each epoch done
    sums: dict[str, float] = field(default_factory=dict)  # of this epoch's figures so far
    n_summed: int = 0
    best_epoch: int | None = None
    best_value: float | None = None
    start: dict[str, Any] = field(default_factory=dict)  # figures before the first step
    pace: dict[str, int] = field(default_factory=dict)  # threads, and whether bfloat16; or empty
    n_stale: int = 0  # epochs since the best one
    seconds: float = 0.0
    cpu_seconds: float = 0.0  # of all threads of this process


@dataclass
class RunState:
    """The content of a checkpoint."""

    progress: RunProgress
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
    for name, tensor in weights_of(encoder).items():
        tensor.copy_(weights[name])


def _refuse_other_weights(own: Mapping[str, torch.Tensor], found: Mapping[str, Any]) -> None:
    """Raise if tensors differ from the encoder's in name, shape or kind."""
    kinds = [
        {name: (t.shape, t.is_floating_point()) for name, t in tensors.items()}
        for tensors in (own, found)
    ]
    if kinds[0] != kinds[1]:
        raise ValueError("it holds other weights than this encoder has")


def write_checkpoint(
    path: Path,
    *,
    run: str,
    state: RunState,
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> None:
    tensors = {_WEIGHTS + name: tensor for name, tensor in state.weights.items()}
    tensors |= {_BEST + name: tensor for name, tensor in state.best.items()}
    tensors |= _optimizer_tensors(optimizers)
    header = {
        "format_version": FORMAT_VERSION,
        "run": run,
        "progress": json.dumps(asdict(state.progress)),
        "sha256": _NO_SUM,
    }
    # Clones: safetensors refuses tensors that share memory.
    data = save({name: t.cpu().clone().contiguous() for name, t in tensors.items()}, header)
    with replacing(path) as file:
        file.write(_summed(data, _NO_SUM))


def read_checkpoint(
    path: Path,
    *,
    run: str,
    encoder: Any,
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> RunState | None:
    """The state to go on from (the optimizers are set to it), or None where there is no file."""
    try:
        header, tensors = _read(path)
        if header.get("run") != run:
            raise CheckpointError(
                f"{path} is the checkpoint of another run (other data, options or encoder); choose "
                "another folder, or start over with resume=False (--fresh)"
            )
        weights, best = _with_prefix(tensors, _WEIGHTS), _with_prefix(tensors, _BEST)
        for found in (weights, best) if best else (weights,):
            _refuse_other_weights(weights_of(encoder), found)
        state = RunState(_progress(header), weights, best)
        _set_optimizers(optimizers, tensors)
        return state
    except FileNotFoundError:
        return None
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file can raise anything
        raise CheckpointError(
            f"{path} is damaged and cannot be read ({brief(error)}); delete it, or start over with "
            "resume=False (--fresh)"
        ) from error


def _read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Header and tensors of an ordinary file whose bytes are those that were written."""
    with ordinary_file(path) as file:
        entries_of(file, path)
        with safe_open(path, framework="pt") as tensors:
            header = tensors.metadata() or {}
            version = header.get("format_version")
            if version not in (FORMAT_VERSION, _WITHOUT_SUM):
                raise EncoderError(f"its format version is {version!r}, not {FORMAT_VERSION}")
            if version == FORMAT_VERSION:
                _verify(file, str(header.get("sha256")))
            return header, {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118


def _summed(data: bytes, placeholder: str) -> bytes:
    """The file with its SHA-256 in place of the placeholder over which it was taken."""
    at = data.index(placeholder.encode())
    digest = hashlib.sha256(data).hexdigest().encode()
    return data[:at] + digest + data[at + len(digest) :]


def _verify(file: IO[bytes], wanted: str) -> None:
    """Compare the bytes with their SHA-256."""
    file.seek(0)
    length = file.read(8)
    head = length + file.read(int.from_bytes(length, "little"))
    digest = hashlib.sha256(head.replace(wanted.encode(), _NO_SUM.encode(), 1))
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    if digest.hexdigest() != wanted:
        raise EncoderError(f"its SHA-256 is {digest.hexdigest()[:12]}..., not {wanted[:12]}...")


def _progress(header: dict[str, str]) -> RunProgress:
    """The progress in a header, with the type of every field checked."""
    progress = RunProgress(**json.loads(header["progress"]))
    counts = (progress.step, progress.n_summed, progress.n_stale, progress.best_epoch or 0)
    numbers = (progress.seconds, progress.cpu_seconds, progress.best_value or 0.0)
    if (
        not all(type(count) is int and count >= 0 for count in counts)
        or not all(isinstance(number, (int, float)) for number in numbers)
        or not isinstance(progress.epochs, list)
        or not all(isinstance(epoch, dict) for epoch in progress.epochs)
        or not isinstance(progress.start, dict)
        or not isinstance(progress.pace, dict)
        or set(progress.pace) not in (set(), {"threads", "bfloat16"})
        or not all(type(value) in (int, bool) and value < 1024 for value in progress.pace.values())
        or not isinstance(progress.sums, dict)
        or not all(isinstance(number, (int, float)) for number in progress.sums.values())
    ):
        raise ValueError("its progress is not what a run writes")
    return progress


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
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for path, tensor in _with_prefix(tensors, f"{_OPTIMIZER}{player}/").items():
            index, name = path.split("/")
            if tensor.ndim and tensor.shape != parameters[int(index)].shape:
                raise ValueError(f"{_OPTIMIZER}{player}/{path} has another shape than its weights")
            state.setdefault(int(index), {})[name] = tensor
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _with_prefix(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
