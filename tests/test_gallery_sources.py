"""What can be added: folders, tables with boxes and metadata, URLs, sequences."""

from __future__ import annotations

import contextlib
import csv
import http.server
import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from fastretrieve.encoders import TorchEncoder
from fastretrieve.gallery import Gallery, GalleryError
from fastretrieve.gallery.intake.downloads import DownloadLimits
from gallery_helpers import class_folders, new_gallery, picture, write_pictures


def test_folders_give_labels_unless_they_should_not(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "photos", 3)
    write_pictures(root, 1, first=90)
    write_pictures(root / "boot" / "deeper", 1, first=91)
    (root / "boot" / "notes.doc").write_text("no picture")
    (root / ".hidden").mkdir()
    write_pictures(root / ".hidden", 1)
    gallery = new_gallery(tmp_path / "g")
    assert gallery.add(root).added == 8
    labels = {Path(item.path).name: item.label for item in gallery.items()}
    assert labels["00000.png"] == labels["00091.png"] == "boot"
    assert labels["01000.png"] == "bag"
    assert labels["00090.png"] is None
    flat = new_gallery(tmp_path / "flat")
    assert flat.add(root, recursive=False).added == 1
    unlabelled = new_gallery(tmp_path / "unlabelled")
    unlabelled.add(root, labels_from_folders=False)
    assert {item.label for item in unlabelled.items()} == {None}


def test_a_gallery_inside_the_folder_is_not_added_to_itself(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "photos", 2)
    gallery = new_gallery(root / "my.gallery")
    gallery.add(picture(5))
    assert gallery.add(root).added == 4
    assert gallery.add(root).unchanged == 4


def test_a_table_brings_labels_captions_and_columns(tmp_path: Path) -> None:
    write_pictures(tmp_path / "p", 4)
    rows = [
        {"path": f"p/{i:05d}.png", "label": "xy"[i % 2], "caption": f"no {i}", "id": 70 + i,
         "price": i * 1.5, "tags": ["a", i]}
        for i in range(4)
    ]  # fmt: skip
    table = tmp_path / "table.jsonl"
    table.write_text("\n".join(map(json.dumps, [*rows, {"path": 5}])))
    gallery = new_gallery(tmp_path / "g")
    result = gallery.add(table)
    assert result.added == 4
    assert [Path(item.key).name for item in result.unreadable] == ["table.jsonl:5"]
    item = gallery.search(picture(3), k=1, where="price > 4 AND id_ = 73").items[0]
    assert (item.label, item.caption) == ("y", "no 3")
    assert item.metadata == {"id_": 73, "price": 4.5, "tags": '["a", 3]'}
    assert set(gallery.columns) == {"id_", "price", "tags"}


def test_new_labels_do_not_encode_again_and_folders_do_not_overrule_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = class_folders(tmp_path / "photos", 2)
    gallery = new_gallery(tmp_path / "g")
    gallery.add(root)
    monkeypatch.setattr(gallery.encoder, "encode", None)
    table = tmp_path / "table.csv"
    table.write_text("path,label,score\nphotos/boot/00000.png,sandal,7\n")
    result = gallery.add(table)
    assert (result.relabelled, result.unchanged, result.added) == (1, 1, 0)
    (item,) = gallery.items("score = 7")
    assert item.label == "sandal"
    assert gallery.add(root).relabelled == 0
    assert gallery.item(item.id).label == "sandal"
    assert gallery.add(table).relabelled == 0


def test_boxes_make_items_of_crops(tmp_path: Path) -> None:
    canvas = Image.new("RGB", (60, 30), "black")
    canvas.paste(picture(1), (0, 0))
    canvas.paste(picture(2), (30, 5))
    canvas.save(tmp_path / "two.png")
    table = tmp_path / "boxes.csv"
    table.write_text(
        "path,left,top,right,bottom,label\ntwo.png,0,0,24,20,one\ntwo.png,30,5,54,25,two\n"
        "two.png,100,100,120,120,beyond\n"
    )
    gallery = new_gallery(tmp_path / "g")
    result = gallery.add(table)
    assert result.added == 2
    assert "holds no pixel" in result.unreadable[0].reason
    found = gallery.search(picture(2), k=1)
    assert found.items[0].label == "two"
    assert found.items[0].box == (30, 5, 54, 25)
    assert (found.items[0].width, found.items[0].height) == (24, 20)
    assert found.scores[0] == pytest.approx(1)
    assert gallery.add(table).unchanged == 2
    assert gallery.remove(tmp_path / "two.png") == 2
    found.save(tmp_path / "crop.png")


