"""The worker process of the check "workers": it gets a pickled encoder and items, and encodes them.

multiprocessing would run the main file anew in the worker, and fail where that calls
``check_encoder`` without ``if __name__ == "__main__":``. This worker runs it too, if the encoder's
class is in it, but only as far as that call: what the encoder needs is defined above.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import tempfile
import traceback
import types
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve.encoders import one_off
from fastretrieve.encoders.checking.tools import CheckFailed, CheckReached, parts, running, vectors

_SECONDS = 600.0  # after which a worker hangs
_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from fastretrieve.encoders.checking.worker import work; work(sys.argv[2])"
)


class _Task(NamedTuple):
    packed: bytes  # the encoder and its items
    main: str | None  # the file of the parent's main module, where the encoder's class is in it
    package: str | None
    argv: list[str]
    n_checks: int  # that the parent's main file has asked for
    named: list[str]  # files that the parent has run as one-off encoders


def encoded_elsewhere(packed: bytes) -> tuple[list[NDArray[Any]], NDArray[np.float32]]:
    """The batch and the vectors that a new process makes of a pickled encoder and its items."""
    task = _task(packed)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "task").write_bytes(pickle.dumps(task))
        try:
            done = subprocess.run(
                [sys.executable, "-c", _CODE, json.dumps(sys.path), folder],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise CheckFailed(f"a worker process had no result after {_SECONDS:g} s") from None
        answer = Path(folder) / "answer"
        if done.returncode != 0 or not answer.is_file():
            last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            hint = f"; it ran {task.main} as far as the check" if task.main else ""
            raise CheckFailed(f"the encoder fails in a worker process: {last}{hint}")
        batch, found = pickle.loads(answer.read_bytes())  # of our own worker
        return batch, found


def _task(packed: bytes) -> _Task:
    main, package = None, None
    if b"__main__" in packed:
        module = sys.modules["__main__"]
        main, package = getattr(module, "__file__", None), getattr(module, "__package__", None)
        if main is None or not Path(main).is_file():
            raise CheckFailed(
                "the encoder's class is defined in an interactive session, where no worker process "
                "can find it; write it into a file and import it from there"
            )
        main = str(Path(main).resolve())
    return _Task(packed, main, package, sys.argv, running.n_checks, one_off.named_files())


def work(folder: str) -> None:
    """The main function of the worker process."""
    task: _Task = pickle.loads((Path(folder) / "task").read_bytes())  # of our own parent
    one_off.also_named(task.named)
    sys.argv = task.argv
    try:
        if task.main is not None:
            _run_main(task.main, task.package, task.n_checks)
        encoder, items = pickle.loads(task.packed)
        answer = parts(encoder.preprocess(items)), vectors(encoder, items)
    except BaseException:
        traceback.print_exc()
        sys.exit(1)
    (Path(folder) / "answer").write_bytes(pickle.dumps(answer))


def _run_main(path: str, package: str | None, n_checks: int) -> None:
    """Run the parent's main file under the name that multiprocessing gives it, up to the check."""
    module = types.ModuleType("__mp_main__")
    module.__file__, module.__package__ = path, package
    _kept.append(sys.modules["__main__"])
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
    running.in_worker, running.last = True, n_checks
    try:
        exec(compile(Path(path).read_bytes(), path, "exec"), module.__dict__)
    except CheckReached:
        pass
    finally:
        running.in_worker = False


_kept: list[types.ModuleType] = []  # a module without references loses its names
