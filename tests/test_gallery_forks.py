"""Children that are forked while threads search and write find everything open, and see commits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from fastretrieve.gallery import Gallery
from gallery_helpers import new_gallery, picture

SCRIPT = Path(__file__).with_name("gallery_forked.py")


def fork(n: int) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--forks", str(n)],
        capture_output=True,
        text=True,
        timeout=60 + 10 * n,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{n} children, none hung" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="forks beside threads")
def test_children_of_a_busy_process_do_not_hang() -> None:
    fork(20)


def test_a_fork_waits_until_no_thread_is_inside_sqlite() -> None:
    code = """
        import os, sys, threading, time, warnings
        from fastretrieve.gallery.store import forking
        warnings.simplefilter("ignore")
        entered, left = threading.Event(), []
        def work():
            with forking.inside:
                entered.set()
                time.sleep(0.3)
                left.append(True)
        threading.Thread(target=work).start()
        entered.wait()
        pid = os.fork()
        if pid == 0:
            with forking.inside:
                os._exit(0 if left and forking.n_forks() == 1 else 3)
        with forking.inside:
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0


def test_a_child_of_the_writer_neither_holds_nor_frees_its_lock(tmp_path: Path) -> None:
    code = """
        import os, sys, time, warnings
        from fastretrieve.gallery import Gallery, GalleryError
        warnings.simplefilter("ignore")
        gallery = Gallery.create(sys.argv[1], encoder="pixels", image_size=8)
        reading, writing = os.pipe()
        with gallery._storage.writing():
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
                try:
                    with Gallery.open(sys.argv[1])._storage.writing():
                        sys.exit("the child freed the lock")
                except GalleryError:
                    pass
                sleeper = os.fork()
                if sleeper == 0:
                    time.sleep(30)
                    os._exit(0)
        if pid == 0:
            os._exit(0)
        with Gallery.open(sys.argv[1])._storage.writing():
            os.kill(sleeper, 9)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "g")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_child_does_not_keep_the_lock_of_a_writer_that_was_killed(tmp_path: Path) -> None:
    code = """
        import os, sys, time, warnings
        from fastretrieve.gallery import Gallery
        warnings.simplefilter("ignore")
        gallery = Gallery.create(sys.argv[1], encoder="pixels", image_size=8)
        with gallery._storage.writing():
            sleeper = os.fork()
            if sleeper == 0:
                os.close(1)
                time.sleep(60)
                os._exit(0)
            print(sleeper, flush=True)
            time.sleep(0.3)  # until it has begun
            os.kill(os.getpid(), 9)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "g")]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=False)
    try:
        with Gallery.open(tmp_path / "g") as gallery:
            assert gallery.add(picture(1)).added == 1
    finally:
        os.kill(int(done.stdout), signal.SIGKILL)


@pytest.mark.slow
def test_two_hundred_children() -> None:
    fork(200)


def test_a_reader_in_a_child_keeps_a_writer_from_cutting_the_log(tmp_path: Path) -> None:
    code = """
        import os, sqlite3, sys, warnings
        from fastretrieve.gallery import Gallery
        warnings.simplefilter("ignore")
        gallery = Gallery.open(sys.argv[1])
        connections = gallery._storage.database
        with connections.snapshot() as held:
            held.execute("SELECT count(*) FROM item").fetchone()  # in the parent, as a thread would
            ready, go = os.pipe(), os.pipe()
            pid = os.fork()
            if pid == 0:
                with connections.snapshot() as own:
                    own.execute("SELECT count(*) FROM item").fetchone()
                    os.write(ready[1], b"r")
                    os.read(go[0], 1)
                os._exit(0)
        gallery.close()
        os.read(ready[0], 1)
        writer = sqlite3.connect(sys.argv[1] + "/items.sqlite", timeout=0.2)
        writer.execute("UPDATE item SET label = 'x'")
        writer.commit()
        busy = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        os.write(go[1], b"g")
        os.waitpid(pid, 0)
        sys.exit(0 if busy else 3)
    """
    with new_gallery(tmp_path / "g") as made:
        made.add(picture(1))
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "g")]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0
