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

SEARCH = {"_common", "_backends", "_state", "_files", "_queries", "index", "ops"}
PARTS = {"data", "encoders", "training", "evaluation", "gallery", "compat", "testing"}

# A package, or a module of the top folder -> what it may import besides itself and `_core`. The
# root is `import fastretrieve as fr`, the public names, for whatever stands on an index.
MAY_IMPORT = {
    "_common": set(),
    "_backends": {"_common"},
    "_state": {"_common", "_backends"},
    "_files": {"_common", "_backends", "_state"},
    "_queries": {"_common", "_backends", "_state"},
    "index": {"_common", "_backends", "_state", "_files", "_queries"},
    "ops": {"_common", "_backends", "_queries", "index"},
    "data": {"_common", "_backends"},
    "encoders": {"root", "_common", "data"},
    "testing": {"encoders"},
    "evaluation": {"root", "_common", "_queries", "data", "encoders"},
    "gallery": {"root", "_common", "_files", "data", "encoders", "evaluation"},
    "training": {"root", "_common", "data", "encoders", "evaluation", "gallery"},
    "server": {"_common", "data", "gallery"},
    "compat": {"root", "_common", "_queries", "_state", "index"},
    "benchmarking": {"root", "_common", "_backends", "data"},
    "machine": {"root", "_common", "_backends", "_queries", "index", "benchmarking"},
    "demo": {"root", "_common", "benchmarking", "data", "encoders", "gallery", "training"},
    "cli": {"_common"},  # verbs are looked up by name
    "__main__": {"cli"},
    "root": {"_common"},
}


# Inside the gallery: a room -> the rooms and front files that its files may import.
GALLERY_ROOMS = {
    "store": {"errors", "store"},
    "intake": {"errors", "progress", "store", "intake"},
    "lookup": {"errors", "store", "lookup"},
}


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
    """The row of a module: ``fastretrieve.encoders.models.cnn`` belongs to ``encoders``."""
    names = module.split(".")
    if names[0] != "fastretrieve" or names[1:] == ["_core"]:
        return ""
    return names[1] if len(names) > 1 else "root"


def owners(imported: str) -> str:
    """The row of what a file imports; a name of the package itself is the package."""
    return part_of(imported) if part_of(imported) in MAY_IMPORT else ""


def import_faults(module: str, source: str) -> list[str]:
    """The imports that ``module`` must not have."""
    own = part_of(module)
    allowed = MAY_IMPORT[own] | {own, ""}
    if own != "root" and "root" not in allowed:
        allowed |= {"root"} if _only_core(source) else set()
    return sorted({m for m in imports(source, module) if owners(m) not in allowed})


def _only_core(source: str) -> bool:
    """Whether the root is imported for ``_core`` or a package below it alone."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import) and any(a.name == "fastretrieve" for a in node.names):
            return False
        if isinstance(node, ast.ImportFrom) and node.module == "fastretrieve" and not node.level:
            names = {alias.name for alias in node.names}
            if not all(name == "_core" or name in MAY_IMPORT for name in names):
                return False
    return True


def module_name(path: Path) -> str:
    names = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def import_graph(modules: dict[str, str]) -> dict[str, set[str]]:
    """Which modules each of them imports; ``modules`` are sources by name."""
    graph = {}
    for module, source in modules.items():
        found = set(imports(source, module)) & set(modules) - {module}
        # `from package import module` imports the module; the package is imported on the way.
        graph[module] = {m for m in found if not any(o.startswith(f"{m}.") for o in found)}
    return graph


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Names that import each other in a ring; empty where there is no ring."""
    done: set[str] = set()
    for start in graph:
        path: list[str] = []
        stack = [(start, iter(sorted(graph[start])))]
        while stack and start not in done:
            name, rest = stack[-1]
            if len(path) < len(stack):
                path.append(name)
            following = next(rest, None)
            if following is None:
                done.add(name)
                stack.pop()
                path.pop()
            elif following in path:
                return path[path.index(following) :]
            elif following not in done:
                stack.append((following, iter(sorted(graph[following]))))
    return []


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


