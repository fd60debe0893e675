"""Type checkers and editors see the public names that there are, with their types."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import fastretrieve as fr
import typed_program

PACKAGE = Path(fr.__file__ or "").parent


def declared() -> dict[str, str]:
    """Each name of the stub with the module that it comes from; every import is a re-export."""
    found = {}
    for node in ast.parse((PACKAGE / "__init__.pyi").read_text()).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                assert alias.asname == alias.name, f"{alias.name} is not re-exported"
                found[alias.name] = node.module or ""
    return found


def test_the_stub_says_what_the_package_has() -> None:
    assert declared() == {name: f"fastretrieve.{home}" for name, home in fr._PUBLIC.items()}


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()
    assert (PACKAGE / "_core.pyi").exists()


def test_a_typed_program_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    typed_program.main(tmp_path)
    assert capsys.readouterr().out == f"[0 1] 2 0\n2 {fr.__version__} cpu\n"
