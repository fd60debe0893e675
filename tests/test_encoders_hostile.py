"""A stranger's encoder runs nothing, and whatever is wrong with it is an EncoderError."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import fastretrieve as fr
from fastretrieve import cli
from fastretrieve.encoders import (
    EncoderError,
    ModuleEncoder,
    as_encoder,
    create_encoder,
    encoder_class,
    load_encoder,
    read_encoder,
    write_encoder,
)
from fastretrieve.encoders.models.cnn import CnnEncoder
from fastretrieve.encoders.models.pixels import PixelsEncoder
from fastretrieve.encoders.models.pretrained import refuse_old_torch
from fastretrieve.encoders.one_off import _encoded
from fastretrieve.encoders.registry import plugin_class

PACKAGE = Path(fr.__file__).parent
FUZZ = Path(__file__).parent / "fuzz" / "fuzz_encoders.py"
SMALL = {"dim": 4, "image_size": 8, "channels": 1, "width": 2}


def planted(folder: Path) -> tuple[Path, Path]:
    """A file with an encoder that leaves a mark when it runs, and the mark."""
    folder.mkdir(parents=True, exist_ok=True)
    mark, path = folder / "ran", folder / "x.py"
    path.write_text(
        f"open({str(mark)!r}, 'w').close()\n"
        "from fastretrieve.encoders.models.pixels import PixelsEncoder\n"
        "class X(PixelsEncoder): name = 'x'\n"
    )
    return path, mark


def edit(folder: Path, **fields: Any) -> None:
    """Other fields in the config; None takes one away."""
    path = folder / "config.json"
    header = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({n: v for n, v in header.items() if v is not None}))


def fit_checksum(folder: Path) -> None:
    data = (folder / "weights.safetensors").read_bytes()
    edit(folder, weights_sha256=hashlib.sha256(data).hexdigest())


# --- nothing runs ---------------------------------------------------------------------------------

NAMES = {
    "a path": "{folder}/x.py:X",
    "a path from here": "./x.py:X",
    "a file like a package": "x.py:X",
    "a module": "module:x.X",
    "a command": "module:os.system",
    "an upper case prefix": "MODULE:x.X",
    "a wildcard": "fastretrieve:*",
    "a module of a file": "fastretrieve.encoders.one_off.{encoded}:X",
    "a link with a line end": "./x.py:X\n",
}


@pytest.mark.parametrize("case", NAMES)
def test_a_name_in_a_directory_runs_nothing(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, mark = planted(tmp_path)
    name = NAMES[case].format(folder=tmp_path, encoded=_encoded(path))
    images = np.zeros((3, 4, 4, 3), np.uint8) + np.arange(3, dtype=np.uint8)[:, None, None, None]
    with fr.Gallery.create("g", encoder="pixels", image_size=4) as gallery:
        gallery.add(images)
    edit(tmp_path / "g" / "encoder", encoder=name)
    for open_ in (load_encoder, as_encoder, lambda f: fr.Gallery.create("other", encoder=f)):
        with pytest.raises(EncoderError, match=r"g/encoder"):
            open_(Path("g/encoder"))  # type: ignore[operator]
    with fr.Gallery.open("g") as gallery, pytest.raises(EncoderError):
        _ = gallery.encoder
    with pytest.raises(EncoderError):
        plugin_class(name)
    for arguments in (["search", "g", "q.png"], ["add", "g", "."], ["train", ".", "--out", "o"]):
        if arguments[0] == "train":
            arguments += ["--encoder", "g/encoder"]
        from PIL import Image

        Image.new("RGB", (9, 9)).save("q.png")
        shown = CliRunner().invoke(cli.app, arguments)
        assert shown.exit_code == 1, shown.output
        assert isinstance(shown.exception, RuntimeError), shown.exception
    for place in ("g", "g/encoder"):
        shown = CliRunner().invoke(cli.app, ["info", place, "--check", "--json"])
        assert shown.exit_code == 1
        (fault,) = json.loads(shown.stdout)["faults"]
        assert "no name of an installed encoder" in fault
    assert not mark.exists()
    assert "x" not in sys.modules


def test_the_caller_may_name_a_file_each_time(tmp_path: Path) -> None:
    path, mark = planted(tmp_path)
    create_encoder(f"{path}:X", image_size=4).save(tmp_path / "saved")
    assert load_encoder(tmp_path / "saved", encoder=f"{path}:X").name == "x"
    assert mark.exists()
    with pytest.raises(EncoderError, match="no encoder is called 'x'"):
        load_encoder(tmp_path / "saved")


def test_a_path_in_the_name_of_a_module_runs_nothing_where_nobody_named_it(tmp_path: Path) -> None:
    path, mark = planted(tmp_path)
    code = f"import fastretrieve.encoders.one_off; import {_module_of(path)}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError" in done.stderr
    assert not mark.exists()


def _module_of(path: Path) -> str:
    return f"fastretrieve.encoders.one_off.{_encoded(path)}"


def _size_of(encoder: Any) -> int:
    return int(encoder.image_size[0])


def test_a_worker_process_gets_an_encoder_of_a_file(tmp_path: Path) -> None:
    path, _ = planted(tmp_path)
    encoder = create_encoder(f"{path}:X", image_size=4)
    context = get_context("spawn")
    with ProcessPoolExecutor(
        1, mp_context=context, initializer=_size_of, initargs=(encoder,)
    ) as pool:
        assert pool.submit(_size_of, encoder).result(timeout=120) == 4


class Opens(torch.nn.Module):
    """A network that opens what its argument names, as many do."""

    opened: list[str] = []  # noqa: RUF012

    def __init__(self, weights: str = "word", width: int = 3) -> None:
        super().__init__()
        self.opened.append(weights)
        self.layer = torch.nn.Linear(48, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layer(x.flatten(1))
        return found


def test_a_file_hands_no_path_to_a_module_that_the_caller_names(tmp_path: Path) -> None:
    name = f"module:{Opens.__module__}.Opens"
    encoder = create_encoder(name, image_size=4, arguments={"width": 5})
    encoder.save(tmp_path)
    assert load_encoder(tmp_path, encoder=name).dim == 5
    Opens.opened.clear()
    for weights in ("/etc/passwd", "../x", "a.pth", "http://x", {"file": "x"}):
        edit(tmp_path, config={**encoder.config, "arguments": {"weights": weights}})  # type: ignore[attr-defined]
        with pytest.raises(EncoderError, match="could name files"):
            load_encoder(tmp_path, encoder=name)
    assert Opens.opened == []
    assert ModuleEncoder.load.__doc__


def test_weights_only_is_not_believed_of_an_old_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_old_torch()
    for version in ("2.9.1", "2.5.1", "1.13.0+cu117"):
        monkeypatch.setattr(torch, "__version__", version)
        with pytest.raises(EncoderError, match=r"takes torch 2\.10 or newer"):
            refuse_old_torch()


MAY = {  # what reads code or pickles, and where it may
    "eval": set[str](),
    "exec": {"worker.py"},  # the main file of the process that asked for a check
    "__import__": set[str](),
    "loads of pickle": {"worker.py"},  # of a process and its own worker
    "load of pickle": set[str](),
    "load of yaml": set[str](),
}


def code_readers(tree: ast.AST) -> list[str]:
    """Calls that turn data into code."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec", "__import__"):
            found.append(node.func.id)
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        if isinstance(owner, ast.Name) and isinstance(node.func, ast.Attribute):
            options = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            name = f"{node.func.attr} of {owner.id}"
            if name == "load of torch" and options.get("weights_only") is not True:
                found.append(name)
            if name == "load of np" and options.get("allow_pickle") is not False:
                found.append(name)
            if owner.id in ("pickle", "yaml", "marshal", "shelve", "dill", "joblib"):
                found += [name] if node.func.attr in ("load", "loads", "open") else []
    return found


