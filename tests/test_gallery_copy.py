"""A gallery is copied while it changes: whole and as of one commit, or not at all."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fastretrieve.gallery import Gallery, GalleryError
from fastretrieve.gallery.store import copying, locking
from gallery_helpers import busy_writer, new_gallery, picture, write_pictures


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "many", 20)
    with new_gallery(tmp_path / "g") as made:
        made.add(tmp_path / "many", commit_seconds=0, batch_size=6)
        made.add([picture(500), picture(501)])
        made.remove(3)
    return tmp_path / "g"


@pytest.fixture
def live(path: Path) -> Iterator[Path]:
    """A gallery that another process changes all the time."""
    with Gallery.open(path) as gallery:
        before = gallery.info()["generation"]
        writer = busy_writer(path, removes=True)
        while gallery.info()["generation"] == before:
            assert writer.poll() is None
            time.sleep(0.01)
    yield path
    assert writer.poll() is None
    writer.kill()
    writer.wait()


def test_a_copy_is_the_same_and_lives_on_its_own(path: Path, tmp_path: Path) -> None:
    with Gallery.open(path) as gallery, gallery.copy(tmp_path / "copy") as copied:
        assert copied.check() == []
        assert copied.items() == gallery.items()
        np.testing.assert_array_equal(copied.vectors(), gallery.vectors())
        asked = gallery.search(picture(500), k=3).scores
        assert copied.search(picture(500), k=3).scores == asked
        assert all(copied.file_of(item).exists() for item in copied.items())
        copied.add(picture(600))
        copied.forget(1)
        assert copied.add(tmp_path / "many").left_out == 1  # what was removed is known
        assert len(gallery) == 21
        assert gallery.check() == copied.check() == []
    assert not locking.is_copy(tmp_path / "copy")
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_live_gallery_is_copied(live: Path, tmp_path: Path) -> None:
    with Gallery.open(live) as gallery:
        for number in range(6):
            with gallery.copy(tmp_path / f"copy{number}") as copied:
                assert copied.check() == []
                assert len(copied) == len(copied.items())


def test_files_that_were_copied_one_by_one_are_whole_or_refused(live: Path, tmp_path: Path) -> None:
    opened, refused = 0, list[str]()
    for number in range(12):
        target = tmp_path / f"copy{number}"
        subprocess.run(["cp", "-r", str(live), str(target)], check=False, capture_output=True)
        try:
            with Gallery.open(target) as copied:
                assert copied.check() == []
                assert len(copied) == len(copied.items())
                assert not locking.is_copy(target)  # noted: it is looked at once
                opened += 1
        except GalleryError as error:
            refused.append(str(error))
    assert opened
    assert [r for r in refused if not re.search("while it was changed|is not a gallery", r)] == []


def test_a_torn_copy_is_refused(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    shutil.copytree(path, target)
    for end in ("-wal", "-shm"):
        (target / f"items.sqlite{end}").unlink(missing_ok=True)
    with Gallery.open(path) as gallery:
        gallery.add(picture(600))
        gallery.forget(1)
    shutil.copy(path / "items.sqlite", target / "items.sqlite")  # a later state than the vectors
    with pytest.raises(GalleryError, match=r"copied while it was changed.*fastretrieve copy"):
        Gallery.open(target)


def test_no_copy_over_something(path: Path, tmp_path: Path) -> None:
    with Gallery.open(path) as gallery:
        for target in (path, tmp_path / "many", tmp_path / "many" / "00000.png"):
            with pytest.raises(GalleryError, match="is there already"):
                gallery.copy(target)
        with pytest.raises(GalleryError, match="is no folder; make it first"):
            gallery.copy(tmp_path / "no" / "copy")
        (tmp_path / "empty").mkdir()
        gallery.copy(tmp_path / "empty").close()


def test_a_damaged_gallery_is_not_copied(path: Path, tmp_path: Path) -> None:
    index = sorted((path / "vectors").iterdir())[0]
    data = bytearray(index.read_bytes())
    data[-5] ^= 1
    index.write_bytes(data)
    with Gallery.open(path) as gallery, pytest.raises(GalleryError, match=f"{index.name} is damag"):
        gallery.copy(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_stopped_copy_is_not_there_and_the_next_removes_its_parts(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with Gallery.open(path) as gallery, monkeypatch.context() as patched:
        patched.setattr(copying, "_copy_bytes", stop)
        with pytest.raises(KeyboardInterrupt):
            gallery.copy(tmp_path / "copy")
    assert [p.name for p in tmp_path.iterdir() if "copy" in p.name] == []
    code = """
        import os, sys
        from fastretrieve.gallery import Gallery
        from fastretrieve.gallery.store import copying
        copying._rename = lambda *_: os.kill(os.getpid(), 9)
        Gallery.open(sys.argv[1]).copy(sys.argv[2])
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(path), str(tmp_path / "copy")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    left = [p for p in tmp_path.iterdir() if p.name.endswith(".copying")]
    assert len(left) == 1
    with locking.locked(left[0], wait=0), Gallery.open(path) as gallery:  # of one that is at work
        gallery.copy(tmp_path / "copy").close()
        assert left[0].exists()
    shutil.rmtree(tmp_path / "copy")
    with Gallery.open(path) as gallery:
        gallery.copy(tmp_path / "copy").close()
    assert not left[0].exists()


def test_from_the_command_line(path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fastretrieve", "copy", str(path), str(tmp_path / "copy")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"copied 21 items to {tmp_path / 'copy'}\n"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert os.path.isdir(tmp_path / "copy")
