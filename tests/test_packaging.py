"""What the first page promises can be typed, and what make installs is pinned."""

import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest

from fastretrieve import _core, cli

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", "docs/benchmarks.md"]
INSTALLED_BY_MAKE = ("test", "serve", "bench", "plot", "text", "wheel", "dev")


def code_blocks(page: str, language: str = "") -> list[str]:
    """The fenced blocks of a page in one language."""
    fences = re.findall(
        r"^```(\w*)\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE
    )
    return [block for name, block in fences if name == language]


def commands(page: str) -> list[str]:
    """Every line of the blocks without a language."""
    lines = [line for block in code_blocks(page) for line in block.splitlines()]
    return [line.partition("#")[0].strip() for line in lines if line.strip()]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned() -> set[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all("==" in pin for pin in pins)
    return {normal(pin.partition("==")[0]) for pin in pins}


def test_everything_that_make_installs_is_pinned() -> None:
    wanted = set()
    for requirement in requires("fastretrieve") or []:
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        if extra is None or extra[1] in INSTALLED_BY_MAKE:
            wanted.add(normal(re.match(r"[\w.-]+", requirement)[0]))  # type: ignore[index]
    wanted |= {"scikit-build-core", "pybind11", "cmake", "ninja", "pip"}
    assert {"numpy", "torch", "pytest", "faiss-cpu"} <= wanted
    assert wanted - pinned() == {"fastretrieve"} & wanted  # an extra may ask for another extra


def test_constraints_name_no_place_to_download_from() -> None:
    text = (ROOT / "constraints.txt").read_text()
    assert not re.search(r"https?:|index-url|find-links", text)


def test_the_lock_has_hashes_for_every_pin_but_torch() -> None:
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    wanted = {pin for pin in pins if pin and not pin.startswith(("#", "torch=="))}
    lock = (ROOT / "requirements.lock").read_text()
    entries = re.findall(
        r"^(\S[^#\\\n]*?) \\\n((?:    --hash=sha256:[0-9a-f]{64}.*\n)+)", lock, re.MULTILINE
    )
    assert {pin for pin, _ in entries} == wanted  # else: python tools/lock.py


def tiny_wheel(folder: Path) -> Path:
    """A package of nothing, as pip installs it."""
    path, info = folder / "tiny-1.0-py3-none-any.whl", "tiny-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.mark.parametrize("is_right", [True, False])
def test_only_a_file_with_the_hash_of_the_lock_is_installed(tmp_path: Path, is_right: bool) -> None:
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    (tmp_path / "constraints.txt").write_text("tiny==1.0\n")
    digest = hashlib.sha256(tiny_wheel(tmp_path).read_bytes()).hexdigest() if is_right else "0" * 64
    (tmp_path / "requirements.lock").write_text(f"tiny==1.0 \\\n    --hash=sha256:{digest}\n")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "tools" / "install.py"), "tiny"],
        env={"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_TARGET": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) == is_right
    assert (tmp_path / "tiny-1.0.dist-info").exists() == is_right


@pytest.mark.skipif(shutil.which("readelf") is None, reason="needs readelf, of binutils")
def test_the_native_module_is_hardened() -> None:
    said = subprocess.run(
        ["readelf", "--wide", "--dynamic", "--program-headers", "--symbols", _core.__file__],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert re.search(r"FLAGS_1.*NOW", said)
    assert "GNU_RELRO" in said
    assert re.search(r"GNU_STACK.* RW +0x", said)  # memory of a stack is never run
    assert "__stack_chk_fail" in said


def test_the_native_module_names_no_path_of_the_machine_that_built_it() -> None:
    assert str(ROOT).encode() not in Path(_core.__file__).read_bytes()


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_exist(page: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    found = commands(page)
    assert found
    for command in found:
        words = command.split()
        if words[0] == "make":
            assert words[1] in targets, command
        elif words[0] == "fastretrieve":
            assert words[1] in cli.VERBS, command
        elif words[0] == ".ci/run":
            script = (ROOT / ".ci" / "run").read_text()
            assert all(f"step_{step}()" in script for step in words[1:]), command
        else:
            assert words[0] == "pip", command


def test_the_examples_of_the_first_page_run(tmp_path: Path) -> None:
    example = "\n".join(code_blocks("README.md", "python"))
    done = subprocess.run(
        [sys.executable, "-c", example], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    printed = re.search(r"print\(.*# (\[.*\])", example)
    assert printed is not None
    assert done.stdout.strip() == printed[1]
