"""One bad row, column, file or picture never takes the rest along, and sizes come before work."""

from __future__ import annotations

import io
import json
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tables_fuzz
from fastretrieve.data import DataError, Dataset, open_dataset, read_image, read_item, rows
from fastretrieve.data.columns import numbers
from fastretrieve.data.errors import TooLarge
from fastretrieve.data.opening import FORMATS, UPLOAD_FORMATS, open_picture
from fastretrieve.gallery import Gallery, GalleryError
from fastretrieve.gallery.lookup.queries import decode
from gallery_helpers import new_gallery, picture, write_pictures

GOOD = '{"path": "a.png", "n": 1}'
JSON_ROWS = {
    "a box of infinity": ('{"path": "a.png", "box": [0, 0, Infinity, 5]}', "no number"),
    "a box beyond floats": ('{"path": "a.png", "box": [0, 0, 1e999, 5]}', "beyond 64 bits"),
    "a box that is not a number": ('{"path": "a.png", "box": [0, 0, NaN, 5]}', "not in pixels"),
    "a reversed box": ('{"path": "a.png", "box": [9, 0, 1, 5]}', "is empty"),
    "a negative extent": ('{"path": "a.png", "x": 1, "y": 1, "w": -3, "h": 2}', "is empty"),
    "a box of three": ('{"path": "a.png", "box": [1, 2, 3]}', "box is"),
    "a box that is text": ('{"path": "a.png", "box": "1234"}', "box is"),
    "a box of lists": ('{"path": "a.png", "box": [[1], 2, 3, 4]}', "not made of numbers"),
    "a box of a huge number": ('{"path": "a.png", "box": [0, 0, 1%s, 4]}' % ("0" * 400), "numbers"),
    "half a surrogate pair": ('{"path": "a.png", "note": "\\ud800"}', "surrogate"),
    "one in a name": ('{"path": "a.png", "\\udfff": 1}', "surrogate"),
    "one inside a list": ('{"path": "a.png", "tags": [{"x": "\\ud800"}]}', "surrogate"),
    "nested too deep": ('{"path": "a.png", "x": ' + "[" * 100_000 + "]" * 100_000 + "}", "deep"),
    "a list as label": ('{"path": "a.png", "label": ["a"]}', "a label is"),
    "a dictionary as label": ('{"path": "a.png", "label": {"a": 1}}', "a label is"),
    "a truth as label": ('{"path": "a.png", "label": true}', "a label is"),
    "a number beyond float": ('{"path": "a.png", "n": 1e999}', "beyond 64 bits"),
    "minus infinity": ('{"path": "a.png", "n": -Infinity}', "no number"),
    "a number of 5,000 digits": ('{"path": "a.png", "n": %s}' % ("9" * 5000), "5000 digits"),
    "a path that is a list": ('{"path": ["a.png"]}', "a path is text"),
    "a path with a NUL": ('{"path": "a\\u0000.png"}', "NUL"),
    "a NUL byte": ('{"path": "a.png", "n": "\0"}', "NUL"),
    "one name twice": ('{"path": "a.png", "path": "b.png"}', "comes twice"),
    "a list": ("[1, 2]", "not a JSON object"),
    "only an empty name": ('{"": "a.png"}', "no path"),
    "cut": ('{"path": "a.p', "not JSON"),
    "too long": ('{"path": "a.png", "n": "%s"}' % ("x" * rows.MAX_ROW), "characters, at most"),
    "too many columns": (
        json.dumps({"path": "a.png", **{f"c{i}": i for i in range(1000)}}),
        "1001",
    ),
}


