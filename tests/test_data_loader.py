"""The loader gives the same batches with any workers, skips and lists bad items, and keeps up."""

import time

import numpy as np
import pytest
from PIL import Image

from fastretrieve.data import (
    DataError,
    Loader,
    balanced_batches,
    balanced_order,
    epoch_order,
    open_dataset,
)
from fastretrieve.data.images import image_batch


def to_batch(items):
    return image_batch(items, size=8, channels=1)


def fail(items):
    raise ValueError("nothing pleases me")


def together_only_in_pairs(items):
    if len(items) > 2:
        raise ValueError("too many")
    return to_batch(items)


@pytest.fixture
def folder(tmp_path):
    for i in range(20):
        Image.new("L", (16, 12), 10 * i).save(tmp_path / f"{i:02}.png")
    (tmp_path / "07.png").write_bytes(b"not an image")
    noise = np.random.default_rng(0).integers(0, 255, (16, 12)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "15.png")
    (tmp_path / "15.png").write_bytes((tmp_path / "15.png").read_bytes()[:120])
    return tmp_path


@pytest.mark.parametrize(
    ("workers", "kind"), [(0, "thread"), (1, "thread"), (4, "thread"), (2, "process")]
)
def test_batches_do_not_depend_on_the_workers(folder, workers, kind):
    data = open_dataset(folder, labels=np.arange(20) % 3)
    order = epoch_order(20, seed=1)
    with Loader(data, to_batch, batch_size=6, workers=workers, kind=kind) as loader:
        found = list(loader.batches(order))
    rows = np.concatenate([loaded.rows for loaded in found])
    assert rows.tolist() == [row for row in order if row not in (7, 15)]
    values = np.concatenate([loaded.batch[:, 0, 0, 0] for loaded in found])
    np.testing.assert_allclose(values * 255, 10 * rows, atol=1e-3)
    assert np.concatenate([loaded.labels for loaded in found]).tolist() == (rows % 3).tolist()
    assert [skipped.key[-6:] for skipped in loader.skipped] == ["07.png", "15.png"]
    assert all(skipped.reason for skipped in loader.skipped)


def test_a_second_pass_counts_bad_items_once(folder):
    with Loader(open_dataset(folder), to_batch, batch_size=8, workers=2) as loader:
        assert len(list(loader)) == len(list(loader)) == len(loader) == 3
        assert len(loader.skipped) == 2


def test_a_batch_of_nothing_but_bad_items_is_left_out(folder):
    with Loader(open_dataset(folder).subset([7, 15, 3]), to_batch, batch_size=2) as loader:
        assert [loaded.rows.tolist() for loaded in loader] == [[2]]


def test_items_that_preprocess_refuses_are_skipped_too():
    items = [np.zeros((8, 8), np.uint8), np.zeros((3,)), np.full((8, 8), np.nan)]
    with Loader(open_dataset(items), to_batch, workers=0) as loader:
        assert [loaded.rows.tolist() for loaded in loader] == [[0]]
    assert "got shape (3,)" in loader.skipped[0].reason
    assert "nan" in loader.skipped[1].reason


def test_a_preprocess_that_always_fails_lists_every_item():
    with Loader(open_dataset(np.zeros((3, 4, 4), np.uint8)), fail, workers=0) as loader:
        assert list(loader) == []
    assert [skipped.reason for skipped in loader.skipped] == ["nothing pleases me"] * 3


def test_items_that_fail_only_together_are_an_error():
    data = open_dataset(np.zeros((3, 4, 4), np.uint8))
    with (
        Loader(data, together_only_in_pairs, workers=0) as loader,
        pytest.raises(DataError, match="one by one but not together: too many"),
    ):
        list(loader)


def test_other_errors_of_a_worker_reach_the_caller():
    def broken(items):
        raise RuntimeError("a bug, not a bad image")

    data = open_dataset(np.zeros((9, 4, 4), np.uint8))
    with (
        Loader(data, broken, batch_size=2, workers=2) as loader,
        pytest.raises(RuntimeError, match="a bug"),
    ):
        list(loader)


