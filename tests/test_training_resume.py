"""A run can be interrupted or killed at any step, and goes on to the same result."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fastretrieve.encoders.models.cnn import CnnEncoder
from fastretrieve.encoders.models.gan import GanEncoder
from fastretrieve.encoders.models.translator import TranslatorEncoder
from fastretrieve.training import CheckpointError
from fastretrieve.training.run import Run
from fastretrieve.training.stepping import Stepper
from training_helpers import fit, log_of, same_weights, small, without_times


def stopped_at(monkeypatch: pytest.MonkeyPatch, number: int, *, inside: bool = False) -> None:
    """From here on, a run is interrupted before its step ``number``, or in the middle of it."""
    step, owner = (Stepper.step, Stepper) if inside else (Run._step, Run)

    def interrupted(self: Any, *args: Any, **options: Any) -> Any:
        at = options["number"] if inside else self.progress.step
        if at == number and inside:
            next(iter(self.encoder.parameters())).data.add_(1.0)  # half of an update
        if at == number:
            raise KeyboardInterrupt
        return step(self, *args, **options)

    monkeypatch.setattr(owner, step.__name__, interrupted)


def test_equal_seeds_give_equal_weights_and_leave_the_callers_randomness_alone() -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    one, again, other = small(), small(), small()
    fit(one, seed=4)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(5)
    fit(again, seed=4)
    fit(other, seed=6)
    assert same_weights(one, again)
    assert not same_weights(one, other)


@pytest.mark.parametrize("step", [1, 6, 8, 15], ids=["first", "middle", "epoch end", "last"])
@pytest.mark.parametrize("cls", [CnnEncoder, GanEncoder, TranslatorEncoder])
def test_an_interrupted_run_goes_on_to_the_same_result(
    cls: type, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"batch_size": 8, "out": tmp_path / "broken"}
    config = {"latent": 4} if cls is GanEncoder else {}
    whole = small(cls, **config)
    expected = fit(whole, batch_size=8, out=tmp_path / "whole")
    with monkeypatch.context() as patch:
        stopped_at(patch, step)
        with pytest.raises(KeyboardInterrupt):
            fit(small(cls, **config), **options)
    assert (tmp_path / "broken" / "training" / "checkpoint.safetensors").is_file()
    resumed = small(cls, **config)
    found = fit(resumed, **options)
    assert same_weights(whole, resumed)
    assert without_times(found.epochs) == without_times(expected.epochs)
    assert [line["event"] for line in log_of(tmp_path / "broken")] == [
        "start",
        "epoch",
        "epoch",
        "end",
    ]
    assert not (tmp_path / "broken" / "training" / "checkpoint.safetensors").exists()


def test_an_interruption_amid_a_step_goes_back_to_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, resumed = small(), small()
    fit(whole, batch_size=8)
    with monkeypatch.context() as patch:
        stopped_at(patch, 11, inside=True)
        with pytest.raises(KeyboardInterrupt):
            fit(small(), batch_size=8, out=tmp_path)
    fit(resumed, batch_size=8, out=tmp_path)
    assert same_weights(whole, resumed)


KILLED = """
import sys
sys.path.insert(0, {tests!r})
from training_helpers import fit, small
fit(small(), n=256, epochs=4, batch_size=8, out={out!r}, checkpoint_seconds=0.0)
"""


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums of torch depend on how many threads share them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_killed_process_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    code = KILLED.format(tests=str(Path(__file__).parent), out=str(tmp_path))
    checkpoint = tmp_path / "training" / "checkpoint.safetensors"
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    deadline = time.monotonic() + 60
    while not checkpoint.is_file() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.is_file()
    resumed = fit(small(), n=256, epochs=4, batch_size=8, out=tmp_path, checkpoint_seconds=9.0)
    whole = small()
    expected = fit(whole, n=256, epochs=4, batch_size=8)
    assert same_weights(whole, resumed.encoder)
    assert without_times(resumed.epochs) == without_times(expected.epochs)


def test_a_checkpoint_of_another_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stopped_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            fit(small(), out=tmp_path, batch_size=8)
    with pytest.raises(CheckpointError, match="of another run"):
        fit(small(), out=tmp_path, batch_size=8, seed=1)
    path = tmp_path / "training" / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="cannot be read"):
        fit(small(), out=tmp_path, batch_size=8)
    fit(small(), out=tmp_path, batch_size=8, resume=False)


def stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint of a run that was interrupted."""
    with monkeypatch.context() as patch:
        stopped_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            fit(small(), out=folder, batch_size=8)
    return folder / "training" / "checkpoint.safetensors"


def with_header(data: bytes, **changes: str | None) -> bytes:
    """The file with other metadata."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] |= changes
    header["__metadata__"] = {n: v for n, v in header["__metadata__"].items() if v is not None}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "a bit of the weights": lambda d: d[:-100] + bytes([d[-100] ^ 1]) + d[-99:],
    "a bit of the header": lambda d: d.replace(b'"step', b'"stop', 1).replace(b"step", b"stop", 1),
    "cut short": lambda d: d[:-10],
    "empty": lambda d: b"",
    "other progress": lambda d: with_header(d, progress="{}"),
    "no checksum": lambda d: with_header(d, sha256=None),
    "no progress, as of old": lambda d: with_header(d, format_version="1", progress=None),
    "progress of another kind": lambda d: with_header(
        d, format_version="1", progress=json.dumps({"step": "many"})
    ),
    "progress of other fields": lambda d: with_header(
        d, format_version="1", progress=json.dumps({"steps": 1})
    ),
    "another tensor's name": lambda d: with_header(d, format_version="1").replace(
        b'"weights/', b'"weight_/', 1
    ),
    "optimizers of other tensors": lambda d: with_header(d, format_version="1").replace(
        b"optimizer/loss/0", b"optimizer/loss/x"
    ),
}


def test_a_damaged_checkpoint_names_itself_and_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stopped(tmp_path, monkeypatch)
    whole = path.read_bytes()
    for case, damage in DAMAGE.items():
        path.write_bytes(damage(whole))
        assert path.read_bytes() != whole
        with pytest.raises(CheckpointError, match="delete it, or start over") as caught:
            fit(small(), out=tmp_path, batch_size=8)
        assert str(path) in str(caught.value), case
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="is a link"):
        fit(small(), out=tmp_path, batch_size=8)


def test_a_checkpoint_from_before_there_were_checksums_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stopped(tmp_path, monkeypatch)
    path.write_bytes(with_header(path.read_bytes(), format_version="1", sha256=None))
    resumed, whole = small(), small()
    fit(resumed, out=tmp_path, batch_size=8)
    fit(whole, batch_size=8)
    assert same_weights(whole, resumed)