def table(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def reasons(data: Dataset) -> list[str]:
    return [f"{one.key.rpartition(':')[2]}: {one.reason}" for one in data.skipped]


@pytest.mark.parametrize("name", JSON_ROWS)
def test_a_bad_row_of_json_is_named_and_the_others_go_in(tmp_path: Path, name: str) -> None:
    bad, reason = JSON_ROWS[name]
    data = open_dataset(table(tmp_path, "t.jsonl", f"{GOOD}\n{bad}\n{GOOD}\n"))
    assert len(data) == 2
    assert data.columns["n"].tolist() == [1, 1]
    (said,) = reasons(data)
    assert said.startswith("2: ")
    assert reason in said


CSV_ROWS: dict[str, tuple[str | bytes, str]] = {
    "a NUL byte": ("a.png,x\0,1", "NUL"),
    "not UTF-8": (b"a.png,caf\xe9,1", "not UTF-8"),
    "more fields": ("a.png,x,1,2", "4 fields, but 3 columns"),
    "a stray quote": (chr(34).join(["a.png,", "x,1"]), "expected after"),
    "a field too large": (f"a.png,{'x' * 200_000},1", "field larger"),
    "a line too long": (f"a.png,{'x' * rows.MAX_ROW},1", "characters, at most"),
}


@pytest.mark.parametrize("name", CSV_ROWS)
def test_a_bad_row_of_csv_is_named_and_the_others_go_in(tmp_path: Path, name: str) -> None:
    bad, reason = CSV_ROWS[name]
    line = bad if isinstance(bad, bytes) else bad.encode()
    text = b"\n".join([b"path,note,n", b"b.png,y,1", line, b"c.png,z,2", b'd.png,"two\nlines",3'])
    data = open_dataset(table(tmp_path, "t.csv", text))
    assert data.columns["note"].tolist() == ["y", "z", "two\nlines"]
    assert data.columns["n"].tolist() == [1, 2, 3]
    (said,) = reasons(data)
    assert said.startswith("3: ")
    assert reason in said


def test_rows_with_fewer_fields_and_other_line_ends_are_read(tmp_path: Path) -> None:
    data = open_dataset(table(tmp_path, "t.csv", "﻿path,label,n\r\na.png,boot\r\nb.png,bag,5,\r\n"))
    assert data.column("label").tolist() == ["boot", "bag"]
    assert data.columns["n"].tolist() == [None, 5]
    assert data.skipped == ()
    assert len(open_dataset(table(tmp_path, "u.csv", "path,n\ra.png,1\rb.png,2"))) == 2


def test_columns_without_a_name_of_their_own_are_named_and_left_out(tmp_path: Path) -> None:
    data = open_dataset(table(tmp_path, "t.csv", "path,n,,n,N\na.png,1,2,3,4\n"))
    assert {name: column.tolist() for name, column in data.columns.items()} == {"n": [1], "N": [4]}
    assert [one.key.rpartition(": ")[2] for one in data.skipped] == ["column 3", "column 4"]
    many = ",".join(f"c{i}" for i in range(1100))
    data = open_dataset(table(tmp_path, "u.csv", f"path,{many}\na.png,{many}\n"))
    assert len(data.columns) == rows.MAX_COLUMNS - 1
    assert "at most 1000 columns" in data.skipped[0].reason


def test_a_table_in_utf_16_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="UTF-16"):
        open_dataset(table(tmp_path, "t.csv", "path\na.png\n".encode("utf-16")))


def test_a_hundred_megabytes_without_an_end_of_line_are_one_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with path.open("wb") as file:
        file.write(f"{GOOD}\n".encode())
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(f"\n{GOOD}\n".encode())
    data = open_dataset(path)
    assert len(data) == 2
    assert reasons(data) == [f"2: a row of 100,000,001 characters, at most {rows.MAX_ROW:,} go"]


def test_stray_quotes_do_not_make_the_reader_begin_again_for_ever(tmp_path: Path) -> None:
    lines = "".join(f'{i}.png,"x{"y" * 90}\n\n' for i in range(20_001))
    data = open_dataset(table(tmp_path, "t.csv", f"path,note\na.png,fine\n{lines}"))
    assert (len(data), len(data.skipped)) == (1, 20_001)


@pytest.mark.parametrize(
    "text", ["007", "+1", "1_000", "nan", "inf", " 5 ", "12e4567", "0x10", "٣", "5.", "1e999"]
)
def test_what_is_not_written_as_a_number_makes_text_of_its_column(text: str) -> None:
    assert numbers(["5", text, "1"]) is None


def test_numbers_are_whole_columns_of_them() -> None:
    assert numbers(["5", "", "-17", None]) == [5, None, -17, None]
    assert numbers(["1", "2.50", ".5", "1e3"]) == [1.0, 2.5, 0.5, 1000.0]
    assert numbers([str(2**63 - 1), str(-(2**63))]) == [2**63 - 1, -(2**63)]
    assert numbers([str(2**63)]) is None
    assert numbers([str(2**53 + 1), "0.5"]) is None  # a float would not hold it
    assert numbers([str(2**53), "0.5"]) == [2.0**53, 0.5]


