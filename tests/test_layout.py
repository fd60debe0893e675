"""Who may include and import whom: the rules of CONTRIBUTING.md, enforced."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
PACKAGE = ROOT / "python" / "fastretrieve"

# A folder of csrc -> the folders of csrc that its files may include.
MAY_INCLUDE = {
    "core": {"core"},
    "cpu": {"core", "cpu"},
    "cuda": {"core", "cuda"},
    "bindings": {"core", "cpu", "cuda", "bindings"},
}

INCLUDE = re.compile(r'^\s*#\s*include\s+(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)
SOURCES = (".hpp", ".cpp", ".h", ".cu", ".cuh", ".inl")

# Search stands on its own; these parts stand on it. Nothing but a front door imports a front door.
PARTS = {
    "compat",
    "encoders",
    "gallery",
    "training",
    "data",
    "evaluation",
    "testing",
    "benchmarking",
}
FRONT_DOORS = {"cli", "server", "demo", "doctor", "__main__"}


def includes(text: str) -> list[str]:
    """The names between the quotes or brackets of every #include."""
    return [quoted or angled for quoted, angled in INCLUDE.findall(text)]


def include_faults(folder: str, text: str) -> list[str]:
    """The includes that a file in ``folder`` of csrc must not have."""
    own = [name for name in includes(text) if name.split("/")[0] in MAY_INCLUDE]
    return [name for name in own if name.split("/")[0] not in MAY_INCLUDE[folder]]


def imports(source: str, module: str) -> Iterator[str]:
    """Every module that ``source`` imports, relative ones resolved against ``module``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def part_of(module: str) -> str:
    """``fastretrieve.encoders.cnn`` belongs to ``encoders``, ``fastretrieve.index`` to itself."""
    names = module.split(".")
    return names[1] if names[0] == "fastretrieve" and len(names) > 1 else ""


def import_faults(module: str, source: str) -> list[str]:
    """The imports that ``module`` must not have."""
    own = part_of(module)
    if own in FRONT_DOORS or module.endswith(".commands"):
        return []
    forbidden = FRONT_DOORS if own in PARTS else FRONT_DOORS | PARTS
    return sorted({m for m in imports(source, module) if part_of(m) in forbidden - {own}})


def module_name(path: Path) -> str:
    names = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(names)


NATIVE_FILES = sorted(path for path in CSRC.rglob("*") if path.suffix in SOURCES)
PYTHON_FILES = sorted(PACKAGE.rglob("*.py"))


def test_there_are_files_to_look_at() -> None:
    assert len(NATIVE_FILES) > 10
    assert len(PYTHON_FILES) > 10


@pytest.mark.parametrize("path", NATIVE_FILES, ids=lambda p: str(p.relative_to(CSRC)))
def test_native_includes(path: Path) -> None:
    folder = path.relative_to(CSRC).parts[0]
    assert folder in MAY_INCLUDE, f"{folder} has no row in MAY_INCLUDE"
    faults = include_faults(folder, path.read_text())
    assert not faults, f"csrc/{folder} must not include {faults}; see CONTRIBUTING.md"


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_python_imports(path: Path) -> None:
    module = module_name(path)
    faults = import_faults(module, path.read_text())
    assert not faults, f"{module} must not import {faults}; see CONTRIBUTING.md"


FORBIDDEN_INCLUDES = {
    "core includes cpu": ("core", '#include "cpu/pool.hpp"'),
    "core includes cuda": ("core", '#include "cuda/scan.cuh"'),
    "cpu includes cuda": ("cpu", '  #  include "cuda/scan.cuh"'),
    "cuda includes cpu": ("cuda", "#include <cpu/pool.hpp>"),
    "cpu includes bindings": ("cpu", '#include <vector>\n#include "bindings/arrays.hpp"'),
}


@pytest.mark.parametrize("name", FORBIDDEN_INCLUDES)
def test_a_forbidden_include_is_found(name: str) -> None:
    assert len(include_faults(*FORBIDDEN_INCLUDES[name])) == 1


def test_an_allowed_include_is_no_fault() -> None:
    text = '#include <cstdint>\n#include "core/order.hpp"\n#include "cpu/isa.hpp"\n'
    assert includes(text) == ["cstdint", "core/order.hpp", "cpu/isa.hpp"]
    assert include_faults("cpu", text) == []


FORBIDDEN_IMPORTS = {
    "search imports an encoder": ("index", "from fastretrieve.encoders.cnn import CnnEncoder"),
    "search imports the parts by name": ("ops", "from fastretrieve import encoders"),
    "search imports inside a function": ("index", "def f():\n    import fastretrieve.gallery"),
    "search imports relatively": ("index", "from .training import fit"),
    "a part imports the command line": ("encoders.cnn", "from fastretrieve.cli import app"),
    "a part imports a front door relatively": ("encoders.cnn", "from .. import server"),
}


@pytest.mark.parametrize("name", FORBIDDEN_IMPORTS)
def test_a_forbidden_import_is_found(name: str) -> None:
    module, source = FORBIDDEN_IMPORTS[name]
    assert import_faults(f"fastretrieve.{module}", source)


@pytest.mark.parametrize("module", ["cli", "demo", "encoders.commands"])
def test_a_front_door_may_import_everything(module: str) -> None:
    assert import_faults(f"fastretrieve.{module}", "from fastretrieve import encoders, cli") == []


def test_importing_the_package_brings_neither_torch_nor_the_parts() -> None:
    code = (
        "import sys, fastretrieve; "
        "print(*(m for m in sys.modules if m == 'torch' or m.startswith('fastretrieve.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "torch" not in loaded
    assert not {part_of(module) for module in loaded} & (PARTS | FRONT_DOORS)
