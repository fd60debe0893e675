"""The plan of a search on a GPU: pure, printable, and tested without one."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fastretrieve import _core

LIMIT = 192 << 20
SHARED = {"small": 48 << 10, "ampere": 99 << 10, "hopper": 227 << 10}


def plan(n_queries: int, n_rows: int, dim: int, k: int, **options: Any) -> str:
    chosen = {"tier": "wgmma", "shared_bytes": SHARED["hopper"], "workspace_limit": LIMIT}
    return str(_core.cuda_plan(n_queries, n_rows, dim, k, **chosen | options))


def number(text: str, name: str) -> int:
    found = re.search(rf"{name}=(\d+)", text)
    assert found, text
    return int(found[1])


def stages(text: str) -> list[tuple[int, int]]:
    """(strips, stride) of each stage."""
    return [(int(n), int(s)) for n, s in re.findall(r"(\d+) strips by (\d+)", text)]


def strips_of(n: int, stride: int, coarser: int) -> list[int]:
    """As strip_of_stage in csrc/cuda/device.cuh numbers them."""
    if coarser == 0:
        return [i * stride for i in range(n)]
    ratio = coarser // stride
    return [(i + i // (ratio - 1) + 1) * stride for i in range(n)]


@pytest.mark.parametrize("k", [1, 10, 100, 2000])
@pytest.mark.parametrize("n_rows", [257, 2049, 5000, 64 * 1000 + 1, 999_999, 10_000_000])
def test_the_stages_scan_every_strip_once(n_rows: int, k: int) -> None:
    text = plan(32, n_rows, 128, k)
    if n_rows <= max(256, 4 * k):
        assert stages(text) == []
        return
    seen: list[int] = []
    coarser = 0
    for n, stride in stages(text):
        assert coarser == 0 or (coarser % stride == 0 and coarser > stride), text
        seen += strips_of(n, stride, coarser)
        coarser = stride
    assert coarser == 1, text
    assert len(seen) == n_rows // 64, text
    assert sorted(seen) == list(range(n_rows // 64)), text


@pytest.mark.parametrize("tier", ["dp4a", "mma", "wgmma"])
@pytest.mark.parametrize("shared", SHARED)
@pytest.mark.parametrize("dim", [1, 32, 33, 128, 768, 4096, 16384, 65536])
@pytest.mark.parametrize("n_queries", [1, 7, 8, 9, 64, 257, 4096, 100_000])
def test_a_tile_fits_shared_memory_or_the_plainest_tier_takes_over(
    n_queries: int, dim: int, shared: str, tier: str
) -> None:
    text = plan(n_queries, 10**6, dim, 10, tier=tier, shared_bytes=SHARED[shared])
    chosen = re.search(r"tier=(\w+)", text)
    assert chosen
    tile, padded = number(text, "panel_queries"), -(-dim // 32) * 32
    if chosen[1] == "dp4a":
        assert tier == "dp4a" or 8 * (padded + 32) > SHARED[shared], text
        return
    assert chosen[1] == tier
    assert tile * (padded + 32) <= SHARED[shared], text  # codes, and 16 bytes of filter, padded
    assert tile in (8, 16, 32, 64, 128, 256)
    assert tile <= (64 if tier == "mma" else 256)


@pytest.mark.parametrize("k", [1, 10, 100, 1000])
@pytest.mark.parametrize("dim", [16, 128, 768, 2048])
@pytest.mark.parametrize("n_rows", [3000, 10**6, 10**7])
def test_memory_is_bounded_at_batch_4096(n_rows: int, dim: int, k: int) -> None:
    text = plan(4096, n_rows, dim, k)
    assert number(text, "workspace") < 256 << 20, text
    assert number(text, "capacity") >= 4 * k
    assert number(text, "batch_queries") >= 1


@pytest.mark.parametrize("n_queries", [1, 3, 100, 4096])
def test_a_smaller_batch_needs_no_more_memory(n_queries: int) -> None:
    sizes = [number(plan(n, 10**6, 128, 10), "workspace") for n in range(1, n_queries, 37)]
    assert sizes == sorted(sizes)


def test_few_rows_are_scored_without_a_scan() -> None:
    assert 'because="few rows: each is scored"' in plan(8, 256, 128, 10)
    assert stages(plan(8, 257, 128, 10)) == [(4, 1)]
    assert stages(plan(8, 50_000, 128, 20_000)) == []
    assert stages(plan(8, 0, 128, 1)) == []


def test_survivors_of_a_stage_fit_what_the_plan_expects() -> None:
    """k rows of those seen reach the threshold: of the next stage k / seen of its rows pass."""
    for k in (1, 10, 100):
        for n_rows in (10**5, 10**6, 10**7):
            text, seen = plan(8, n_rows, 128, k), 0
            capacity, parts = number(text, "capacity"), stages(text)
            for n, _ in parts[:-1] if len(parts) == 6 else parts:
                expected = n * 64 if seen == 0 else k * n / seen
                assert expected <= capacity, text
                seen += n


def test_a_tier_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match="CUDA tier must be dp4a, mma or wgmma, got 'warp'"):
        plan(1, 1000, 8, 1, tier="warp")
