"""Clusters of a gallery: exact, named, and still right after every change, kill and copy."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import fastretrieve as fr
from fastretrieve import cli
from fastretrieve.gallery import Gallery, GalleryError
from fastretrieve.gallery.store import clustering, clusters, written
from gallery_helpers import new_gallery, picture, write_pictures

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}


def shades(colour: str, n: int, seed: int = 0) -> np.ndarray:
    """Noisy pictures of one colour."""
    noise = np.random.default_rng(seed).normal(0, 9, (n, 8, 8, 3))
    return np.clip(noise + COLOURS[colour], 0, 255).astype(np.uint8)


def coloured(folder: Path, **options: Any) -> Gallery:
    """Thirty red ones, twenty green ones and ten blue ones."""
    made = new_gallery(folder, **options)
    numbers = dict(zip(COLOURS, (30, 20, 10), strict=True))
    labels = [colour for colour, n in numbers.items() for _ in range(n)]
    made.add(np.concatenate([shades(*each) for each in numbers.items()]), labels=labels)
    return made


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with coloured(tmp_path_factory.mktemp("clusters") / "g") as made:
        made.clusters(3)
    return made.path


@pytest.fixture
def gallery(template: Path, tmp_path: Path) -> Gallery:
    return Gallery.open(shutil.copytree(template, tmp_path / "g"))


def oracle_numbers(gallery: Gallery, rows: np.ndarray, metric: str) -> np.ndarray:
    """The nearest centre of each row, the slow and obvious way."""
    found = gallery.clusters()
    centres = np.stack([each.centre for each in found]).astype(np.float64)
    rows = rows.astype(np.float64)
    if metric == "cosine":
        centres, rows = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (centres, rows))
        far = -rows @ centres.T
    else:
        far = ((rows[:, None] - centres) ** 2).sum(axis=2)
    return np.array(found.numbers)[far.argmin(axis=1)]


def kept_numbers(gallery: Gallery) -> dict[int, int]:
    """What the database says, in another connection."""
    connection = sqlite3.connect(gallery.path / "items.sqlite")
    rows = connection.execute("SELECT item, number FROM cluster_of").fetchall()
    connection.close()
    return dict(rows)


def assert_all_is_right(gallery: Gallery, metric: str = "cosine") -> None:
    """Each item is in the nearest cluster, also for who opens the gallery now."""
    items = gallery.items()
    numbers = oracle_numbers(gallery, gallery.vectors(), metric)
    wanted = dict(zip([item.id for item in items], numbers.tolist(), strict=True))
    assert kept_numbers(gallery) == wanted
    assert gallery.check() == []
    found = gallery.clusters()
    assert found.numbers == sorted(found.numbers)
    assert found.sizes == [list(wanted.values()).count(n) for n in found.numbers]
    with Gallery.open(gallery.path) as other:
        assert list(other.clusters()) == list(found)
    for each in found:
        assert wanted[each.item.id] == each.number
        assert [i.id for i in gallery.items(within=each)] == [
            item for item in sorted(wanted) if wanted[item] == each.number
        ]


# --- making them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2", "sqeuclidean"])
def test_every_item_is_in_the_nearest_cluster(tmp_path: Path, metric: str) -> None:
    gallery = new_gallery(tmp_path / "g", metric=metric)
    gallery.add([picture(i) for i in range(80)])
    found = gallery.clusters(9)
    assert len(found) == 9
    assert found.sizes == sorted(found.sizes, reverse=True)
    assert_all_is_right(gallery, metric)


def test_the_same_vectors_make_the_same_clusters(tmp_path: Path) -> None:
    pictures = [picture(i) for i in range(60)]
    found = []
    for name, commits in (("a", [pictures]), ("b", [pictures[:7], pictures[7:50], pictures[50:]])):
        gallery = new_gallery(tmp_path / name)
        for part in commits:
            gallery.add(part)
        gallery.clusters(8, seed=4)
        found.append(kept_numbers(gallery))
    assert found[0] == found[1]
    gallery.clusters(8, seed=5)
    assert kept_numbers(gallery) != found[0]


def test_of_many_items_a_sample_finds_the_centres(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clustering, "SAMPLE", 25)
    monkeypatch.setattr(clustering, "FOR_EACH", 1)
    monkeypatch.setattr(clusters, "CHUNK", 7)
    seen = []
    kmeans = fr.kmeans
    monkeypatch.setattr(fr, "kmeans", lambda x, *a, **o: seen.append(len(x)) or kmeans(x, *a, **o))
    assert gallery.clusters(3).sizes == [30, 20, 10]
    assert seen == [25]
    assert_all_is_right(gallery)


def test_the_picture_is_of_the_member_nearest_to_the_centre(gallery: Gallery) -> None:
    for each in gallery.clusters():
        nearest = gallery.search(each, k=1, within=each)
        assert nearest.ids == [each.item.id]
        assert each.path == nearest.paths[0]


def test_a_member_is_found_where_others_crowd_around_the_centre(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = new_gallery(tmp_path / "g", metric="ip")  # the largest items win everywhere
    gallery.add([picture(i) for i in range(40)])
    wanted = gallery.clusters(12)
    monkeypatch.setattr("fastretrieve.gallery.lookup.clusters.FIRST", 1)
    with Gallery.open(gallery.path) as other:
        assert list(other.clusters()) == list(wanted)
    for each in wanted:
        assert gallery.search(each, k=1, within=each).ids == [each.item.id]


def test_equal_vectors_make_fewer_clusters(tmp_path: Path) -> None:
    gallery = new_gallery(tmp_path / "g")
    write_pictures(tmp_path / "many", 2)
    for i in range(6):
        Image.open(tmp_path / "many" / f"{i % 2:05d}.png").save(tmp_path / "many" / f"9{i}.png")
    gallery.add(tmp_path / "many")
    assert gallery.clusters(5).sizes == [4, 4]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_vectors_of_other_types_are_assigned_as_they_are_kept(tmp_path: Path, dtype: str) -> None:
    gallery = new_gallery(tmp_path / "g", dtype=dtype)
    gallery.add([picture(i) for i in range(30)])
    gallery.clusters(9)
    gallery.add([picture(i) for i in range(30, 60)])
    assert_all_is_right(gallery)


# --- searching ------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [None, "label != 'red' OR id % 2 = 0"])
def test_within_is_the_search_of_all_less_the_others(gallery: Gallery, where: str | None) -> None:
    gallery.clusters(5)
    kept = kept_numbers(gallery)
    for query in (picture(1), 3, 45, shades("blue", 1, seed=8)[0]):
        nearest = gallery.nearest_clusters(query, k=9)
        every = gallery.search(query, k=60, where=where)
        for within, number in (("cluster", nearest[0].number), (2, 2), (nearest[1], None)):
            number = nearest[1].number if number is None else number
            wanted = [m for m in every if kept[m.item.id] == number]
            found = gallery.search(query, k=60, where=where, within=within)
            assert found.cluster == found.to_dict()["cluster"] == number
            assert list(found) == wanted
            assert (
                list(gallery.search(query, k=3, offset=2, where=where, within=within))
                == (wanted[2:5])
            )
        if isinstance(query, int):
            assert kept[query] == nearest[0].number
    assert gallery.search(3).cluster is None
    assert "cluster" not in gallery.search(3).to_dict()


def test_nearest_clusters_are_those_with_the_nearest_centres(gallery: Gallery) -> None:
    gallery.clusters(7)
    query = shades("green", 1, seed=3)[0]
    found = gallery.nearest_clusters(query, k=4)
    vector = gallery._opened.queries.encode([query])[0]
    centres = [each.centre for each in gallery.clusters()]
    scores = fr.scores(vector, np.stack(centres))
    order = np.lexsort((np.arange(7), -scores))[:4]
    assert found.numbers == [gallery.clusters().numbers[i] for i in order]
    assert [each.score for each in found] == [float(scores[i]) for i in order]
    assert found.image().size
    assert gallery.nearest_clusters(found[2], k=1).numbers == [found[2].number]


def test_of_equally_near_clusters_the_smaller_number_is_nearest(gallery: Gallery) -> None:
    with sqlite3.connect(gallery.path / "items.sqlite") as connection:
        connection.execute(
            "UPDATE cluster SET centre = (SELECT centre FROM cluster WHERE number = 1)"
        )
        connection.execute("UPDATE state SET generation = generation + 1")
    connection.close()
    assert gallery.nearest_clusters(7, k=3).numbers == [0, 1, 2]
    assert gallery.search(55, within="cluster").cluster == 0
    assert gallery.check() == ["30 items are not in the nearest cluster: [31, 32, 33, 34, 35]"]


# --- following changes ----------------------------------------------------------------------------


def test_clusters_follow_every_change(gallery: Gallery, tmp_path: Path) -> None:
    with Gallery.open(gallery.path) as reader:
        assert reader.clusters().sizes == [30, 20, 10]
        files = tmp_path / "files"
        files.mkdir()
        for i, shade in enumerate(shades("blue", 4, seed=5)):
            Image.fromarray(shade).save(files / f"{i}.png")
        gallery.add(files)
        assert reader.clusters().sizes == gallery.clusters().sizes == [30, 20, 14]
        assert_all_is_right(gallery)
        Image.fromarray(shades("green", 1, seed=6)[0]).save(files / "2.png")
        (files / "3.png").unlink()
        gallery.update()
        assert reader.clusters().sizes == [30, 21, 12]
        assert_all_is_right(gallery)
        gallery.remove(where="label = 'green'")
        assert reader.clusters().names == ["red", "cluster 1", "blue"]
        gallery.add(shades("green", 20), labels=["leaf"] * 20, restore=True)
        assert reader.clusters().names == ["red", "leaf", "blue"]
        gallery.label(list(range(1, 31)), "cherry")
        assert reader.clusters().names == ["cherry", "leaf", "blue"]
        gallery.remove(where="label = 'blue' OR label IS NULL")
        assert reader.clusters().numbers == [0, 1]
        assert reader.nearest_clusters(shades("blue", 1)[0], k=5).numbers != []
        with pytest.raises(GalleryError, match="has no cluster 2; it has 2, numbered 0 to 1"):
            reader.search(1, within=2)
        assert_all_is_right(gallery)


def test_merged_index_files_change_no_cluster(gallery: Gallery) -> None:
    for i in range(6):
        gallery.add(shades("blue", 3, seed=20 + i), commit_seconds=0, batch_size=1)
    assert_all_is_right(gallery)


def test_an_interrupted_clustering_leaves_the_old_one(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = kept_numbers(gallery), list(gallery.clusters())

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    for owner, name in ((fr, "kmeans"), (clusters, "nearest"), (clusters, "_put")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, interrupted if name != "kmeans" else stopped_kmeans)
            with pytest.raises(KeyboardInterrupt):
                gallery.clusters(5)
        assert (kept_numbers(gallery), list(gallery.clusters())) == before
    with monkeypatch.context() as patch:
        patch.setattr(clusters, "_put", interrupted)  # of the commit that adds
        with pytest.raises(KeyboardInterrupt):
            gallery.add(shades("red", 2, seed=9))
    assert len(gallery) == 60
    assert_all_is_right(gallery)


def stopped_kmeans(x: Any, k: int, *, progress: Callable[[int, int], object], **_: Any) -> Any:
    """k-means that is interrupted after its first iteration, as by Ctrl-C."""

    def stop(done: int, total: int) -> None:
        progress(done, total)
        raise KeyboardInterrupt

    return fr.ops.clustering.kmeans(x, k, progress=stop)


def test_killed_in_the_middle_of_the_commit_nothing_is_half_written(gallery: Gallery) -> None:
    before = kept_numbers(gallery)
    put = clusters._put

    def die(connection: Any, ids: np.ndarray, numbers: np.ndarray) -> None:
        put(connection, ids[:9], numbers[:9])
        os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid == 0:
        clusters._put = die
        gallery.clusters(5)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert kept_numbers(gallery) == before
    assert_all_is_right(gallery)


def test_a_forked_child_answers_alike(gallery: Gallery) -> None:
    wanted = gallery.search(picture(3), within="cluster").ids, gallery.clusters().names
    pid = os.fork()
    if pid == 0:
        found = gallery.search(picture(3), within="cluster").ids, gallery.clusters().names
        os._exit(0 if found == wanted else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# --- forgetting, copies, other versions -----------------------------------------------------------


def contents(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.rglob("*") if file.is_file())


@pytest.mark.parametrize("is_removed_before", [False, True])
def test_no_centre_remembers_what_was_forgotten(tmp_path: Path, is_removed_before: bool) -> None:
    gallery = coloured(tmp_path / "g", metric="l2")
    gallery.clusters(60)  # each centre is the vector of one item
    vector = gallery.vectors([7])[0].tobytes()
    if is_removed_before:
        gallery.remove(7)
    assert vector in contents(gallery.path)
    gallery.forget(7)
    assert vector not in contents(gallery.path)
    assert vector[100:132] not in contents(gallery.path)
    assert len(gallery.clusters()) == 59
    assert_all_is_right(gallery, "l2")


def test_centres_are_means_of_those_that_stay(gallery: Gallery) -> None:
    gallery.remove([2, 3])
    gallery.forget([5, 40])
    vectors = fr.normalize(gallery.vectors()).astype(np.float64)
    numbers = np.array([kept_numbers(gallery)[item.id] for item in gallery.items()])
    for each in gallery.clusters():
        mean = vectors[numbers == each.number].mean(axis=0)
        np.testing.assert_allclose(each.centre, mean / np.linalg.norm(mean), atol=1e-6)
    assert_all_is_right(gallery)
    gallery.forget(where="1")
    assert gallery.check() == []
    assert gallery.info()["clusters"] == 0
    with pytest.raises(GalleryError, match="has no clusters yet; make them"):
        gallery.clusters()


def test_a_copy_has_the_clusters_and_an_export_works(gallery: Gallery, tmp_path: Path) -> None:
    with gallery.copy(tmp_path / "copy") as copied:
        assert copied.clusters().sizes == [30, 20, 10]
        copied.add(shades("blue", 2, seed=4))
        assert_all_is_right(copied)
    assert gallery.clusters().sizes == [30, 20, 10]
    assert gallery.export(tmp_path / "v.npy", tmp_path / "i.csv") == 60
    assert gallery.info()["clusters"] == 3


def test_a_gallery_without_clusters_is_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(written, "unavailable", lambda: "words have a version of their own")
    gallery = coloured(tmp_path / "g")
    with sqlite3.connect(gallery.path / "items.sqlite") as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master")]
        assert not [name for name in tables if "cluster" in name]
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert not gallery.has_clusters
    gallery.clusters(2)
    # Versions before would let clusters fall behind, and say that they are too old.
    assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    connection.close()
    assert gallery.has_clusters
    assert Gallery.open(gallery.path).has_clusters


FORGED = {
    "a short centre": "UPDATE cluster SET centre = x'00' WHERE number = 1",
    "a centre of text": "UPDATE cluster SET centre = 'far' WHERE number = 1",
    "a centre that is not finite": f"UPDATE cluster SET centre = x'{'0000c07f' * 192}'",
    "a negative number": "UPDATE cluster SET number = -5 WHERE number = 1",
    "a huge number": "UPDATE cluster SET number = 9223372036854775807 WHERE number = 1",
    "an item that cannot be": "UPDATE cluster_of SET item = -999999 WHERE item = 5",
    "an item in no cluster that is there": "UPDATE cluster_of SET number = 77 WHERE item = 5",
    "a number of text": "UPDATE cluster_of SET number = 'first' WHERE item = 5",
    "a label that is no text": "UPDATE item SET label = x'00' WHERE id = 5",
    "no index of members": "DROP INDEX cluster_members",
    "no members": "DROP TABLE cluster_of",
}


@pytest.mark.parametrize("what", FORGED)
def test_false_clusters_are_named(gallery: Gallery, what: str) -> None:
    gallery.close()
    with sqlite3.connect(gallery.path / "items.sqlite") as connection:
        connection.execute(FORGED[what])
    connection.close()
    with pytest.raises(GalleryError, match=r"damaged|make the clusters anew"):
        Gallery.open(gallery.path).clusters()
    try:
        opened = Gallery.open(gallery.path)
    except GalleryError:
        return
    assert opened.check() != []
    with contextlib.suppress(GalleryError):
        opened.search(1, within=0)


def test_who_was_added_without_a_cluster_is_named_and_mended(gallery: Gallery) -> None:
    with sqlite3.connect(gallery.path / "items.sqlite") as connection:
        connection.execute("DELETE FROM cluster_of WHERE item = 5")
        connection.execute("UPDATE state SET generation = generation + 1")
    connection.close()
    assert gallery.check() == ["1 items are in no cluster, or gone and in one: [5]"]
    for ask in (gallery.clusters, lambda: gallery.search(1, within="cluster")):
        with pytest.raises(GalleryError, match=r"in no cluster.*make the clusters anew"):
            ask()
    gallery.clusters(3)
    assert_all_is_right(gallery)


# --- names ----------------------------------------------------------------------------------------


def test_the_most_common_label_names_a_cluster(gallery: Gallery) -> None:
    found = gallery.clusters()
    assert (found.names, found.sizes) == (["red", "green", "blue"], [30, 20, 10])
    gallery.label([31, 32, 33], "lime")
    assert [each.share for each in gallery.clusters()] == [1, 17 / 20, 1]
    gallery.label(list(range(31, 51)), None)
    gallery.label([31, 32, 33], "lime")  # too few to speak for the others
    assert gallery.clusters().names == ["red", "cluster 1", "blue"]
    assert gallery.clusters()[1].share is None


def test_words_that_set_a_cluster_apart_name_it(tmp_path: Path) -> None:
    gallery = new_gallery(tmp_path / "g")
    kinds = {"red": "a shiny rubber boot", "green": "a leather bag", "blue": "a photo of nothing"}
    rows = ["path,caption,number,item,centre"]
    for colour, text in kinds.items():
        for i, shade in enumerate(shades(colour, 8)):
            Image.fromarray(shade).save(tmp_path / f"{colour}{i}.png")
            rows.append(f"{tmp_path / colour}{i}.png,{text} on a table {i},{i},x,y")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    gallery.add(tmp_path / "t.csv")
    assert set(gallery.clusters(3).names) == {
        "boot, rubber, shiny",
        "bag, leather",
        "nothing, photo",
    }
    gallery.clusters(1)  # nothing is set apart
    assert gallery.clusters().names == ["cluster 0"]


# --- wrong ways to ask ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "error", "message"),
    [
        (0, ValueError, "n must be at least 1, got 0"),
        (-3, ValueError, "n must be at least 1, got -3"),
        (61, GalleryError, r"n must be in \[1, 60\], the number of items; got 61"),
        (2.5, TypeError, "n must be a whole number, got 2.5"),
        ("3", TypeError, "n must be a whole number, got '3'"),
    ],
)
def test_a_wrong_number_of_clusters(
    gallery: Gallery, n: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        gallery.clusters(n)
    assert gallery.clusters().sizes == [30, 20, 10]


@pytest.mark.parametrize("within", ["clusters", "0", 2.0, True, [1], b"cluster"])
def test_another_word_for_within(gallery: Gallery, within: Any) -> None:
    message = "within is 'cluster', the nearest one, or the number of a cluster"
    with pytest.raises(GalleryError, match=message):
        gallery.search(1, within=within)
    with pytest.raises(GalleryError, match="within is the number of a cluster"):
        gallery.items(within=within)


def test_a_gallery_without_clusters_says_what_to_do(tmp_path: Path) -> None:
    gallery = new_gallery(tmp_path / "g")
    with pytest.raises(GalleryError, match="holds no items, so there is nothing to cluster"):
        gallery.clusters(1)
    gallery.add([picture(1), picture(2)])
    asked: list[Callable[[], object]] = [
        gallery.clusters,
        lambda: gallery.search(1, within="cluster"),
        lambda: gallery.search(1, within=0),
        lambda: gallery.items(within=0),
        lambda: gallery.nearest_clusters(1),
    ]
    for ask in asked:
        with pytest.raises(GalleryError, match=r"no clusters yet; make them: gallery.clusters\(20"):
            ask()


# --- the verb -------------------------------------------------------------------------------------


def run(*arguments: object, code: int = 0) -> str:
    shown = CliRunner().invoke(cli.app, [str(a) for a in arguments])
    assert shown.exit_code == code, shown.output + repr(shown.exception)
    return shown.output + (str(shown.exception) if code else "")


def test_from_the_command_line(tmp_path: Path) -> None:
    path = coloured(tmp_path / "g").path
    assert "no clusters yet" in run("clusters", path, code=1)
    text = run("clusters", path, "-n", 3, "--save", tmp_path / "c.png")
    assert [line.split()[:4] for line in text.splitlines()[1:4]] == [
        ["0", "30", "red", "100%"],
        ["1", "20", "green", "100%"],
        ["2", "10", "blue", "100%"],
    ]
    assert f"60 items in 3 clusters; wrote {tmp_path / 'c.png'}" in text
    with Image.open(tmp_path / "c.png") as sheet:
        assert sheet.width > 500
    run("clusters", path, "--save", tmp_path / "c.html")
    assert (tmp_path / "c.html").read_text().count("<figure>") == 3
    told = json.loads(run("clusters", path, "--json"))["clusters"]
    assert [each["size"] for each in told] == [30, 20, 10]
    assert "within cluster 2" in run("search", path, 51, "--within", "cluster")
    found = json.loads(run("search", path, 51, "--within", 1, "-k", 50, "--json"))
    assert (found["cluster"], {m["label"] for m in found["matches"]}) == (1, {"green"})
    assert "within is 'cluster'" in run("search", path, 51, "--within", "groups", code=1)


def test_ctrl_c_at_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = coloured(tmp_path / "g").path
    monkeypatch.setattr(fr, "kmeans", stopped_kmeans)
    assert "stopped; the clusters are those" in run("clusters", path, "-n", 3, code=130)