def test_gaps_of_a_table_do_not_take_memory_that_grows_with_their_square(tmp_path: Path) -> None:
    n = 40_000
    text = "".join(f'{{"path":"a","{i:x}":1}}\n' for i in range(n))
    data = open_dataset(table(tmp_path, "t.jsonl", text))
    assert len(data) == n
    assert sum(map(len, data.columns.values())) <= (20 << 20) + n
    assert "its gaps take too much memory" in data.skipped[0].reason
    assert len(data.columns) + len(data.skipped) == n


# --- pictures -------------------------------------------------------------------------------------


def test_only_formats_that_we_mean_are_opened(tmp_path: Path) -> None:
    assert not {"EPS", "PSD", "WMF", "FITS", "SPIDER"} & {*FORMATS}
    assert {*UPLOAD_FORMATS} <= {*FORMATS}
    Image.init()
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    path = tmp_path / "a.jpg"
    path.write_bytes(script)
    readers: list[Callable[[], Any]] = [
        lambda: read_image(path),
        lambda: read_item(path, modality="sequence"),
        lambda: decode(script),
    ]
    for read in readers:
        with pytest.raises((DataError, GalleryError), match="not a readable image"):
            read()


def test_every_known_suffix_has_its_format(tmp_path: Path) -> None:
    for suffix in (".jpg", ".png", ".bmp", ".gif", ".webp", ".tif", ".ppm", ".jp2", ".ico", ".tga"):
        picture(1, size=(32, 32)).save(tmp_path / f"a{suffix}")
        assert read_image(tmp_path / f"a{suffix}").size == (32, 32), suffix


def test_image_open_is_called_in_one_place_only() -> None:
    package = Path(rows.__file__).parents[1]
    callers = [p.name for p in package.rglob("*.py") if "Image.open(" in p.read_text()]
    assert sorted({*callers}) == ["opening.py"]


MANY = {"tif": "TIFF", "gif": "GIF", "webp": "WEBP", "png": "PNG"}


@pytest.mark.parametrize("suffix", MANY)
def test_frames_count_against_the_pixel_limit_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    frames = [Image.new("RGB", (100, 100), (12 * i, 255 - 12 * i, 0)) for i in range(20)]
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert len(read_item(path, modality="sequence")) == 20
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60_000)  # twice that goes: twelve frames
    with pytest.raises(TooLarge, match=r"130,000 pixels in all frames, at most 120,000 go"):
        read_item(path, modality="sequence")
    assert read_image(path).size == (100, 100)


def test_a_small_tiff_of_large_frames_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    frames = [Image.new("1", (6000, 6000), i % 2) for i in range(20)]
    frames[0].save(path, save_all=True, append_images=frames[1:], compression="group4")
    assert path.stat().st_size < 300_000
    program = (
        "import resource, sys\n"
        "from fastretrieve.data import DataError, read_item\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_item(sys.argv[1], modality='sequence')\n"
        "except DataError as error: print(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, path],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    reason, grown = done.stdout.splitlines()
    assert "pixels in all frames" in reason
    assert int(grown) < 400  # MiB; all frames take 720


def test_frames_of_a_folder_are_made_smaller_where_they_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(8):
        Image.new("L", (200, 100), i).save(tmp_path / f"{i}.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40_000)
    sizes = {frame.size for frame in read_item(tmp_path, modality="sequence", size=16)}
    assert sizes == {(141, 70)}
    with pytest.raises(TooLarge, match="in all frames"):
        read_item(tmp_path, modality="sequence", size=90)


def test_an_icon_of_a_large_picture_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    inner = io.BytesIO()
    Image.new("L", (3000, 3000)).save(inner, "PNG")
    head = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, 0, 22)
    path = tmp_path / "a.ico"
    path.write_bytes(head + inner.getvalue())
    with (
        pytest.raises(TooLarge, match="9,000,000 pixels"),
        open_picture(path, max_pixels=1_000_000),
    ):
        pass


def test_tiles_larger_than_their_picture_count(tmp_path: Path) -> None:
    tags = [(256, 4, 8), (257, 4, 8), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1)]
    tags += [(322, 4, 32768), (323, 4, 32768), (324, 4, 200), (325, 4, 50)]
    body = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    body += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    path = tmp_path / "a.tif"
    path.write_bytes(body.ljust(200, b"\0") + zlib.compress(bytes(1000)))
    with pytest.raises(DataError, match="pixels"):
        read_image(path)


