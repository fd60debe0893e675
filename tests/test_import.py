"""Importing the package is cheap: it loads neither torch nor, until it is used, anything else."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

import pytest

import fastretrieve as fr

LIMIT_SECONDS = 0.150


def python(code: str) -> float:
    """Processor seconds of a fresh interpreter: a busy machine does not lengthen them."""
    before = os.times()
    subprocess.run([sys.executable, "-c", code], check=True)
    after = os.times()
    user, system = after.children_user, after.children_system
    return user - before.children_user + system - before.children_system


def median_over(code: str, base: str) -> float:
    """How much longer ``code`` takes than ``base``, in pairs, as the machine's speed drifts."""
    return statistics.median(python(code) - python(base) for _ in range(5))


def test_import_is_quick() -> None:
    assert median_over("import fastretrieve", "pass") < LIMIT_SECONDS


def test_the_first_index_costs_little_more_than_numpy() -> None:
    assert median_over("import fastretrieve as fr; fr.Index(2)", "import numpy") < LIMIT_SECONDS


def test_searching_imports_no_torch() -> None:
    code = (
        "import sys, numpy as np, fastretrieve as fr\n"
        "index = fr.Index(2); index.add(np.eye(2)); index.search(np.eye(2), 1)\n"
        "fr.normalize(np.eye(2)); fr.fuse([np.eye(2)]); fr.kmeans(np.eye(2), 2)\n"
        "assert 'torch' not in sys.modules"
    )
    python(code)


def test_every_public_name_resolves() -> None:
    for name in fr.__all__:
        assert getattr(fr, name) is getattr(fr, name)
    assert set(fr.__all__) <= set(dir(fr))
    assert fr.__version__.count(".") == 2


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'fastretrieve' has no attribute 'indx'"):
        fr.indx  # noqa: B018


def test_public_names_say_what_they_do() -> None:
    for name in fr.__all__:
        assert getattr(fr, name).__doc__, name
