"""The faults of ``planted_cuda.py`` can still be planted: each line to break is there once."""

from __future__ import annotations

import pytest

import planted
import planted_cuda


@pytest.mark.parametrize("name", planted_cuda.FAULTS)
def test_the_line_to_break_is_there(name: str) -> None:
    fault = planted_cuda.FAULTS[name]
    text = (planted.ROOT / "csrc" / fault.path).read_text()
    assert text.count(fault.right) == 1
    assert text.replace(fault.right, fault.wrong) != text
