"""The planted faults can still be planted: every line that they break is there once."""

from __future__ import annotations

import pytest

import planted
import planted_cuda

FAULTS = {
    **planted.FAULTS,
    **{f"cuda {name}": fault for name, fault in planted_cuda.FAULTS.items()},
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_line_to_break_is_there(name: str) -> None:
    fault = FAULTS[name]
    text = (planted.ROOT / "csrc" / fault.path).read_text()
    assert text.count(fault.right) == 1
    assert text.replace(fault.right, fault.wrong) != text
