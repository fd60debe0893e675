"""The bars of the gallery: indexing, looking again, opening, filters, the page alone and loaded.

    python benchmarks/bench_gallery.py                      # a quarter of an hour
    python benchmarks/bench_gallery.py --only page load     # parts of it
    pytest benchmarks/bench_gallery.py                      # are the answers right? Times nothing

Every answer is checked before it is timed. The page is asked over HTTP, from another process than
the server's. What was measured is printed and written to ``benchmarks/results/gallery.json``; a
run of some parts leaves the figures of the others in that file as they are.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from rich.console import Console

from comparing import Report, parser
from fastretrieve.benchmarking.timing import Timing
from fastretrieve.data import open_dataset
from fastretrieve.encoders import EncoderError, create_encoder
from fastretrieve.encoders.encoding import encode_dataset
from fastretrieve.encoders.protocol import API_VERSION
from fastretrieve.gallery import Gallery
from fastretrieve.gallery.store import database
from fastretrieve.gallery.store.writing import NewVectors

SIDE = (8, 16)  # of grey queries: 128 numbers
LABELS = ("boot", "bag", "coat", "dress")
K = 24  # what the page asks for
CLIENTS = 16
DEVICE_SECONDS = 0.005  # an image, on the device that is simulated
PARTS = ("indexing", "unchanged", "opening", "filters", "page", "load")


class DeviceEncoder:
    """An encoder that computes elsewhere, as on a GPU: while it works, no core of ours does."""

    name, modality, dim, image_size = "a device", "image", 8, (224, 224)
    api_version, capabilities = API_VERSION, frozenset[str]()

    def preprocess(self, items: Any) -> Any:
        small = [np.asarray(item.convert("RGB").resize(self.image_size)) for item in items]
        return np.stack(small)

    def encode(self, batch: Any) -> Any:
        time.sleep(DEVICE_SECONDS * len(batch))
        return batch.reshape(len(batch), -1)[:, : self.dim].astype(np.float32) + 1

    def save(self, directory: Any) -> None:
        create_encoder("pixels", image_size=2).save(directory)

    @classmethod
    def load(cls, directory: Any, *, device: str = "cpu") -> DeviceEncoder:
        return cls()

    def to(self, device: Any) -> DeviceEncoder:
        return self


# --- indexing -------------------------------------------------------------------------------------


def write_photos(folder: Path, n: int) -> Path:
    """Photographs of 640 x 480: two hundred different ones, each file with other bytes."""
    rng = np.random.default_rng(3)
    folder.mkdir()
    kinds = []
    for _ in range(min(n, 200)):
        coarse = Image.fromarray(rng.integers(0, 255, (30, 40, 3), np.uint8))
        kinds.append(jpeg(coarse.resize((640, 480), Image.Resampling.BICUBIC)))
    for i in range(n):
        # What follows the end of the image is no part of it, but makes another file.
        (folder / f"{i:05d}.jpg").write_bytes(kinds[i % len(kinds)] + b"%d" % i)
    return folder


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def encoders() -> Iterator[tuple[str, Any, int]]:
    """Name, encoder, and by how much fewer photographs are enough, as it is slow."""
    yield f"a device, {DEVICE_SECONDS * 1e3:g} ms an image (simulated)", DeviceEncoder(), 1
    with contextlib.suppress(EncoderError):
        yield "pretrained", create_encoder("pretrained"), 10
    yield "pixels", create_encoder("pixels", image_size=64), 1


def measure_indexing(report: Report, folder: Path, n_photos: int) -> None:
    photos = write_photos(folder / "photos", n_photos)
    for name, encoder, fewer in encoders():
        paths = sorted(photos.iterdir())[: max(n_photos // fewer, 1)]
        sample = paths[: min(256, len(paths))]
        batch = encoder.preprocess([Image.open(path) for path in sample[:128]])
        alone = Timing()
        for _ in range(3):
            alone.calls.append(timed(lambda: encoder.encode(batch)) / len(batch))  # noqa: B023
        gallery = Gallery.create(folder / f"g-{len(list(folder.iterdir()))}", encoder=encoder)
        started, used = time.perf_counter(), time.process_time()
        result = gallery.add(paths, progress=False)
        seconds, used = time.perf_counter() - started, time.process_time() - used
        assert result.added == len(paths), result
        alone_used = time.process_time()
        bare = timed(lambda: encode_dataset(encoder, open_dataset(paths), batch_size=128))  # noqa: B023
        alone_used = time.process_time() - alone_used
        n = len(paths)
        print_line(
            report,
            f"indexing {n:,} photographs, {name}",
            per_second=n / seconds,
            encoder_alone_per_second=1 / alone.median,
            read_and_encode_per_second=n / bare,
            cpu_seconds=used,
            read_and_encode_cpu_seconds=alone_used,
            encoder_share=result.encoder_share,
        )
        what = f"indexing, {name}"
        report.hold(what, "of reading and encoding alone", bare / seconds, 0.9, most=False)
        if name != "pixels":  # which only reads: its own speed is that of copying
            rate = alone.median * n / seconds
            report.hold(what, "of the encoder's own speed", rate, 0.9, most=False)


# --- looking again --------------------------------------------------------------------------------


def measure_unchanged(report: Report, folder: Path, n_files: int) -> None:
    data = io.BytesIO()
    Image.new("L", (8, 8)).save(data, "BMP")
    for i in range(n_files):
        inner = folder / "files" / f"{i // 1000:03d}"
        if i % 1000 == 0:
            inner.mkdir(parents=True)
        (inner / f"{i}.bmp").write_bytes(data.getvalue())
    gallery = Gallery.create(folder / "g", encoder="pixels", image_size=8, channels=1)
    assert gallery.add(folder / "files", progress=False).added == n_files
    timing, used = Timing(), []
    for _ in range(5):
        cpu = time.process_time()
        timing.calls.append(timed(lambda: look_again(gallery, folder / "files", n_files)))
        used.append(time.process_time() - cpu)
    name = f"adding {n_files:,} unchanged files again"
    report.note(name, {"ours": timing})
    print_line(report, f"{name}, processor time", cpu_seconds=float(np.median(used)))
    report.hold(name, "s", min(timing.calls), 3)


def look_again(gallery: Gallery, files: Path, n: int) -> None:
    assert gallery.add(files, progress=False).unchanged == n


# --- a million items ------------------------------------------------------------------------------


def large_gallery(folder: Path, n_items: int) -> Path:
    """Made without pictures: only vectors and metadata count here."""
    gallery = Gallery.create(folder / "large", encoder="pixels", image_size=SIDE, channels=1)
    rng = np.random.default_rng(0)
    with gallery._storage.writing() as writer:

        def fill(connection: Any, generation: int) -> NewVectors:
            database.add_columns(connection, ["price"])
            paths = ((i, f"/photos/{i:07d}.jpg") for i in range(1, n_items + 1))
            connection.executemany(
                "INSERT INTO item (id, key, path, label, width, height, price) "
                "VALUES (?, ?, ?, ?, 640, 480, ?)",
                ((i, path, path, LABELS[i % 4], i % 1000) for i, path in paths),
            )
            vectors = rng.standard_normal((n_items, 128), dtype=np.float32)
            return NewVectors(np.arange(1, n_items + 1), vectors)

        writer.commit(fill)
    gallery.close()
    return gallery.path


def measure_opening(report: Report, path: Path, n_items: int) -> None:
    def open_it() -> None:
        with Gallery.open(path) as gallery:
            assert len(gallery) == n_items

    timing, cpu = Timing([timed(open_it) for _ in range(11)][1:]), time.process_time()
    open_it()
    name = f"opening a gallery of {n_items:,} x 128"
    report.note(name, {"ours": timing})
    print_line(report, f"{name}, processor time", cpu_seconds=time.process_time() - cpu)
    report.hold(name, "s", timing.median, 0.5)


def measure_filters(report: Report, path: Path, rounds: int) -> None:
    """What the search costs, the encoder left out, in turns with the unfiltered one."""
    queries = np.random.default_rng(1).integers(0, 255, (64, *SIDE), np.uint8)
    with Gallery.open(path) as gallery:
        gallery.search(queries[0])
        wheres = ("label = 'boot'", "price < 10", "width > 0")
        for where in wheres:
            first = gallery.search(queries[0], where=where).seconds.search
            timings = {"filtered": Timing(), "unfiltered": Timing()}
            for number in range(rounds):
                for name, condition in (("filtered", where), ("unfiltered", None)):
                    parts = [
                        gallery.search(query, k=K, where=condition).seconds.search
                        for query in queries[number % 8 * 8 :][:8]
                    ]
                    timings[name].calls += parts
                    timings[name].rounds.append(float(np.median(parts)))
            report.note(f"filter {where}", timings)
            print_line(report, f"filter {where}, its first use", ms=first * 1e3)
            ratio = timings["filtered"].ratio_to(timings["unfiltered"])
            report.hold(f"filter {where}", "of an unfiltered search", ratio, 1.15)


# --- the page -------------------------------------------------------------------------------------


class Server(NamedTuple):
    """The page in a process of its own."""

    address: str
    pid: int

    def cpu_seconds(self) -> float:
        """Processor time that it used so far; NaN where the system does not say."""
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return math.nan


@contextlib.contextmanager
def served(path: Path) -> Iterator[Server]:
    command = [sys.executable, "-m", "fastretrieve", "serve", str(path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        said = server.stdout.readline()
        address = re.search(r"http://\S+:\d+", said)
        assert address, said
        try:
            yield Server(address[0], server.pid)
        finally:
            server.terminate()


def uploads() -> list[bytes]:
    """Photographs of 640 x 480 to ask with."""
    rng = np.random.default_rng(2)
    shades = (Image.fromarray(rng.integers(0, 255, (30, 40, 3), np.uint8)) for _ in range(16))
    return [jpeg(shade.resize((640, 480), Image.Resampling.BICUBIC)) for shade in shades]


def ask(client: Any, data: bytes) -> tuple[float, dict[str, float]]:
    """Milliseconds that the client waited, and what the server says of them."""
    started = time.perf_counter()
    answer = client.post("/api/search", files={"image": ("x.jpg", data)}, data={"k": K})
    waited = (time.perf_counter() - started) * 1e3
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert len(found["matches"]) == K
    return waited, found["timing"]


def measure_page(report: Report, path: Path, n_items: int, rounds: int) -> None:
    import httpx

    photos = uploads()
    rest, inside = [], []
    with served(path) as server, httpx.Client(base_url=server.address, timeout=60) as client:
        for _ in range(5):
            ask(client, photos[0])
        used = server.cpu_seconds()
        for number in range(rounds):
            waited, timing = ask(client, photos[number % len(photos)])
            rest.append(waited - timing["encode_ms"])
            inside.append(timing["total_ms"] - timing["encode_ms"])
        used = (server.cpu_seconds() - used) / rounds * 1e3
    name = f"a search by image of {n_items:,} items, at the page, without the encoder"
    shares = {f"client_p{p}_ms": float(np.percentile(rest, p)) for p in (50, 90, 99)}
    shares |= {f"server_p{p}_ms": float(np.percentile(inside, p)) for p in (50, 90, 99)}
    print_line(report, name, **shares, server_cpu_ms=used)
    report.hold(name, "ms as the client sees it, median", shares["client_p50_ms"], 10)


def measure_load(report: Report, path: Path, n_items: int, seconds: float) -> None:
    import httpx

    photos, waits, failures = uploads(), [], []
    lock = threading.Lock()

    def client(number: int) -> None:
        with httpx.Client(base_url=server.address, timeout=60) as web:
            turn = number
            while time.monotonic() < end:
                try:
                    waited, _ = ask(web, photos[turn % len(photos)])
                except Exception as error:
                    with lock:
                        failures.append(repr(error))
                    continue
                with lock:
                    waits.append(waited)
                turn += 1

    with served(path) as server, ThreadPoolExecutor(CLIENTS) as pool:
        with httpx.Client(base_url=server.address, timeout=60) as web:
            ask(web, photos[0])
        end = time.monotonic() + seconds
        list(pool.map(client, range(CLIENTS)))
    name = f"{CLIENTS} clients for {seconds:g} s, {n_items:,} items"
    figures = {f"p{p}_ms": float(np.percentile(waits, p)) for p in (50, 90, 99)}
    print_line(report, name, searches=len(waits), per_second=len(waits) / seconds, **figures)
    report.hold(name, f"errors{': ' + failures[0] if failures else ''}", len(failures), 0)


# --- the run --------------------------------------------------------------------------------------


def timed(call: Any) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def print_line(report: Report, name: str, **figures: float) -> None:
    """Keep figures that are not times of calls, and print them."""
    report.results.append({"name": name, **figures, "load_average": os.getloadavg()[0]})
    text = ", ".join(f"{what} {value:.4g}" for what, value in figures.items())
    report.console.print(f"{name}: {text}", style="dim", highlight=False)


def measure(report: Report, options: argparse.Namespace) -> None:
    parts = set(options.only or PARTS)
    with tempfile.TemporaryDirectory(prefix="bench-gallery-", dir=options.folder) as name:
        folder = Path(name)
        for part, run, n in (
            ("unchanged", measure_unchanged, options.files),
            ("indexing", measure_indexing, options.photos),
        ):
            if part in parts:
                (folder / part).mkdir()
                run(report, folder / part, n)
        if parts & {"opening", "filters", "page", "load"}:
            large, n = large_gallery(folder, options.rows), options.rows
        if "opening" in parts:
            measure_opening(report, large, n)
        if "filters" in parts:
            measure_filters(report, large, options.rounds)
        if "page" in parts:
            measure_page(report, large, n, options.rounds * 10)
        if "load" in parts:
            measure_load(report, large, n, options.seconds)


def test_the_answers_of_the_benchmark_are_right(tmp_path: Path) -> None:
    report = Report(Console(quiet=True))
    small = ["--rows", "3000", "--files", "300", "--photos", "40", "--rounds", "2"]
    measure(report, arguments([*small, "--seconds", "0.5", "--folder", str(tmp_path)]))
    assert len(report.verdicts) >= 3 + 1 + 1 + 3 + 1 + 1
    assert report.verdicts[-1].got == 0  # no request of the load failed


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    made = parser(__doc__, "gallery.json", 1_000_000)
    made.add_argument("--files", type=int, default=100_000, help="to look at again")
    made.add_argument("--photos", type=int, default=10_000, help="to index")
    made.add_argument("--rounds", type=int, default=20)
    made.add_argument("--seconds", type=float, default=60, help="of load")
    made.add_argument("--only", nargs="+", choices=PARTS, help="parts to measure")
    made.add_argument("--folder", type=Path, help="where galleries are made; default: /tmp")
    return made.parse_args(given)


def kept(path: Path, report: Report) -> None:
    """What an earlier run measured and this one did not."""
    with contextlib.suppress(OSError, ValueError):
        before = json.loads(path.read_text())
        from fastretrieve.benchmarking.bars import Verdict

        named = {str(result["name"]) for result in report.results}
        judged = {verdict.benchmark for verdict in report.verdicts}
        report.results[:0] = [r for r in before["results"] if r["name"] not in named]
        fields = Verdict._fields
        report.verdicts[:0] = [
            Verdict(**{name: bar[name] for name in fields})
            for bar in before["bars"]
            if bar["benchmark"] not in judged
        ]


def main() -> None:
    """Measure everything, print it, write it down."""
    options = arguments()
    report = Report()
    measure(report, options)
    if options.only:
        kept(options.json, report)
    about = {"threads": options.threads, "load_average": os.getloadavg()[0]}
    report.finish(options.json, about)


if __name__ == "__main__":
    main()