def test_batches_given_one_by_one():
    data = open_dataset(np.arange(6, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8))
    with Loader(data, list, workers=2) as loader:
        found = list(loader.batches(iter([np.array([5, 0]), np.array([3])])))
    assert [loaded.rows.tolist() for loaded in found] == [[5, 0], [3]]


def test_workers_read_ahead_while_the_consumer_is_busy(folder):
    def slow(items):
        time.sleep(0.02)
        return to_batch(items)

    with Loader(open_dataset(folder), slow, batch_size=2, workers=4) as loader:
        for _ in loader:
            time.sleep(0.02)
    alone = Loader(open_dataset(folder), slow, batch_size=2, workers=0)
    for _ in alone:
        time.sleep(0.02)
    assert loader.wait_share < 0.3 < alone.wait_share


def test_leaving_early_stops_reading():
    calls = []

    def count(items):
        calls.append(len(items))
        return to_batch(items)

    data = open_dataset(np.zeros((400, 8, 8), np.uint8))
    with Loader(data, count, batch_size=1, workers=2) as loader:
        next(iter(loader))
    assert len(calls) < 20


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"kind": "fiber"}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ValueError, match=r"batch_size|kind"):
        Loader(open_dataset(np.zeros((3, 4, 4), np.uint8)), list, **options)


# --- orders ---------------------------------------------------------------------------------------


def test_orders_are_permutations_that_change_by_epoch():
    first, again, other = epoch_order(50), epoch_order(50), epoch_order(50, epoch=1)
    assert sorted(first.tolist()) == list(range(50))
    assert (first == again).all()
    assert (first != other).any()


def test_balanced_order_is_even_and_uses_every_item_before_repeating():
    labels = np.array([0] * 50 + [1] * 7 + [2] * 3 + [-1] * 5)
    order = balanced_order(labels, n=31, seed=2)
    counts = np.bincount(labels[order], minlength=3)
    assert sorted(counts.tolist()) == [10, 10, 11]
    rare = np.bincount(order[labels[order] == 2] - 57)
    assert rare.max() - rare.min() <= 1
    assert len(balanced_order(labels)) == 60
    with pytest.raises(ValueError, match="no item has one"):
        balanced_order(np.array([-1, -1]))


def test_balanced_batches_hold_p_classes_of_k_items():
    labels = np.array([0] * 40 + [1] * 9 + [2] * 30 + [3] * 21 + [-1] * 9)
    batches = list(balanced_batches(labels, batch_size=12, per_class=4))
    assert len(batches) == 100 // 12
    for batch in batches:
        classes, counts = np.unique(labels[batch], return_counts=True)
        assert len(classes) == 3
        assert counts.tolist() == [4, 4, 4]
        assert len(np.unique(batch)) == 12
    assert (batches[0] == next(balanced_batches(labels, batch_size=12, per_class=4))).all()
    with pytest.raises(ValueError, match="make the batch larger"):
        next(balanced_batches(labels, batch_size=3, per_class=4))


@pytest.mark.parametrize("members", [1, 2, 3, 5])
def test_balanced_batches_never_hold_an_item_twice(members):
    labels = np.repeat(np.arange(40), members)
    seen = np.zeros(len(labels), int)
    for epoch in range(20):
        for batch in balanced_batches(labels, batch_size=24, per_class=4, epoch=epoch):
            assert len(np.unique(batch)) == len(batch) <= 24
            assert len(batch) > 24 - min(members, 4)
            counts = np.unique(labels[batch], return_counts=True)[1]
            assert (counts == min(members, 4)).all()
            seen[batch] += 1
    assert seen.min() > 0


def test_a_class_is_walked_in_rounds():
    labels = np.zeros(5, np.int64)
    batches = balanced_batches(np.tile(labels, 1), batch_size=2, per_class=2)
    first, second = next(batches), next(batches)
    assert len(set(first) | set(second)) == 4
