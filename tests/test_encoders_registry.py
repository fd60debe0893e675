"""Encoders are found without being imported; a broken one is named and disturbs nobody."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from fastretrieve.encoders import (
    EncoderError,
    as_encoder,
    create_encoder,
    encoder_class,
    list_encoders,
    load_encoder,
    read_encoder,
    write_encoder,
)
from fastretrieve.encoders.models.pixels import PixelsEncoder
from fastretrieve.encoders.registry import check_plugins

GOOD = """
    from fastretrieve.encoders.models.pixels import PixelsEncoder
    class Encoder(PixelsEncoder):
        name = "{name}"
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """``install("dist", name="source")`` puts a distribution with that encoder on the path."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def add(distribution, *, version="1.0", **encoders):
        info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        (info / "METADATA").write_text(metadata)
        lines = ["[fastretrieve.encoders]"]
        for key, source in encoders.items():
            name = key.replace("_", "-")
            module = f"{distribution}_{key}".replace("-", "_")
            lines.append(f"{name} = {module}:Encoder")
            text = textwrap.dedent(source.format(name=name))
            (site / f"{module}.py").write_text(text)
            sys.modules.pop(module, None)
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")

    yield add
    for name in [name for name, m in sys.modules.items() if str(site) in str(m)]:
        del sys.modules[name]


def status(name):
    (plugin,) = [plugin for plugin in list_encoders() if plugin.name == name]
    return plugin.status, plugin.reason


def test_built_ins_come_through_the_same_door():
    found = {plugin.name: plugin for plugin in list_encoders()}
    for name in ("pixels", "cnn", "autoencoder", "vae", "gan", "rnn", "autoregressive"):
        assert found[name].distribution == "fastretrieve"
        assert found[name].status == "available", found[name].reason


def test_listing_imports_no_torch_and_no_plugin(install):
    install("loud", shouts="raise SystemExit('imported')")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from fastretrieve.encoders import list_encoders;"
        "names = [p.name for p in list_encoders()]; assert 'shouts' in names and 'cnn' in names;"
        "assert 'torch' not in sys.modules and 'loud_shouts' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, sys.path[0]], check=True)


def test_a_plugin_works(install, tmp_path):
    install("sketches", version="2.5", sketch=GOOD)
    encoder = create_encoder("sketch", image_size=4, channels=1)
    assert encoder.dim == 16
    encoder.save(tmp_path / "saved")
    assert read_encoder(tmp_path / "saved").provider == "sketches 2.5"
    assert type(load_encoder(tmp_path / "saved")) is type(encoder)


BROKEN = {
    "missing import": ("import nobody_has_this", "imports 'nobody_has_this'"),
    "syntax": ("class Encoder(:", "does not parse"),
    "newer version": ("class Encoder:\n    api_version = 99", "upgrade fastretrieve"),
    "older version": ("class Encoder:\n    api_version: int = 0", "upgrade the plugin"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_fault_that_shows_is_listed_without_importing(install, case):
    source, reason = BROKEN[case]
    install("bad", faulty=source)
    state, found = status("faulty")
    assert state == "broken"
    assert reason in found
    assert "bad_faulty" not in sys.modules
    with pytest.raises(EncoderError, match=r"of bad 1\.0 cannot be used") as caught:
        create_encoder("faulty")
    assert reason in str(caught.value)
    assert "pip install -U bad" in str(caught.value)
    assert create_encoder("pixels").name == "pixels"


RUNS = [
    ("raise RuntimeError('no server')", "RuntimeError: no server"),
    ("import sys\nsys.exit('no licence')", "SystemExit: no licence"),
    ("Other = int", "has no attribute 'Encoder'"),
    ("def Encoder(): pass", "is not a class"),
    ("class Encoder: name = 'faulty'", "has no preprocess, encode"),
    ("class Encoder(int):\n    api_version = 90 + 9", "has no preprocess"),
]


@pytest.mark.parametrize(("source", "reason"), RUNS)
def test_a_fault_that_only_running_shows_names_package_cause_and_remedy(install, source, reason):
    install("bad", faulty=source)
    assert status("faulty") == ("available", "")
    with pytest.raises(EncoderError) as caught:
        encoder_class("faulty")
    for part in ("bad 1.0", reason, "FASTRETRIEVE_DISABLE_ENCODERS=bad:faulty"):
        assert part in str(caught.value)


def test_check_imports_each_in_a_process_of_its_own(install, monkeypatch):
    install("bad", dies="import os\nos._exit(3)", raises="raise RuntimeError('no server')")
    install("good", fine=GOOD)
    monkeypatch.setenv("FASTRETRIEVE_ENCODERS", "dies,raises,fine,good:fine")
    monkeypatch.setenv("PYTHONPATH", sys.path[0])
    found = {plugin.name: plugin for plugin in check_plugins()}
    assert found["dies"][4:] == ("broken", "exit status 3")
    assert found["raises"].status == "broken"
    assert found["raises"].reason == "RuntimeError: no server"
    assert found["fine"].status == "available"


def test_a_plugin_that_hangs_is_cut_off(install, monkeypatch):
    install("bad", sleeps="import time\ntime.sleep(60)")
    monkeypatch.setenv("FASTRETRIEVE_ENCODERS", "sleeps")
    monkeypatch.setenv("PYTHONPATH", sys.path[0])
    found = {plugin.name: plugin for plugin in check_plugins(timeout=2)}
    assert "took over 2 s" in found["sleeps"].reason


def test_two_packages_with_one_name_are_an_error_that_names_both(install):
    install("Ann_Sketch", sketch=GOOD)
    install("bob-sketch", version="3.1", sketch=GOOD)
    states = {p.distribution: p.status for p in list_encoders() if p.name == "sketch"}
    assert states == {"ann-sketch": "ambiguous", "bob-sketch": "ambiguous"}
    with pytest.raises(EncoderError, match=r"ann-sketch 1\.0 and bob-sketch 3\.1") as caught:
        create_encoder("sketch")
    assert "'bob-sketch:sketch'" in str(caught.value)
    assert create_encoder("bob-sketch:sketch").__class__.__module__ == "bob_sketch_sketch"
    assert create_encoder("Ann.Sketch:sketch").__class__.__module__ == "Ann_Sketch_sketch"


def test_disabling_one_settles_the_name(install, monkeypatch):
    install("ann", sketch=GOOD)
    install("bob", sketch=GOOD)
    monkeypatch.setenv("FASTRETRIEVE_DISABLE_ENCODERS", "ann:*")
    assert create_encoder("sketch").__class__.__module__ == "bob_sketch"
    with pytest.raises(EncoderError, match="FASTRETRIEVE_DISABLE_ENCODERS lists it"):
        create_encoder("ann:sketch")


def test_an_allow_list_disables_all_others(install, monkeypatch):
    install("ann", sketch=GOOD)
    monkeypatch.setenv("FASTRETRIEVE_ENCODERS", "pixels, fastretrieve:cnn")
    available = {plugin.name for plugin in list_encoders() if plugin.status == "available"}
    assert available == {"pixels", "cnn"}
    with pytest.raises(EncoderError, match="FASTRETRIEVE_ENCODERS does not list it"):
        create_encoder("sketch")


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(EncoderError, match=r"no encoder is called 'pixel'.*pixels"):
        create_encoder("pixel")


@pytest.mark.parametrize("what", [None, 3, np.eye(2), object])
def test_what_is_no_name_is_refused(what):
    with pytest.raises(TypeError, match=f"by its name, got {type(what).__name__}; a class or an"):
        create_encoder(what)


def test_what_is_no_encoder_is_called_by_its_type():
    torch = pytest.importorskip("torch")
    with pytest.raises(EncoderError, match="encoder 'Tensor' breaks the protocol"):
        as_encoder(torch.eye(2))


def test_an_unknown_option_lists_the_options():
    with pytest.raises(EncoderError, match=r"its options are \['image_size', 'channels'"):
        create_encoder("pixels", size=3)


def test_an_entry_point_and_its_class_agree_on_the_name(install):
    install("ann", sketch=GOOD.replace("{name}", "other"))
    with pytest.raises(EncoderError, match="its name is 'other' but its entry point's is 'sketch'"):
        create_encoder("sketch")


ONE_OFF = textwrap.dedent(GOOD.format(name="mine"))


def test_a_file_is_a_plugin_for_once(tmp_path):
    (tmp_path / "my.py").write_text(ONE_OFF)
    name = f"{tmp_path}/my.py:Encoder"
    encoder = create_encoder(name, image_size=4)
    assert encoder.name == "mine"
    assert encoder_class(name) is type(encoder)  # the file runs once
    encoder.save(tmp_path / "saved")
    with pytest.raises(EncoderError, match=r"load_encoder\(directory, encoder=...\)"):
        load_encoder(tmp_path / "saved")
    assert type(load_encoder(tmp_path / "saved", encoder=name)) is type(encoder)
    assert type(load_encoder(tmp_path / "saved", encoder=type(encoder))) is type(encoder)


@pytest.mark.parametrize(
    ("source", "attribute", "message"),
    [
        ("raise ValueError('x')", "Encoder", "fails when run: ValueError: x"),
        (ONE_OFF, "Missing", "has no 'Missing'; its classes are"),
        ("class Encoder: pass", "Encoder", "is not an encoder"),
    ],
)
def test_a_file_that_is_no_plugin_says_why(tmp_path, source, attribute, message):
    (tmp_path / "my.py").write_text(source)
    with pytest.raises(EncoderError, match=message):
        encoder_class(f"{tmp_path}/my.py:{attribute}")
    with pytest.raises(EncoderError, match="does not exist"):
        encoder_class(f"{tmp_path}/other.py:Encoder")


def test_as_encoder_takes_what_names_one(tmp_path):
    encoder = PixelsEncoder(image_size=4)
    encoder.save(tmp_path)
    assert as_encoder(encoder) is encoder
    assert as_encoder("pixels").dim == 32 * 32 * 3
    assert as_encoder(PixelsEncoder).dim == as_encoder("pixels").dim
    assert as_encoder(str(tmp_path)).dim == as_encoder(tmp_path).dim == 48
    with pytest.raises(EncoderError, match="breaks the protocol"):
        as_encoder(object())


def test_a_name_wins_over_a_folder_that_holds_no_encoder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pixels").mkdir()
    assert load_encoder("pixels").dim == 32 * 32 * 3
    PixelsEncoder(image_size=4).save("pixels")
    assert load_encoder("pixels").dim == 48
    (tmp_path / "photos").mkdir()
    with pytest.raises(EncoderError, match="holds no saved encoder"):
        load_encoder("photos/")


@pytest.mark.parametrize("where", ["missing/", "./missing", "some/where"])
def test_a_missing_directory_is_no_name(where):
    with pytest.raises(EncoderError, match="is not a directory"):
        load_encoder(where)


def saved(folder):
    encoder = create_encoder("pixels", image_size=4, channels=1, dim=3)
    images = np.random.default_rng(0).integers(0, 255, (9, 4, 4)).astype(np.uint8)
    encoder.fit([encoder.preprocess(images)]).save(folder)
    return folder


DAMAGE = {
    "no config": (lambda f: (f / "config.json").unlink(), "holds no saved encoder"),
    "no weights": (lambda f: (f / "weights.safetensors").unlink(), "no weights.safetensors"),
    "config is not JSON": (lambda f: (f / "config.json").write_text("{"), "cannot be read"),
    "another format": (lambda f: (f / "config.json").write_text("{}"), "is not the config of"),
    "weights cut short": (
        lambda f: (f / "weights.safetensors").write_bytes(b"12"),
        "does not belong to its config.json",
    ),
    "a newer format": (
        lambda f: (f / "config.json").write_text(
            (f / "config.json").read_text().replace('"format_version": 1', '"format_version": 9')
        ),
        "upgrade fastretrieve",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_files_are_named(tmp_path, case):
    damage, message = DAMAGE[case]
    damage(saved(tmp_path))
    with pytest.raises(EncoderError, match=message):
        load_encoder(tmp_path)


def test_a_failed_save_leaves_the_old_files_whole(tmp_path):
    saved(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=r"Out of range|JSON"):
        write_encoder(tmp_path, encoder="pixels", config={"bad": float("nan")}, weights={})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
