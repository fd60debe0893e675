"""What the first page promises can be typed, and what make installs is pinned."""

import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

from fastretrieve import cli

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", "docs/benchmarks.md"]
INSTALLED_BY_MAKE = ("test", "serve", "bench", "plot", "dev")


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