def test_the_same_file_listed_twice_is_one_item(tmp_path: Path) -> None:
    write_pictures(tmp_path, 1)
    table = tmp_path / "table.csv"
    table.write_text("path,label\n00000.png,first\n00000.png,second\n")
    gallery = new_gallery(tmp_path / "g")
    assert gallery.add(table, tmp_path).added == 1
    assert [item.label for item in gallery.items()] == ["first"]


def test_hostile_column_names_are_only_names(tmp_path: Path) -> None:
    write_pictures(tmp_path, 1)
    table = tmp_path / "t.csv"
    table.write_text('path,"x"" , y); DROP TABLE item; --",deleted,rowid\n00000.png,1,5,6\n')
    gallery = new_gallery(tmp_path / "g")
    assert gallery.add(table).added == 1
    assert gallery.items()[0].metadata == {
        "x , y); DROP TABLE item; --": 1,
        "deleted_": 5,
        "rowid_": 6,
    }
    assert gallery.add(table).unchanged == 1


class Pictures(http.server.BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []
    broken: ClassVar[bool] = False

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        name = self.path.strip("/")
        if name.isdigit():
            buffer = io.BytesIO()
            picture(int(name)).save(buffer, "PNG")
            self._send(200, buffer.getvalue())
        elif name == "text":
            self._send(200, b"<html>")
        elif name == "large":
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(40):
                    self.wfile.write(b"x" * 65536)
        elif name == "announced":
            self.send_response(200)
            self.send_header("Content-Length", "999999999")
            self.end_headers()
        elif name == "slow":
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):  # the other side gives up
                for _ in range(100):
                    self.wfile.write(b"x")
                    self.wfile.flush()
                    time.sleep(0.05)
        elif name == "elsewhere":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
        elif name == "moved":
            self.send_response(302)
            self.send_header("Location", "/5")
            self.end_headers()
        elif name == "flaky" and type(self).broken:
            self._send(500, b"")
        elif name == "flaky":
            self.path = "/9"
            self.do_GET()
        else:
            self._send(404, b"")

    def _send(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    Pictures.asked = []
    Pictures.broken = False
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pictures) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_list_of_urls_is_fetched_once_within_limits(tmp_path: Path, web: str) -> None:
    Pictures.broken = True
    names = ["1", "2", "moved", "text", "large", "announced", "slow", "elsewhere", "gone", "flaky"]
    urls = tmp_path / "urls.txt"
    urls.write_text("# pictures\n" + "\n".join(f"{web}/{n}" for n in names) + "\nftp://x/y\n")
    gallery = new_gallery(tmp_path / "g")
    limits = DownloadLimits(max_bytes=500_000, seconds=1.0, idle_seconds=2.0)
    result = gallery.add(urls, limits=limits)
    assert result.added == 3
    reasons = {item.key.rpartition("/")[2]: item.reason for item in result.unreadable}
    assert "not a readable image" in reasons["text"]
    assert "more than 500000 bytes" in reasons["large"]
    assert "999999999 bytes, at most 500000" in reasons["announced"]
    assert "more than 1 s" in reasons["slow"]
    assert "file:///etc/passwd" in reasons["elsewhere"]
    assert "404" in reasons["gone"]
    assert "500" in reasons["flaky"]
    assert "not a URL of http" in reasons["urls.txt:12"]
    found = gallery.search(picture(2), k=1)
    assert found.items[0].url == f"{web}/2"
    assert found.paths[0].is_relative_to(gallery.path)
    assert (found.items[0].origin, found.items[0].name) == (f"{web}/2", "2")
    assert found.items[0]._replace(url="https://me:pw@x.org/?key=1").name == "x.org"

    asked = Pictures.asked.count("/1")
    Pictures.broken = False
    again = gallery.add(urls, limits=limits)
    assert (again.updated, again.unchanged) == (1, 3)  # what failed is tried again
    assert Pictures.asked.count("/1") == asked
    assert gallery.check() == []
    moved = gallery.path.rename(tmp_path / "elsewhere.gallery")
    assert Gallery.open(moved).search(picture(2), k=1).paths[0].exists()


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_table_may_name_urls_beside_files(tmp_path: Path, web: str, suffix: str) -> None:
    write_pictures(tmp_path, 1, first=3)
    rows: list[dict[str, Any]] = [
        {"url": f"{web}/1", "label": "boot", "price": 5},
        {"url": f"{web}/2", "label": "bag", "price": 7, "box": [0, 0, 12, 10]},
        {"url": f"{web}/2", "label": "bag", "price": 8, "box": [12, 0, 24, 20]},
        {"path": "00003.png", "url": "https://example.org/3", "label": "bag", "price": 9},
        {"url": "file:///etc/passwd"},
        {"url": f"{web}/gone"},
    ]
    table = tmp_path / f"t{suffix}"
    if suffix == ".jsonl":
        table.write_text("\n".join(map(json.dumps, rows)))
    else:
        edges = ("left", "top", "right", "bottom")
        lines = [dict(zip(edges, row.pop("box", ()), strict=False)) | row for row in rows]
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["path", "url", "label", "price", *edges])
            writer.writeheader()
            writer.writerows(lines)
    gallery = new_gallery(tmp_path / "g")
    result = gallery.add(table)
    assert result.added == 4
    reasons = " ".join(item.reason for item in result.unreadable)
    assert "not a URL of http or https: file:///etc/passwd" in reasons
    assert "404" in reasons
    assert Pictures.asked.count("/2") <= 2
    (whole,) = gallery.items("price = 5")
    assert (whole.url, whole.label, whole.metadata["price"]) == (f"{web}/1", "boot", 5)
    assert gallery.file_of(whole).is_relative_to(gallery.path)
    crops = gallery.items("price IN (7, 8)")
    assert [(item.width, item.height) for item in crops] == [(12, 10), (12, 20)]
    assert len({item.path for item in crops}) == 1
    (file,) = gallery.items("price = 9")  # beside a path a URL is metadata
    assert (file.url, file.metadata["url_"]) == (None, "https://example.org/3")
    asked = len(Pictures.asked)
    again = gallery.add(table)
    assert (again.unchanged, len(Pictures.asked) - asked) == (4, 1)  # what failed is tried again
    assert gallery.remove(f"{web}/2") == 2
    assert gallery.check() == []


