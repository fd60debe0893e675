"""Kill a writer again and again, and look at the gallery after each kill.

    python tests/gallery_killed.py --kills 200

The writer acknowledges each commit through a pipe; it is killed with SIGKILL at a random moment.
After each kill a reader in a new process must find every commit that was acknowledged, every vector
where it belongs, every item in its cluster, and no file damaged. Exit status 1 if it does not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastretrieve.gallery import Gallery
from fastretrieve.gallery.intake import comparing
from fastretrieve.gallery.store import writing

N_PICTURES = 400


def kill_and_look(folder: Path, n_kills: int, seed: int) -> None:
    rng = random.Random(seed)
    pictures = folder / "pictures"
    pictures.mkdir()
    shades = np.random.default_rng(seed).integers(0, 255, (N_PICTURES, 4, 4, 3), np.uint8)
    for i, shade in enumerate(shades):
        Image.fromarray(shade).save(pictures / f"{i:04d}.png")
    with Gallery.create(folder / "g", encoder="pixels", image_size=4) as made:
        made.add(*sorted(pictures.iterdir())[:20])
        made.clusters(5)
    expected: dict[str, int] = {"generation": 0, "items": 0}
    for number in range(n_kills):
        said = run_and_kill(
            lambda pipe, n=number: write(folder, pipe, seed * 1000 + n),
            after=rng.randrange(12),
            seconds=rng.uniform(0.0, 0.06),
        )
        expected = said[-1] if said else expected
        found = answer(lambda: look(folder, shades))
        assert found["faults"] == [], found
        # What was acknowledged is there. One commit more may have happened: it was made, and the
        # writer was killed before it could say so.
        assert found["generation"] >= expected["generation"], (found, expected)
        expected = found
    facts = {"killed": n_kills, "seed": seed, "commits": expected["generation"]}
    print(json.dumps({**facts, "items": expected["items"]}))


def write(folder: Path, pipe: int, seed: int) -> None:
    """Add and remove until killed; say after each commit how things stand."""
    rng = random.Random(seed)
    commit = writing.Writer.commit

    def commit_and_say(self: writing.Writer, change: Callable[..., object]) -> int:
        generation = commit(self, change)  # type: ignore[arg-type]
        os.write(pipe, json.dumps({"generation": generation}).encode() + b"\n")
        return generation

    writing.Writer.commit = commit_and_say  # type: ignore[method-assign]
    comparing.CHUNK = 50
    gallery = Gallery.open(folder / "g")
    while True:
        gallery.add(
            folder / "pictures", batch_size=4, workers=1, commit_seconds=0, restore=True,
            progress=False,
        )  # fmt: skip
        ids = [item.id for item in gallery.items(limit=N_PICTURES)]
        gallery.remove(rng.sample(ids, len(ids) // 2))


def look(folder: Path, shades: np.ndarray) -> dict[str, object]:
    """What a new process finds."""
    with Gallery.open(folder / "g") as gallery:
        faults = gallery.check()
        items = gallery.items(limit=N_PICTURES)
        for item, vector in zip(items, gallery.vectors(), strict=True):
            wanted = shades[int(Path(item.path).stem)].transpose(2, 0, 1).ravel() / np.float32(255)
            if not np.allclose(vector, wanted, atol=1e-6):
                faults.append(f"item {item.id} has the vector of another")
        info = gallery.info()
        return {"generation": info["generation"], "items": len(items), "faults": faults}


def run_and_kill(work: Callable[[int], None], *, after: int, seconds: float) -> list[Any]:
    """Run in a child; kill it so many seconds after so many commits. Returns what it said."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        in_child(lambda: work(writing))
    os.close(writing)
    with os.fdopen(reading) as file:
        lines = [file.readline() for _ in range(after)]
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        lines += file.readlines()
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"the writer ended by itself: {status}"
    return [json.loads(line) for line in lines if line.endswith("}\n")]


def answer(work: Callable[[], dict[str, object]]) -> dict[str, object]:
    """The result of a function that runs in a child."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        in_child(lambda: os.write(writing, json.dumps(work()).encode()))
    os.close(writing)
    with os.fdopen(reading) as file:
        text = file.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the reader failed: {status}"
    result: dict[str, object] = json.loads(text)
    return result


def in_child(work: Callable[[], object]) -> None:
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gallery-killed-") as folder:
        kill_and_look(Path(folder), options.kills, options.seed)


if __name__ == "__main__":
    main()