@pytest.mark.parametrize("room", GALLERY_ROOMS)
def test_rooms_of_the_gallery(room: str) -> None:
    files = sorted((PACKAGE / "gallery" / room).glob("*.py"))
    assert len(files) > 5
    for path in files:
        module = module_name(path)
        names = [name.split(".") for name in imports(path.read_text(), module)]
        found = {each[2] for each in names if each[:2] == ["fastretrieve", "gallery"] and each[2:]}
        assert found <= GALLERY_ROOMS[room], module


FORBIDDEN_INCLUDES = [
    ("core", '#include "cpu/pool.hpp"'),
    ("core", '#include "cuda/scan.cuh"'),
    ("cpu", '  #  include "cuda/scan.cuh"'),
    ("cuda", "#include <cpu/pool.hpp>"),
    ("cpu", '#include <vector>\n#include "bindings/arrays.hpp"'),
]


@pytest.mark.parametrize(("room", "text"), FORBIDDEN_INCLUDES)
def test_a_forbidden_include_is_found(room: str, text: str) -> None:
    assert len(include_faults(room, text)) == 1


def test_an_allowed_include_is_no_fault() -> None:
    text = '#include <cstdint>\n#include "core/order.hpp"\n#include "cpu/isa.hpp"\n'
    assert includes(text) == ["cstdint", "core/order.hpp", "cpu/isa.hpp"]
    assert include_faults("cpu", text) == []


FORBIDDEN_IMPORTS = {
    "search imports an encoder": (
        "index",
        "from fastretrieve.encoders.models.cnn import CnnEncoder",
    ),
    "search imports the parts by name": ("ops.topk", "from fastretrieve import encoders"),
    "search imports inside a function": ("index", "def f():\n    import fastretrieve.gallery"),
    "search imports relatively": ("index", "from .training import fit"),
    "search imports the public names": ("_queries.joins", "import fastretrieve as fr"),
    "a lower layer imports a higher one": ("_state.ids", "from fastretrieve._queries import joins"),
    "data imports an encoder": ("data.open", "from fastretrieve.encoders import as_encoder"),
    "a part imports the command line": ("encoders.base", "from fastretrieve.cli import app"),
    "a part imports a front door relatively": ("encoders.base", "from .. import server"),
}


@pytest.mark.parametrize("name", FORBIDDEN_IMPORTS)
def test_a_forbidden_import_is_found(name: str) -> None:
    module, source = FORBIDDEN_IMPORTS[name]
    assert import_faults(f"fastretrieve.{module}", source)


def test_every_package_has_a_row() -> None:
    packages = {part_of(module_name(path)) for path in PYTHON_FILES}
    assert packages == set(MAY_IMPORT)


def test_no_file_imports_another_in_a_circle() -> None:
    graph = import_graph({module_name(path): path.read_text() for path in PYTHON_FILES})
    assert sum(map(len, graph.values())) > 500
    assert circle(graph) == []


def test_no_package_imports_another_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for path in PYTHON_FILES:
        own = part_of(module_name(path))
        found = {owners(m) for m in imports(path.read_text(), module_name(path))}
        graph.setdefault(own, set()).update(found - {own, "", "root"})
    assert circle(graph) == []
    assert circle({name: rows - {"root"} for name, rows in MAY_IMPORT.items()}) == []


def test_a_circle_is_found() -> None:
    modules = {
        "fastretrieve.a": "from fastretrieve import b",
        "fastretrieve.b": "def f():\n    from fastretrieve.c import x",
        "fastretrieve.c": "import fastretrieve.a",
        "fastretrieve.d": "import fastretrieve.a",
    }
    assert sorted(circle(import_graph(modules))) == [f"fastretrieve.{name}" for name in "abc"]
    modules["fastretrieve.c"] = ""
    assert circle(import_graph(modules)) == []


def test_importing_the_package_brings_neither_torch_nor_the_parts() -> None:
    code = (
        "import sys, fastretrieve; "
        "print(*(m for m in sys.modules if m == 'torch' or m.startswith('fastretrieve.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "torch" not in loaded
    assert {part_of(module) for module in loaded} <= {"root", ""}
