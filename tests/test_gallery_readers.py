"""Readers that may not write the folder miss no commit, whoever writes or was killed meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastretrieve.gallery import Gallery, GalleryError
from fastretrieve.gallery.store import access
from gallery_helpers import busy_writer, new_gallery, picture

pytestmark = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="becomes another user"
)
NOBODY = 65534

LOOK = """
import json, os, sys, tempfile
from fastretrieve.gallery import Gallery, GalleryError
with tempfile.TemporaryDirectory() as folder:  # what is imported later may be out of reach
    with Gallery.create(folder + "/g", encoder="pixels", image_size=8) as first:
        first.check(), first.items(), str(first.encoder)
os.setgid(65534); os.setuid(65534)
assert not os.access(sys.argv[1], os.W_OK)
gallery = None
for line in sys.stdin:
    try:
        gallery = gallery or Gallery.open(sys.argv[1])
        found = gallery.check() if line == "check\\n" else len(gallery.items())
    except GalleryError as error:
        gallery, found = None, f"error: {error}"
    print(json.dumps(found), flush=True)
"""


class Nobody:
    """A process of another user that looks at a gallery when it is asked to."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", LOOK, str(path)], stdin=-1, stdout=-1, text=True
        )

    def ask(self, what: str = "count") -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def path() -> Iterator[Path]:
    """A gallery of five pictures that everybody can read, and root write."""
    # Not below pytest's own folder, which each run of pytest closes to others.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with new_gallery(Path(folder, "g")) as made:
            made.add([picture(i) for i in range(5)])
        yield Path(folder, "g")


@pytest.fixture
def nobody(path: Path) -> Iterator[Nobody]:
    made = Nobody(path)
    yield made
    made.end()


def killed_writer(path: Path, first: int, n: int) -> None:
    """Commit so many pictures and die before the log is written into the database."""
    code = """
        import os, sys
        sys.path.insert(0, sys.argv[1])
        from gallery_helpers import picture
        from fastretrieve.gallery import Gallery
        from fastretrieve.gallery.intake import comparing
        from fastretrieve.gallery.store.writing import Writer
        commit = Writer.commit
        def commit_and_die(self, change):
            commit(self, change)
            os.kill(os.getpid(), 9)
        Writer.commit = commit_and_die
        first, n = int(sys.argv[3]), int(sys.argv[4])
        Gallery.open(sys.argv[2]).add([picture(i) for i in range(first, first + n)])
    """
    arguments = [str(Path(__file__).parent), str(path), str(first), str(n)]
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), *arguments], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (path / "items.sqlite-wal").stat().st_size > 0


def test_nothing_is_missed_beside_a_writer_that_comes_and_goes(path: Path, nobody: Nobody) -> None:
    assert nobody.ask() == 5  # there is no log
    with Gallery.open(path) as writer:
        for number in range(6, 12):
            writer.add(picture(number))
            assert nobody.ask() == number
        with writer._storage.writing():  # the log is there, and empty
            assert nobody.ask() == 11
    assert nobody.ask() == 11
    assert nobody.ask("check") == []
    with Gallery.open(path) as writer:
        writer.remove(1)
    assert nobody.ask() == 10


def test_what_a_killed_writer_committed_is_found(path: Path, nobody: Nobody) -> None:
    assert nobody.ask() == 5
    killed_writer(path, 10, 3)
    assert nobody.ask() == 8
    late = Nobody(path)
    assert late.ask() == 8
    assert late.ask("check") == []
    late.end()
    with Gallery.open(path) as writer:  # takes the log into the database
        writer.add(picture(99))
    assert nobody.ask() == 9


def test_a_log_without_shared_memory_is_an_error_and_never_less(path: Path, nobody: Nobody) -> None:
    killed_writer(path, 10, 3)
    (path / "items.sqlite-shm").unlink()
    assert "user 65534 cannot read, who may not write" in nobody.ask()
    assert "user 65534 cannot read, who may not write" in nobody.ask("check")
    with Gallery.open(path) as opened:
        assert len(opened) == 8
    killed_writer(path, 20, 1)
    (path / "items.sqlite-shm").chmod(0o600)
    assert "cannot be opened" in nobody.ask()


def test_a_busy_writer_of_another_user_never_looks_malformed(path: Path) -> None:
    writer = busy_writer(path, removes=False)
    readers = [Nobody(path) for _ in range(2)]
    try:
        end, found = time.monotonic() + 4, [5]
        while time.monotonic() < end or found[-1] < 9:
            assert writer.poll() is None
            told = [reader.ask() for reader in readers]
            for one in told:
                assert isinstance(one, int) or "try again" in one, one
            counts = [one for one in told if isinstance(one, int)]
            assert min(counts, default=found[-1]) >= found[-1]  # nothing that was seen is gone
            found.append(max(counts, default=found[-1]))
            assert time.monotonic() < end + 60
    finally:
        writer.kill()
        writer.wait()
        for reader in readers:
            reader.end()


@pytest.fixture
def medium(path: Path, tmp_path: Path) -> Iterator[Path]:
    """The gallery where nothing can be written, not even by root."""
    where = tmp_path / "medium"
    where.mkdir()
    bind = ["mount", "--bind", str(path), str(where)]
    if shutil.which("mount") is None or subprocess.run(bind, check=False).returncode:
        pytest.skip("cannot mount")
    subprocess.run(["mount", "-o", "remount,bind,ro", str(where)], check=True)
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


def test_a_read_only_mount_shows_what_is_written_through_another(path: Path, medium: Path) -> None:
    assert not access.may_write(medium)
    with Gallery.open(medium) as reader:
        assert len(reader) == 5
        assert reader.check() == []
        killed_writer(path, 50, 1)  # in another process: one process has one view of a file
        assert len(reader) == 6
    killed_writer(path, 60, 2)
    (path / "items.sqlite-shm").unlink()
    with pytest.raises(GalleryError, match=r"read-only medium.*copy the folder"):
        Gallery.open(medium)


def test_a_change_without_locks_is_an_error_and_not_an_answer(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for end in ("-wal", "-shm"):  # as after a writer that was the last to close
        (path / f"items.sqlite{end}").unlink(missing_ok=True)
    monkeypatch.setattr(access, "may_write", lambda folder: False)
    reader = Gallery.open(path)

    def look_while_it_changes() -> None:
        with reader._storage.database.reading() as connection:
            assert connection.watch is not None
            with monkeypatch.context() as patched:
                patched.setattr(access, "may_write", lambda folder: True)
                with Gallery.open(path) as writer:
                    writer.add(picture(50))
            connection.execute("SELECT count(*) FROM item").fetchone()

    with pytest.raises(GalleryError, match=r"was changed while it was read.*try again"):
        look_while_it_changes()
    assert len(reader) == 6
