"""Files appear whole or not at all, errors say which, and killed writers leave nothing for good."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastretrieve as fr
from fastretrieve._common.atomic import replacing

WRITES_FOREVER = """
import sys, time
from fastretrieve._common.atomic import replacing
with replacing(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    time.sleep(600)
"""


def put(path: Path, data: bytes) -> None:
    with replacing(path) as file:
        file.write(data)


def left_by_a_killed_writer(path: Path) -> Path:
    before = set(path.parent.iterdir())
    command = [sys.executable, "-c", WRITES_FOREVER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.kill()
    (left,) = set(path.parent.iterdir()) - before
    return left


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    target = tmp_path / "a.index"
    left = left_by_a_killed_writer(target)
    assert left.name.startswith(".a.index.")
    assert left.name.endswith(".tmp")
    put(tmp_path / "a", b"of another name")
    assert left.exists()
    put(target, b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.index"]


def test_a_living_writer_keeps_its_file(tmp_path: Path) -> None:
    target = tmp_path / "a"
    with replacing(target) as file:
        file.write(b"slow")
        put(target, b"quick")
        assert target.read_bytes() == b"quick"
    assert target.read_bytes() == b"slow"
    assert list(tmp_path.iterdir()) == [target]


def test_what_only_looks_like_a_temporary_file_stays(tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "a", tmp_path / "elsewhere"
    elsewhere.write_bytes(b"mine")
    (tmp_path / ".a.0123abcd.tmp").symlink_to(elsewhere)
    (tmp_path / ".a.0123abce.tmp").mkdir()
    os.mkfifo(tmp_path / ".a.0123abcf.tmp")
    (tmp_path / ".a.b.0123abcd.tmp").write_bytes(b"of a.b")
    (tmp_path / ".a.notes.tmp").write_bytes(b"of the user")
    before = set(tmp_path.iterdir())
    put(target, b"whole")
    assert set(tmp_path.iterdir()) == before | {target}
    assert elsewhere.read_bytes() == b"mine"


def test_without_locks_files_are_written_and_none_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = left_by_a_killed_writer(tmp_path / "a")

    def refuses(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuses)
    put(tmp_path / "a", b"whole")
    assert set(tmp_path.iterdir()) == {left, tmp_path / "a"}


def test_a_file_swept_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locks, n = fcntl.flock, 0

    def late(handle: int, how: int) -> None:
        nonlocal n
        n += 1
        if n == 1:  # another writer came first: it holds the lock and removes the file
            (new,) = tmp_path.iterdir()
            new.unlink()
            raise BlockingIOError
        if n == 2:  # it has been and gone
            (new,) = tmp_path.iterdir()
            new.unlink()
        locks(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    put(tmp_path / "a", b"whole")
    assert n == 3
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_savers_killed_at_any_moment_leave_a_whole_file_and_nothing_else(tmp_path: Path) -> None:
    index = fr.Index(16)
    index.add(np.random.default_rng(0).standard_normal((20_000, 16)).astype(np.float32))
    path, chance = tmp_path / "a", random.Random(0)
    index.save(path)
    n_left = n_killed = 0
    while n_killed < 25 or (n_left == 0 and n_killed < 1000):  # a busy machine starts children late
        n_killed += 1
        child = os.fork()
        if child == 0:
            try:
                while True:
                    index.save(path)
            finally:
                os._exit(1)
        time.sleep(chance.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        n_left += len(list(tmp_path.iterdir())) - 1
        assert len(fr.Index.load(path, verify=True)) == 20_000
    assert n_left  # else no child was killed at work
    index.save(path)
    assert list(tmp_path.iterdir()) == [path]


def fails(call: str, monkeypatch: pytest.MonkeyPatch, when: Callable[..., bool]) -> None:
    """Let a function of ``os`` fail where ``when`` says so."""
    works = getattr(os, call)

    def sometimes(*arguments: Any) -> Any:
        if when(*arguments):
            raise OSError(errno.EIO, "Input/output error")
        return works(*arguments)

    monkeypatch.setattr(os, call, sometimes)


def is_folder(handle: int) -> bool:
    return os.path.isdir(f"/proc/self/fd/{handle}")


def test_nothing_was_written_is_said_only_where_nothing_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a"
    put(target, b"old")
    for call, when in (
        ("fsync", lambda handle: not is_folder(handle)),
        ("replace", lambda *_: True),
    ):
        with monkeypatch.context() as patch:
            fails(call, patch, when)
            with pytest.raises(OSError, match=f"error: nothing was written, {target} is as it was"):
                put(target, b"new")
        assert target.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [target]
    fails("fsync", monkeypatch, is_folder)
    with pytest.raises(OSError, match=f"error: {target} was written and is whole, but the disk"):
        put(target, b"new")
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


def test_permissions_are_those_of_the_file_or_of_any_new_one(tmp_path: Path) -> None:
    target, before = tmp_path / "a", os.umask(0o027)
    try:
        with replacing(target):
            (beside,) = tmp_path.iterdir()
            assert beside.stat().st_mode & 0o777 == 0o640
        target.chmod(0o604)
        with replacing(target):
            (beside,) = set(tmp_path.iterdir()) - {target}
            assert beside.stat().st_mode & 0o777 == 0o604
        assert target.stat().st_mode & 0o777 == 0o604
    finally:
        os.umask(before)


@pytest.mark.parametrize("name", ["n" * 255, "ä" * 127, os.fsdecode(b"\xff" * 250)])
def test_the_longest_names_can_be_written(name: str, tmp_path: Path) -> None:
    put(tmp_path / name, b"whole")
    assert (tmp_path / name).read_bytes() == b"whole"
