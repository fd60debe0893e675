"""Fork again and again beside threads that search, filter, draw and write a gallery.

    python tests/gallery_forked.py --forks 200

Each child searches, filters and looks at the index, and must end within ten seconds. Exit status 1
if one hangs or finds something wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from fastretrieve.gallery import Gallery, GalleryError
from gallery_helpers import new_gallery, picture, write_pictures

SECONDS = 20.0  # for a child; one that hangs would take for ever


def child(gallery: Gallery, writes: bool) -> None:
    """What a child does with the gallery of its parent."""
    n = len(gallery.search(picture(3), k=5, where=f"id > {os.getpid() % 7}"))
    assert n == 5, n
    assert gallery.search(1, k=3).query is not None
    assert len(gallery.items(limit=3)) == 3
    gallery.search(picture(4), k=2).image()
    with Gallery.open(gallery.path) as fresh:
        assert len(fresh) >= 40
        if writes:
            with contextlib.suppress(GalleryError):  # another process may be writing
                fresh.label(1, str(os.getpid()))


def wait(pid: int) -> str:
    """How a child ended."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return "" if status == 0 else f"ended with {status}"
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hung"


def forever(work: Callable[[], object], stop: threading.Event, faults: list[str]) -> None:
    while not stop.is_set():
        try:
            work()
        except Exception:
            faults.append(traceback.format_exc())
            return


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forks", type=int, default=200)
    n_forks = parser.parse_args().forks
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # forks beside threads
    stop, faults, bad = threading.Event(), list[str](), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder, "many"), 40)
        gallery = new_gallery(Path(folder, "g"))
        gallery.add(Path(folder, "many"))
        numbers = iter(range(1000, 10**9))

        def write() -> None:
            gallery.label(2, str(next(numbers)), wait=5)
            gallery.add(picture(next(numbers)), wait=5, progress=False)
            gallery.remove(gallery.items(offset=40, limit=1), wait=5)

        work = [
            lambda: gallery.search(picture(1), k=5, where=f"width > {next(numbers) % 20}"),
            lambda: gallery.search(2, k=9).image(),
            lambda: gallery.items([("label", "is empty", None)]),
            lambda: gallery.info(),
            write,
        ]
        threads = [threading.Thread(target=forever, args=(w, stop, faults)) for w in work]
        for thread in threads:
            thread.start()
        for number in range(n_forks):
            pid = os.fork()
            if pid == 0:
                status = 1
                faulthandler.dump_traceback_later(SECONDS / 2)  # says where it hangs
                try:
                    child(gallery, writes=number % 5 == 0)
                    status = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(status)
            if said := wait(pid):
                bad.append(f"child {number} {said}")
                if len(bad) > 3:
                    break
        stop.set()
        for thread in threads:
            thread.join(SECONDS)
        faults += [f"{t.name} hangs" for t in threads if t.is_alive()] + gallery.check()
    print("\n".join(faults + bad) or f"{n_forks} children, none hung")
    return 1 if faults or bad else 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)