# --- arrays ---------------------------------------------------------------------------------------


def npy(shape: str, data: bytes, descr: str = "'<f4'") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


BAD_ARRAYS = {
    "a shape that is not there": npy("(10000000000, 100)", bytes(80)),
    "a shape beyond 64 bits": npy("(4294967296, 4294967296, 7)", bytes(80)),
    "a negative shape": npy("(-2, 10)", bytes(80)),
    "objects": npy("(2,)", b"cos\nsystem\n(S'id'\ntR.", "'|O'"),
    "nothing at all": npy("(99999999999,)", b"", "'|V0'"),
    "more than it says": npy("(2,)", bytes(80)),
    "nested brackets": npy("(" * 5000 + "2", bytes(80)),
    "empty": b"",
    "text": b"hello",
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
@pytest.mark.parametrize("modality", ["image", "sequence"])
def test_an_array_holds_what_its_header_says(tmp_path: Path, name: str, modality: Any) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(BAD_ARRAYS[name])
    with pytest.raises(DataError, match="not a readable array"):
        open_dataset(path, modality=modality)[0]


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    for array in (
        np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.zeros((0, 5)),
        np.array(3.5),
        np.array([["a", "bc"]]),
    ):
        np.save(tmp_path / "a.npy", array)
        got = read_item(tmp_path / "a.npy", modality="sequence")
        assert (got.shape, got.dtype, got.tolist()) == (array.shape, array.dtype, array.tolist())


def test_an_npz_file_does_not_grow_a_thousandfold(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, images=np.zeros((270, 1000, 1000), np.uint8), other=np.zeros(3))
    with pytest.raises(TooLarge, match=r"270,000,128 bytes once it is unpacked.*np\.savez"):
        open_dataset(path)
    np.savez(path, images=np.ones((3, 8, 8), np.uint8), other=np.array([{}], object))
    assert len(open_dataset(path)) == 3  # what is not asked for is not read


# --- files that are none --------------------------------------------------------------------------


def strangers(folder: Path) -> dict[str, Path]:
    """Things with the names of pictures that are no files."""
    made = {
        kind: folder / f"{kind}.jpg" for kind in ("pipe", "socket", "loop", "nowhere", "device")
    }
    os.mkfifo(made["pipe"])
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(folder)  # the name of a socket has at most 107 bytes
        try:
            listening.bind("socket.jpg")
        finally:
            os.chdir(here)
    made["loop"].symlink_to("loop.jpg")
    made["nowhere"].symlink_to("not-there")
    made["device"].symlink_to("/dev/zero")
    (folder / "round").symlink_to(".")
    return made


def test_what_is_no_file_is_an_error_and_nothing_waits(tmp_path: Path) -> None:
    for kind, path in strangers(tmp_path).items():
        for modality in ("image", "sequence"):
            with pytest.raises(DataError) as raised:
                read_item(path, modality=modality)
            assert kind in str(raised.value)  # the kind, or the name
    for suffix in (".csv", ".jsonl", ".npy", ".npz"):
        os.mkfifo(tmp_path / f"a{suffix}")
        with pytest.raises(DataError):
            open_dataset(tmp_path / f"a{suffix}", modality="sequence")[0]


def test_a_gallery_takes_the_rest_of_a_folder_and_names_what_is_bad(tmp_path: Path) -> None:
    root = tmp_path / "p"
    good = write_pictures(root / "boot", 2)
    strangers(root)
    raw = os.fsencode(root / "boot") + b"/caf\xe9.png"
    Path(os.fsdecode(raw)).write_bytes(good[0].read_bytes())
    (root / "bad.png").write_bytes(b"no picture")
    gallery = new_gallery(tmp_path / "g")
    table = tmp_path / "t.csv"
    table.write_text(f"path\n{root}/pipe.jpg\n{root}/device.jpg\n{root}/bad.png\n{root}\n")
    result = gallery.add(root, table)
    assert result.added == 2
    named = {Path(one.key).name: one.reason for one in result.unreadable}
    assert "not UTF-8" in named.pop(r"caf\xe9.png")
    assert {*named} == {"bad.png", "loop.jpg", "nowhere.jpg", "pipe.jpg", "device.jpg", "p"}
    assert named["pipe.jpg"].endswith("a pipe, not a file")
    assert named["nowhere.jpg"] == "a link that leads nowhere"
    assert gallery.check() == []
    assert json.dumps([one._asdict() for one in result.unreadable])
    with pytest.raises(DataError, match="pipe"):
        gallery.search(root / "pipe.jpg")
    assert len(open_dataset(root)) == 4  # without a database a name may be any bytes
    named_itself = gallery.add([os.fsdecode(raw)])
    assert (named_itself.added, len(named_itself.unreadable)) == (0, 1)


@pytest.mark.skipif(os.getuid() != 0, reason="needs to become somebody else")
def test_a_folder_without_permission_is_named_and_the_rest_goes_on() -> None:
    # Not tmp_path: whichever pytest starts meanwhile shuts its parent to others.
    with tempfile.TemporaryDirectory() as folder:
        _add_as_somebody_else(Path(folder))


def _add_as_somebody_else(folder: Path) -> None:
    root = folder / "p"
    write_pictures(root / "open", 2)
    write_pictures(root / "shut", 2)
    write_pictures(root / "blind", 2)
    write_pictures(root / "open", 1, first=9)
    (root / "shut").chmod(0)
    (root / "blind").chmod(0o744)  # can be listed, but not looked into
    (root / "open" / "00009.png").chmod(0)
    folder.chmod(0o777)
    program = (
        "import os, sys\n"
        "import numpy, PIL.Image, fastretrieve.gallery.gallery\n"
        "import fastretrieve.encoders.models.pixels\n"
        "from fastretrieve.data import open_dataset\n"
        "from fastretrieve.gallery import Gallery\n"
        "gallery = Gallery.create(sys.argv[2], encoder='pixels', image_size=8)\n"
        "os.system(f'chmod -R a+rwX {sys.argv[2]}')\n"
        "os.setuid(65534)\n"
        "data = open_dataset(sys.argv[1])\n"
        "print(len(data), sorted(os.path.basename(one.key) for one in data.skipped))\n"
        "result = gallery.add(sys.argv[1])\n"
        "print(result.added, sorted(os.path.basename(one.key) for one in result.unreadable))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, root, folder / "g"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    listed, added = done.stdout.splitlines()
    assert listed == "5 ['shut']"
    assert added == "2 ['00000.png', '00001.png', '00009.png', 'shut']"


def test_times_beyond_64_bits_and_before_1970_are_kept_as_far_as_they_go(tmp_path: Path) -> None:
    from fastretrieve.gallery.intake.listing import size_and_time

    def status(time: int) -> Any:
        return type("Status", (), {"st_size": 5, "st_mtime_ns": time})()

    assert size_and_time([status(2**70)]) == (5, 2**63 - 1)
    assert size_and_time([status(-(2**70))]) == (5, -(2**63 - 1))
    (path,) = write_pictures(tmp_path, 1)
    for seconds in (-10, 2**34 - 1, 2**40):  # file systems cut what they cannot hold
        os.utime(path, (seconds, seconds))
        gallery = new_gallery(tmp_path / f"g{seconds}")
        assert gallery.add(path).added == 1
        assert gallery.add(path).unchanged == 1


def test_a_gallery_in_which_every_file_is_bad_is_a_gallery(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(b"no picture")
    gallery = new_gallery(tmp_path / "g")
    result = gallery.add(tmp_path)
    assert (result.added, len(result.unreadable), len(gallery)) == (0, 3, 0)
    assert len(gallery.search(picture(1))) == len(gallery.unreadable()) - 3 == 0
    assert (gallery.update().added, gallery.check()) == (0, [])


def test_a_file_that_changes_while_it_is_read_is_read_again_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastretrieve.gallery.intake import reading

    (path,) = write_pictures(tmp_path / "p", 1)
    digest = reading._digest

    def slowly(file: Any, *more: Any) -> str:
        found = digest(file, *more)
        picture(99, size=(30, 30)).save(path)
        return found

    gallery = new_gallery(tmp_path / "g")
    with monkeypatch.context() as patched:
        patched.setattr(reading, "_digest", slowly)
        gallery.add(path)
    assert gallery.add(path).updated == 1
    assert gallery.search(picture(99, size=(30, 30)), k=1).scores[0] == pytest.approx(1)


def test_folders_may_be_nested_deeper_than_python_calls(tmp_path: Path) -> None:
    here, depth = os.getcwd(), 1500
    os.chdir(tmp_path)
    try:
        for _ in range(depth):
            os.mkdir("d")
            os.chdir("d")
        picture(1).save("a.png")
    finally:
        os.chdir(here)
    try:
        assert len(open_dataset(tmp_path)) == 1
        assert new_gallery(tmp_path / "g").add(tmp_path).added == 1
    finally:  # Python's own way to remove folders calls itself
        subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)


# --- columns of a gallery -------------------------------------------------------------------------


def rows_of(gallery: Gallery) -> list[dict[str, Any]]:
    return [item.metadata for item in gallery.items()]


def test_columns_never_merge_and_every_table_finds_its_own(tmp_path: Path) -> None:
    write_pictures(tmp_path, 2)
    first = table(
        tmp_path, "1.jsonl", json.dumps({"path": "00000.png", "id": 1, "id_": 2, "ab": 3})
    )
    second = table(
        tmp_path, "2.jsonl", json.dumps({"path": "00001.png", 'a"b': 4, "AB": 5, "id_": 6, "id": 7})
    )
    gallery = new_gallery(tmp_path / "g")
    gallery.add(first)
    gallery.add(second)
    assert gallery.columns == ["id_", "id__2", "ab", "ab_2", "AB_3"]
    assert [list(row.values()) for row in rows_of(gallery)] == [
        [1, 2, 3, None, None],
        [7, 6, None, 4, 5],
    ]
    assert gallery.add(first, second).unchanged == 2
    opened = Gallery.open(tmp_path / "g")
    changed = json.dumps({"path": "00001.png", "AB": 55, "id_": 66})
    assert opened.add(table(tmp_path, "3.jsonl", changed)).relabelled == 1
    assert list(rows_of(opened)[1].values()) == [7, 66, None, 4, 55]
    assert [item.id for item in opened.items('"id__2" = 66')] == [2]


def test_a_gallery_from_before_keeps_its_columns(tmp_path: Path) -> None:
    import sqlite3

    write_pictures(tmp_path, 1)
    rows_given = json.dumps({"path": "00000.png", "id": 1, "Price": 2})
    gallery = new_gallery(tmp_path / "g")
    gallery.add(table(tmp_path, "t.jsonl", rows_given))
    gallery.close()
    with sqlite3.connect(tmp_path / "g" / "items.sqlite") as connection:
        connection.execute("DROP TABLE column_of")  # as it was made before there was one
    connection.close()
    opened = Gallery.open(tmp_path / "g")
    assert opened.add(table(tmp_path, "t.jsonl", rows_given)).unchanged == 1
    assert opened.columns == ["id_", "Price"]


def test_columns_beyond_those_that_a_gallery_holds_are_named(tmp_path: Path) -> None:
    write_pictures(tmp_path, 1)
    row = {"path": "00000.png", **{f"c{i}": i for i in range(405)}}
    gallery = new_gallery(tmp_path / "g")
    result = gallery.add(table(tmp_path, "t.jsonl", json.dumps(row)))
    assert (result.added, len(gallery.columns)) == (1, 400)
    assert [one.key for one in result.unreadable] == [f"column 'c{i}'" for i in range(400, 405)]


def test_metadata_stays_as_it_was_written(tmp_path: Path) -> None:
    write_pictures(tmp_path, 2)
    given = {
        "a": "12e4567",
        "b": "1_000",
        "c": "nan",
        "d": "007",
        "e": "+1",
        "f": " 5 ",
        "g": "inf",
    }
    lines = [",".join(["path", *given]), ",".join(["00000.png", *given.values()])]
    lines.append(",".join(["00001.png", *"1234567"]))
    gallery = new_gallery(tmp_path / "g")
    assert gallery.add(table(tmp_path, "t.csv", "\n".join(lines))).added == 2
    assert rows_of(gallery) == [given, dict(zip(given, "1234567", strict=True))]


@pytest.mark.parametrize("path", sorted(tables_fuzz.CORPUS.iterdir()), ids=lambda path: path.name)
def test_what_fuzzing_kept(path: Path, tmp_path: Path) -> None:
    tables_fuzz.survives(path.read_bytes(), path.suffix, tmp_path)


def test_damaged_tables_and_pictures_are_answers(tmp_path: Path) -> None:
    chance = random.Random(12)
    for _ in range(100):
        suffix, blob = chance.choice(tables_fuzz.seeds())
        tables_fuzz.survives(tables_fuzz.damaged(blob, chance), suffix, tmp_path)
