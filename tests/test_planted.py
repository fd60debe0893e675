"""The faults of ``planted.py`` can still be planted: every line that it breaks is there once."""

from __future__ import annotations

import pytest

import planted


@pytest.mark.parametrize("name", planted.FAULTS)
def test_the_line_to_break_is_there(name: str) -> None:
    fault = planted.FAULTS[name]
    text = (planted.ROOT / "csrc" / fault.path).read_text()
    assert text.count(fault.right) == 1
    assert text.replace(fault.right, fault.wrong) != text