class Frames(TorchEncoder):
    """The mean brightness of a sequence's first and last frame."""

    name = "frames"
    modality = "sequence"
    capabilities = frozenset()

    def __init__(self) -> None:
        super().__init__(dim=2, config={})

    def preprocess(self, items: Any) -> Any:
        ends = [[np.asarray(frame, np.float32).mean() for frame in (s[0], s[-1])] for s in items]
        return np.array(ends, np.float32).reshape(-1, 2) / 255

    def embed(self, batch: Any) -> Any:
        return batch


def test_frame_folders_animations_and_arrays_are_items_of_a_sequence_encoder(
    tmp_path: Path,
) -> None:
    root = tmp_path / "clips"
    shades = {"rising": (10, 200), "falling": (200, 10), "flat": (90, 90)}
    for name, ends in shades.items():
        frames = [Image.new("L", (8, 8), round(s)) for s in np.linspace(*ends, 4)]
        folder = root / name / "clip"
        folder.mkdir(parents=True)
        for i, frame in enumerate(frames):
            frame.save(folder / f"{i}.png")
        frames[0].save(root / name / "a.gif", save_all=True, append_images=frames[1:])
    gallery = Gallery.create(tmp_path / "g", encoder=Frames(), metric="l2")
    assert gallery.add(root).added == 6
    found = gallery.search(root / "falling" / "a.gif", k=3)
    assert [item.label for item in found.items[:2]] == ["falling", "falling"]
    assert {path.name for path in found.paths[:2]} == {"clip", "a.gif"}
    assert gallery.add(root).unchanged == 6
    Image.new("L", (8, 8), 255).save(root / "flat" / "clip" / "3.png")
    assert gallery.add(root).updated == 1
    found.save(tmp_path / "clips.png")
    with pytest.raises(GalleryError, match="keeps sequences as files"):
        gallery.add(np.zeros((2, 3, 8, 8), np.uint8))
    opened = Gallery.open(tmp_path / "g", encoder=Frames())
    assert opened.search(root / "flat" / "a.gif", k=1).items[0].label == "flat"