def test_no_file_of_the_package_turns_data_into_code() -> None:
    for path in PACKAGE.rglob("*.py"):
        for name in code_readers(ast.parse(path.read_bytes())):
            assert path.name in MAY.get(name, set()), f"{path}: {name}"
    planted_calls = "eval(x); torch.load(f); np.load(f); pickle.loads(b); exec(x)"
    assert len(code_readers(ast.parse(planted_calls))) == 5


# --- every fault is an EncoderError ---------------------------------------------------------------


def _link(name: str) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        target = folder.parent / f"target-{name}"
        (folder / name).rename(target)
        (folder / name).symlink_to(target)

    return plant


def _instead(name: str, make: Callable[[Path], Any]) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return plant


def _text(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        path = folder / "config.json"
        path.write_bytes(change(path.read_bytes()))

    return plant


def _sparse(folder: Path) -> None:
    os.truncate(folder / "config.json", 1 << 30)


def _options(**options: Any) -> Callable[[Path], None]:
    return lambda f: edit(f, config={**read_encoder(f).config, **options})


def _tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        path = folder / "weights.safetensors"
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
        change(tensors)
        save_file(tensors, path)
        fit_checksum(folder)

    return plant


def _raw(head: bytes, data: bytes = b"") -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        whole = len(head).to_bytes(8, "little") + head + data
        (folder / "weights.safetensors").write_bytes(whole)
        fit_checksum(folder)

    return plant


PROJECT = "project.weight"
FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no version": (lambda f: edit(f, format_version=None), "no 'format_version'"),
    "a version in words": (lambda f: edit(f, format_version="1"), "a wrong 'format_version'"),
    "a negative version": (lambda f: edit(f, format_version=-5), "a wrong 'format_version'"),
    "version true": (lambda f: edit(f, format_version=True), "a wrong 'format_version'"),
    "a huge version": (lambda f: edit(f, format_version=10**40), "upgrade fastretrieve"),
    "a number of 5,000 digits": (
        _text(lambda t: t.replace(b": 1,", b": " + b"9" * 5000 + b",")),
        "cannot be read",
    ),
    "nested 100,000 deep": (_text(lambda t: b'{"a":' * 10**5), "cannot be read"),
    "a list 100,000 deep": (_text(lambda t: b"[" * 10**5), "cannot be read"),
    "not UTF-8": (_text(lambda t: t + b"\xff"), "cannot be read"),
    "a list": (_text(lambda t: b"[1]"), "no object, list"),
    "one name twice": (_text(lambda t: b'{"format": 1,' + t.lstrip()[1:]), "one name twice"),
    "NaN": (_text(lambda t: t.replace(b": 1,", b": NaN,")), "NaN is no JSON"),
    "empty": (_text(lambda t: b""), "cannot be read"),
    "a gigabyte": (_sparse, "of at most 8388608"),
    "extra is a list": (lambda f: edit(f, extra=[1]), "a wrong 'extra'"),
    "config is a list": (lambda f: edit(f, config=[1]), "a wrong 'config'"),
    "trained in words": (lambda f: edit(f, trained="no"), "a wrong 'trained'"),
    "the encoder is a number": (lambda f: edit(f, encoder=7), "a wrong 'encoder'"),
    "the sum is a list": (lambda f: edit(f, weights_sha256=[]), "a wrong 'weights_sha256'"),
    "an unknown option": (_options(colour=1), "does not fit CnnEncoder"),
    "a modality": (_options(modality="x"), "does not fit CnnEncoder"),
    "dim in words": (_options(dim="many"), "does not fit CnnEncoder"),
    "dim of a trillion": (_options(dim=10**12), "ask for"),
    "width of a million": (_options(width=10**6), "ask for"),
    "dim of a hundred million": (_options(dim=10**8), "ask for"),
    "a seed beyond all": (_options(seed=10**30), "does not fit CnnEncoder"),
    "a list for a size": (_options(image_size=[[8]]), "does not fit CnnEncoder"),
    "no size": (_options(image_size=[]), "does not fit CnnEncoder"),
    "a list for a number": (_options(width=[2]), "option width is"),
    "true for a number": (_options(width=True), "option width is"),
    "classes are a word": (lambda f: edit(f, extra={"classes": "abc"}), "list of names"),
    "classes are numbers": (lambda f: edit(f, extra={"classes": [1]}), "list of names"),
    "many classes": (lambda f: edit(f, extra={"classes": ["c"] * 500_000}), "does not fit"),
    "a tensor is missing": (_tensors(lambda t: t.pop(PROJECT)), "Missing key"),
    "a tensor too many": (_tensors(lambda t: t.update(more=torch.ones(1))), "Unexpected key"),
    "another shape": (_tensors(lambda t: t.update({PROJECT: torch.ones(2, 2)})), "size mismatch"),
    "whole numbers": (_tensors(lambda t: t.update({PROJECT: t[PROJECT].long()})), "is I64"),
    "complex numbers": (_tensors(lambda t: t.update({PROJECT: t[PROJECT] + 0j})), "is C64"),
    "NaN weights": (_tensors(lambda t: t[PROJECT].fill_(float("nan"))), "holds NaN"),
    "no safetensors": (_raw(b"hello"), "cannot be read"),
    "a header of 2^63 bytes": (
        lambda f: ((f / "weights.safetensors").write_bytes(b"\xff" * 64), fit_checksum(f)),
        "its header would take",
    ),
    "a shape of 60,000 sizes": (
        _raw(b'{"a":{"dtype":"F32","shape":[' + b"9," * 60_000 + b'9],"data_offsets":[0,4]}}'),
        "no shape and offsets",
    ),
    "negative sizes": (
        _raw(b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,-4]}}'),
        "no shape and offsets",
    ),
    "tensors that overlap": (
        _raw(
            b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},'
            b'"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}',
            b"1234",
        ),
        "begins at byte 0",
    ),
    "more bytes": (_raw(b"{}", b"1234"), "its tensors end at byte"),
    "a link to the config": (_link("config.json"), "is a link"),
    "a link to the weights": (_link("weights.safetensors"), "is a link"),
    "a link to the passwords": (
        _instead("config.json", lambda p: p.symlink_to("/etc/passwd")),
        "is a link",
    ),
    "a pipe": (_instead("weights.safetensors", lambda p: os.mkfifo(p)), "is a pipe"),
    "a pipe for a config": (_instead("config.json", lambda p: os.mkfifo(p)), "is a pipe"),
    "a folder": (_instead("weights.safetensors", lambda p: p.mkdir()), "is a folder"),
    "a folder for a config": (_instead("config.json", lambda p: p.mkdir()), "is a folder"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("made")
    CnnEncoder(**SMALL).save(folder)  # type: ignore[arg-type]
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_an_error_of_the_house(
    case: str, made: dict[str, bytes], tmp_path: Path
) -> None:
    plant, message = FAULTS[case]
    folder = tmp_path / "saved"
    folder.mkdir()
    for name, data in made.items():
        (folder / name).write_bytes(data)
    assert load_encoder(folder).name == "cnn"
    plant(folder)
    for load in (load_encoder, CnnEncoder.load):
        with pytest.raises(EncoderError, match=message) as caught:
            load(folder)
        assert str(folder) in str(caught.value)
        assert len(str(caught.value)) < 1500


PIXEL_FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a side of a billion": (_options(image_size=10**9, dim=None), "of at most"),
    "a PCA of another size": (_options(dim=4), "the weights are"),
    "no PCA": (_options(dim=None), "the weights are"),
    "no components": (_tensors(lambda t: t.pop("components")), "the weights are"),
    "floats of 32 bits": (_tensors(lambda t: t.update(mean=t["mean"].float())), "the weights are"),
    "NaN": (_tensors(lambda t: t["mean"].fill_(float("nan"))), "holds NaN"),
}


