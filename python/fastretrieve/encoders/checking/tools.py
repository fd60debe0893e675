"""The tools of the checks: the subject, comparisons, and global random state.

The checks are in ``promises.py``, ``travel.py`` and ``capabilities.py``.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastretrieve.data.samples import Sample

TOLERANCE = 1e-5  # by which an item's vector may depend on its batch, relative to the largest entry


class CheckFailed(AssertionError):
    """An encoder breaks a promise of the protocol."""


class CheckReached(BaseException):
    """A worker process has reached its check; no ``except Exception`` stops it."""


@dataclass
class Running:
    """How many checks this process has asked for."""

    n_checks: int = 0  # calls that ask for checks
    in_worker: bool = False  # it runs the main file of its parent ...
    last: int = 0  # ... as far as this call


running = Running()


@dataclass(frozen=True)
class Subject:
    """The encoder under check: how to make, feed and load it."""

    make: Callable[[], Any]  # a new encoder, fitted where it must be
    sample: Sample
    load: Callable[[Path], Any]
    steps: int


def require(condition: bool, message: str) -> None:
    if not condition:
        raise CheckFailed(message)


def vectors(encoder: Any, items: Any) -> NDArray[np.float32]:
    """``encode(preprocess(items))`` as an array."""
    return as_array(encoder.encode(encoder.preprocess(items)))


def as_array(value: Any) -> NDArray[Any]:
    return np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value)


def parts(batch: Any) -> list[NDArray[Any]]:
    """The arrays of a batch."""
    return [as_array(part) for part in (batch if isinstance(batch, (tuple, list)) else [batch])]


def same(a: NDArray[Any], b: NDArray[Any], *, tolerance: float = 0.0) -> bool:
    if a.shape != b.shape:
        return False
    return a.size == 0 or gap(a, b) <= tolerance * max(1.0, float(np.abs(a).max()))


def gap(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())


def modes(encoder: Any) -> list[bool]:
    if isinstance(encoder, torch.nn.Module):
        return [module.training for module in encoder.modules()]
    return []


def held_tensors(encoder: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor that the modules of an encoder hold, by parameter, buffer or attribute."""
    yield from encoder.named_parameters()
    yield from encoder.named_buffers()
    for name, module in encoder.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, torch.Tensor):
                yield f"{name}.{key}".lstrip("."), value


def random_states() -> dict[str, bytes]:
    """The global generators, as far as they are there."""
    states = {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": pickle.dumps(np.random.get_state()),  # noqa: NPY002, the global one is meant
        "random": pickle.dumps(random.getstate()),
    }
    if torch.cuda.is_available():
        states["torch.cuda"] = torch.cuda.get_rng_state().cpu().numpy().tobytes()
    return states


class RestoredRandomness:
    """The check itself may draw; the caller's generators come back."""

    def __enter__(self) -> None:
        self._torch = torch.get_rng_state()
        self._numpy = np.random.get_state()  # noqa: NPY002
        self._random = random.getstate()

    def __exit__(self, *_: object) -> None:
        torch.set_rng_state(self._torch)
        np.random.set_state(self._numpy)  # noqa: NPY002
        random.setstate(self._random)


@contextlib.contextmanager
def untouched_generators(what: str) -> Iterator[None]:
    """Fail where ``what``, which runs inside, changes a global generator.

    The generators start from a random seed: an encoder that seeds them with 0 on every call would
    pass otherwise.
    """
    with RestoredRandomness():
        seed = int.from_bytes(os.urandom(4), "little")
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        before = random_states()
        yield
        after = random_states()
    changed = [name for name, state in before.items() if after[name] != state]
    require(
        not changed,
        f"{what} changed the global random state of {', '.join(changed)}; use a generator of your "
        "own, or fastretrieve.encoders.base.seeded",
    )
