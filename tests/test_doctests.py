"""Every example in a docstring runs, with ``fr`` and ``np`` at hand."""

from __future__ import annotations

import doctest
import inspect
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import fastretrieve as fr

PACKAGE = Path(fr.__file__ or "").parent
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if ">>>" in path.read_text()
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = import_module(name)
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    threads = fr.num_threads()
    output: list[str] = []
    for test in finder.find(module, extraglobs={"fr": fr, "np": np}):
        runner.run(test, out=output.append)
    fr.set_num_threads(threads)
    assert runner.failures == 0, "".join(output)


@pytest.mark.parametrize("name", [n for n in fr.__all__ if inspect.isfunction(getattr(fr, n))])
def test_every_public_function_has_an_example(name: str) -> None:
    assert ">>>" in (getattr(fr, name).__doc__ or ""), f"fr.{name} has no example"