@pytest.mark.parametrize("case", PIXEL_FAULTS)
def test_a_fault_of_pixels_is_an_error_of_the_house(case: str, tmp_path: Path) -> None:
    plant, message = PIXEL_FAULTS[case]
    pixels = PixelsEncoder(image_size=4, channels=1, dim=3)
    images = np.random.default_rng(0).integers(0, 255, (9, 4, 4)).astype(np.uint8)
    pixels.fit([pixels.preprocess(images)]).save(tmp_path)
    plant(tmp_path)
    for load in (load_encoder, PixelsEncoder.load):
        with pytest.raises(EncoderError, match=message) as caught:
            load(tmp_path)
        assert str(tmp_path) in str(caught.value)


class Moody(PixelsEncoder):
    """Fails as no protocol says."""

    name = "moody"

    @classmethod
    def load(cls, directory: str | Path, *, device: str = "cpu") -> Moody:
        raise IndexError("deep inside")


def test_an_encoder_that_fails_in_its_own_way_is_named(tmp_path: Path) -> None:
    Moody(image_size=4).save(tmp_path)
    with pytest.raises(EncoderError, match="does not fit Moody: IndexError: deep inside"):
        load_encoder(tmp_path, encoder=Moody)


def test_a_plugin_may_build_more_than_it_saves(tmp_path: Path) -> None:
    from wrong_encoders import RightEncoder

    class Frozen(RightEncoder):  # type: ignore[no-untyped-call, misc]
        def __init__(self, *, dim: int = 6) -> None:
            super().__init__(dim=dim)
            self.frozen = torch.zeros(12_000_000)  # beyond what is allowed to the built-in ones

    Frozen().save(tmp_path)
    assert len(load_encoder(tmp_path, encoder=Frozen).frozen) == 12_000_000  # type: ignore[attr-defined]


