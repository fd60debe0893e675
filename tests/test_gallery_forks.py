"""Children that are forked while threads search and write find everything open, and see commits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("gallery_forked.py")


def fork(n: int) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--forks", str(n)],
        capture_output=True,
        text=True,
        timeout=60 + 10 * n,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{n} children, none hung" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="forks beside threads")
def test_children_of_a_busy_process_do_not_hang() -> None:
    fork(20)


@pytest.mark.slow
def test_two_hundred_children() -> None:
    fork(200)
