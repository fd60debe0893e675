"""Clusters over HTTP: their list, their members, and searches within the nearest one."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fastretrieve.gallery import Gallery
from fastretrieve.server import Limits
from gallery_helpers import class_folders, new_gallery, picture, serving

pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    folder = tmp_path_factory.mktemp("clusters")
    made = new_gallery(folder / "g")
    made.add(class_folders(folder / "photos", 20))
    made.clusters(6)
    return made


@pytest.fixture(scope="module")
def web(gallery: Gallery) -> Iterator[httpx.Client]:
    with serving(gallery, limits=Limits(results=30)) as where, httpx.Client(base_url=where) as web:
        yield web


def ids(answer: httpx.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [match["id"] for match in answer.json()["matches"]]


def get(web: httpx.Client, path: str, **fields: Any) -> httpx.Response:
    return web.get(f"/api/{path}", params=fields)


def test_clusters_come_in_pages(web: httpx.Client, gallery: Gallery) -> None:
    wanted = gallery.clusters()
    first, second = (get(web, "clusters", k=4, offset=offset).json() for offset in (0, 4))
    assert (first["more"], second["more"]) == (True, False)
    found = first["clusters"] + second["clusters"]
    for one, cluster in zip(found, wanted, strict=True):
        about = {name: getattr(cluster, name) for name in ("number", "name", "size", "share")}
        assert one == {**about, "picture": f"api/items/{cluster.item.id}/picture"}
    assert get(web, "clusters/3").json() == found[3]
    assert web.get(f"/{found[0]['picture']}").headers["content-type"] == "image/jpeg"
    assert get(web, "gallery").json()["clusters"] == 6
    assert str(gallery.path.parent) not in json.dumps(found)  # no paths


def test_members_come_from_the_centre_outwards(web: httpx.Client, gallery: Gallery) -> None:
    largest = gallery.clusters()[0]
    wanted = gallery.search(largest, k=40, within=largest).ids
    assert sorted(wanted) == [item.id for item in gallery.items(within=0)]
    paged = [ids(get(web, "clusters/0/items", k=3, offset=offset)) for offset in range(0, 40, 3)]
    assert [item for part in paged for item in part] == wanted
    assert wanted[0] == largest.item.id
    boots = json.dumps([{"column": "label", "operator": "=", "value": "boot"}])
    found = ids(get(web, "clusters/0/items", k=30, filters=boots))
    assert found == gallery.search(largest, k=40, within=0, where="label = 'boot'").ids


def test_a_search_may_stay_within_the_nearest_cluster(web: httpx.Client, gallery: Gallery) -> None:
    wanted = gallery.search(picture(7), k=30, within="cluster")
    buffer = io.BytesIO()
    picture(7).save(buffer, "PNG")
    form = {"files": {"image": ("x.png", buffer.getvalue())}}
    answer = web.post("/api/search", data={"k": 30, "within": "cluster"}, **form)
    assert ids(answer) == wanted.ids
    assert answer.json()["cluster"] == wanted.cluster
    assert web.post("/api/search", **form).json()["cluster"] is None
    similar = get(web, "items/3/similar", k=30, within="cluster")
    assert ids(similar) == gallery.search(3, k=30, within="cluster").ids


@pytest.mark.parametrize(
    ("path", "fields", "status", "reason"),
    [
        ("clusters/6", {}, 404, "there is no cluster 6"),
        ("clusters/6/items", {}, 404, "there is no cluster 6"),
        ("clusters/x/items", {}, 422, "number"),
        ("clusters", {"k": 31}, 422, "k is at most 30"),
        ("clusters/0/items", {"offset": 10_000}, 422, "offset is at most"),
        ("items/3/similar", {"within": "groups"}, 422, "within"),
    ],
)
def test_wrong_requests(
    web: httpx.Client, path: str, fields: dict[str, Any], status: int, reason: str
) -> None:
    answer = get(web, path, **fields)
    assert (answer.status_code, reason in answer.json()["detail"]) == (status, True), answer.text


def test_a_gallery_without_clusters(tmp_path: Path) -> None:
    gallery = new_gallery(tmp_path / "g")
    gallery.add([picture(1), picture(2)])
    with serving(gallery) as where, httpx.Client(base_url=where) as web:
        assert get(web, "clusters").json() == {"clusters": [], "offset": 0, "more": False}
        assert get(web, "clusters/0").status_code == 404
        answer = get(web, "items/1/similar", within="cluster")
        assert (answer.status_code, answer.json()["detail"]) == (
            422,
            "this gallery has no clusters",
        )
        gallery.clusters(2)
        assert len(get(web, "clusters").json()["clusters"]) == 2
