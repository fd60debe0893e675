"""``fastretrieve encoders`` lists, checks and starts encoders; what it writes passes its own tests.

The plugins of ``examples/`` are installed for real, into a folder of their own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fastretrieve.encoders import EncoderError
from fastretrieve.encoders.commands import app
from fastretrieve.encoders.scaffold import write_package

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
COMMAND = "from fastretrieve.encoders.commands import app; app()"
runner = CliRunner()


def run_python(*arguments, path=(), folder=None):
    """A fresh interpreter that finds ``path`` first and warns of nothing."""
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    environment["PYTHONPATH"] = os.pathsep.join([*map(str, path), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
        check=False,
    )


def pip_install(*packages, target):
    done = run_python(
        "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation",
        "--disable-pip-version-check", "--target", target, *packages,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_listing_for_people_and_for_programs():
    text = runner.invoke(app, [])
    assert text.exit_code == 0
    assert "pixels" in text.output
    plugins = json.loads(runner.invoke(app, ["--json"]).output)
    assert {"name", "distribution", "version", "target", "status", "reason"} == set(plugins[0])


def test_checking_one(tmp_path):
    good = runner.invoke(app, ["check", "pixels", "--json"])
    assert good.exit_code == 0
    assert {"check": "shape", "outcome": "passed", "reason": ""} in json.loads(good.output)
    source = "from fastretrieve.encoders.models.pixels import PixelsEncoder\n"
    source += "class Encoder(PixelsEncoder):\n"
    source += "    def encode(self, batch):\n        return super().encode(batch).astype('f8')\n"
    (tmp_path / "my.py").write_text(source)
    bad = runner.invoke(app, ["check", f"{tmp_path}/my.py:Encoder"])
    assert bad.exit_code == 1
    assert "encode returned float64, wanted float32" in bad.output
    unknown = runner.invoke(app, ["check", "nothing"])
    assert unknown.exit_code == 1
    assert "no encoder is called 'nothing'" in unknown.stderr


@pytest.mark.parametrize("name", ["Upper", "1st", "a b", "-x", "class", "a--b", ""])
def test_names_that_make_no_package_are_refused(tmp_path, name):
    with pytest.raises(EncoderError, match="cannot be an encoder's name"):
        write_package(name, tmp_path / "new")


def test_new_never_overwrites_or_takes_a_name(tmp_path):
    (tmp_path / "mine").write_text("precious")
    refused = runner.invoke(app, ["new", "sketch", "--folder", str(tmp_path)])
    assert refused.exit_code == 1
    assert "not empty" in refused.stderr
    with pytest.raises(EncoderError, match="already provides an encoder 'pixels'"):
        write_package("pixels", tmp_path / "new")


@pytest.mark.slow
def test_a_new_package_passes_its_tests_before_and_after_installation(tmp_path):
    made = runner.invoke(app, ["new", "my-sketch", "--folder", str(tmp_path / "new")])
    assert made.exit_code == 0, made.output
    before = run_python("-m", "pytest", "-q", "-W", "error", folder=tmp_path / "new")
    assert before.returncode == 0, before.stdout
    assert (
        "not installed yet"
        in run_python("-m", "pytest", "-q", "-rs", "-k", "finds", folder=tmp_path / "new").stdout
    )
    pip_install(tmp_path / "new", target=tmp_path / "site")
    after = run_python(
        "-m", "pytest", "-q", "-k", "finds", path=[tmp_path / "site"], folder=tmp_path / "new"
    )
    assert "1 passed" in after.stdout, after.stdout
    listed = run_python("-c", COMMAND, path=[tmp_path / "site"])
    assert "fastretrieve-my-sketch 0.1.0" in listed.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with both example packages installed."""
    target = tmp_path_factory.mktemp("site")
    sources = tmp_path_factory.mktemp("sources")
    for name in ("encoder-plugin", "broken-plugin"):
        # Built from a copy: setuptools leaves files beside the source.
        copy = sources / name
        copy.mkdir()
        for path in sorted((EXAMPLES / name).rglob("*")):
            if path.is_file() and "egg-info" not in str(path) and "__pycache__" not in str(path):
                (copy / path.relative_to(EXAMPLES / name)).parent.mkdir(parents=True, exist_ok=True)
                (copy / path.relative_to(EXAMPLES / name)).write_bytes(path.read_bytes())
        pip_install(copy, target=target)
    return target


def listing(site, *options):
    done = run_python("-c", COMMAND, "--json", *options, path=[site])
    assert done.returncode == 0, done.stderr
    return {f"{p['distribution']}:{p['name']}": p for p in json.loads(done.stdout)}


@pytest.mark.slow
def test_installed_plugins_are_listed_with_their_faults(site):
    found = listing(site)
    assert found["fastretrieve-scattering:scattering"]["status"] == "available"
    states = {p["name"]: p for p in found.values() if p["distribution"] == "fastretrieve-broken"}
    assert "a_package_that_nobody_has" in states["broken-import"]["reason"]
    assert "api_version 99" in states["broken-version"]["reason"]
    assert "not installed" in states["broken-target"]["reason"]
    assert states["pixels"]["status"] == "ambiguous"
    assert found["fastretrieve:pixels"]["status"] == "ambiguous"
    assert found["fastretrieve:cnn"]["status"] == "available"


@pytest.mark.slow
def test_check_finds_what_only_running_shows(site, monkeypatch):
    names = ["broken-crash", "broken-exit", "broken-class", "scattering"]
    monkeypatch.setenv("FASTRETRIEVE_ENCODERS", ",".join(names))
    found = {p["name"]: p for p in listing(site, "--check").values() if p["status"] != "disabled"}
    assert "the model server is not reachable" in found["broken-crash"]["reason"]
    assert "no licence found" in found["broken-exit"]["reason"]
    assert "is not a class" in found["broken-class"]["reason"]
    assert found["scattering"]["status"] == "available"


@pytest.mark.slow
def test_a_broken_neighbour_disturbs_nobody(site):
    code = """if True:
        import pytest
        from fastretrieve.encoders import EncoderError, create_encoder
        assert create_encoder("scattering").dim > 0
        assert create_encoder("fastretrieve:pixels").name == "pixels"
        for name in ("broken-import", "broken-crash", "broken-exit", "pixels"):
            with pytest.raises(EncoderError, match="fastretrieve-broken 0.0.1"):
                create_encoder(name)
    """
    done = run_python("-c", code, path=[site])
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_example_passes_its_own_tests_when_installed(site):
    done = run_python("-m", "pytest", "-q", path=[site], folder=EXAMPLES / "encoder-plugin")
    assert done.returncode == 0, done.stdout
    assert "test_fastretrieve_finds_it" not in done.stdout  # not skipped
