"""Pictures to fill galleries with, and a server to ask."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastretrieve.gallery import Gallery


def picture(seed: int, *, size: tuple[int, int] = (24, 20)) -> Image.Image:
    """A random picture with some large shapes, so that it survives a resize."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (5, 6, 3), np.uint8))
    return coarse.resize(size, Image.Resampling.BILINEAR)


def write_pictures(folder: Path, n: int, *, first: int = 0, suffix: str = ".png") -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:05d}{suffix}" for i in range(first, first + n)]
    for i, path in enumerate(paths, first):
        picture(i).save(path)
    return paths


def class_folders(root: Path, n: int = 6) -> Path:
    """``n`` pictures in each of two class folders."""
    write_pictures(root / "boot", n)
    write_pictures(root / "bag", n, first=1000)
    return root


def new_gallery(folder: Path, **options: Any) -> Gallery:
    return Gallery.create(folder, encoder="pixels", image_size=8, **options)


@contextlib.contextmanager
def serving(gallery: Gallery, **options: Any) -> Iterator[str]:
    """A real server in a thread; yields its address."""
    import uvicorn

    from fastretrieve.server import create_app, settings

    app = create_app(gallery, **options)
    config = uvicorn.Config(app, port=0, **settings(app))
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (listening,) = server.servers
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def busy_writer(path: Path, *, removes: bool) -> subprocess.Popen[bytes]:
    """Another process that changes a gallery until it is killed."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from gallery_helpers import change_for_ever; "
        f"change_for_ever(sys.argv[2], removes={removes})"
    )
    here = str(Path(__file__).parent)
    return subprocess.Popen([sys.executable, "-c", code, here, str(path)])


def change_for_ever(path: str, *, removes: bool) -> None:
    """Add two pictures, give some items long labels and, with ``removes``, remove one; again."""
    for number in range(1000, 2**31, 2):
        with Gallery.open(path) as gallery:
            gallery.add([picture(number), picture(number + 1)], commit_seconds=0, batch_size=1)
            ids = [item.id for item in gallery.items()]
            gallery.label(ids[:9], str(number) * 400)
            if removes:
                gallery.remove(random.sample(ids, 1))