def test_saving_follows_no_link_and_writes_no_config_that_loading_would_refuse(
    tmp_path: Path,
) -> None:
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "weights.safetensors").symlink_to(tmp_path / "mine")
    with pytest.raises(EncoderError, match="is a link"):
        PixelsEncoder(image_size=4).save(tmp_path / "saved")
    assert (tmp_path / "mine").read_text() == "precious"
    with pytest.raises(EncoderError, match="may take"):
        write_encoder(tmp_path / "big", encoder="x", config={"a": "b" * (9 << 20)}, weights={})


def test_the_encoder_of_a_gallery_is_no_link(tmp_path: Path) -> None:
    with fr.Gallery.create(tmp_path / "g", encoder="pixels", image_size=4):
        pass
    (tmp_path / "g" / "encoder").rename(tmp_path / "elsewhere")
    (tmp_path / "g" / "encoder").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(fr.GalleryError, match="is a link"):
        fr.Gallery.open(tmp_path / "g")


def test_what_a_stranger_wrote_does_not_steer_the_terminal(tmp_path: Path) -> None:
    PixelsEncoder(image_size=4).save(tmp_path)
    edit(tmp_path, encoder="a\x1b[2J", provider="\x07", config={"a\x1b": "\x1b]0;x\x07\ud800"})
    for arguments in (["info", str(tmp_path)], ["info", str(tmp_path), "--check"]):
        shown = CliRunner().invoke(cli.app, arguments)
        assert "\x1b[2J" not in shown.output
        assert "\x1b]0" not in shown.output
        assert r"\x1b" in shown.output
    with pytest.raises(EncoderError) as caught:
        load_encoder(tmp_path)
    assert "\x1b" not in str(caught.value)


def test_loading_leaves_the_callers_random_state_alone(tmp_path: Path) -> None:
    class Draws(CnnEncoder):
        def __init__(self, **config: Any) -> None:
            super().__init__(**config)
            torch.rand(3)

    Draws(**SMALL).save(tmp_path)
    before = torch.get_rng_state()
    load_encoder(tmp_path, encoder=Draws)
    assert torch.equal(before, torch.get_rng_state())


def test_a_kept_corpus_and_new_damage_give_answers_in_little_time_and_memory() -> None:
    done = subprocess.run(
        [sys.executable, str(FUZZ), "--files", "60"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_file_still_works_where_it_is_named(tmp_path: Path) -> None:
    path, mark = planted(tmp_path)
    assert encoder_class(f"{path}:X").name == "x"
    assert mark.exists()
