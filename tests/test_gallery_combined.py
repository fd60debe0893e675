"""One search with several of: imagine, translate, diversity, region, within, offset."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fastretrieve as fr
from fastretrieve.encoders.base import TorchEncoder
from fastretrieve.gallery import Gallery, GalleryError
from gallery_helpers import class_folders, new_gallery, picture, serving

REGION = (4, 2, 20, 18)


class Painter(TorchEncoder):
    """A generator whose codes are the pixels themselves, and a translator to the negative."""

    name = "painter"
    capabilities = frozenset({"invert", "translate"})

    def __init__(self, *, image_size: Any = 12, channels: int = 3) -> None:
        super().__init__(dim=3, config={"image_size": image_size, "channels": channels})

    def embed(self, batch: Any) -> torch.Tensor:
        return batch.mean((2, 3))

    def invert(self, batch: Any) -> torch.Tensor:
        return batch.flatten(1) * 2 - 1

    def draw(self, codes: torch.Tensor) -> torch.Tensor:
        return ((codes + 1) / 2).clamp(0, 1).view(-1, self.channels, *self.image_size)

    def translate(self, batch: Any) -> torch.Tensor:
        return 1 - batch


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    folder = tmp_path_factory.mktemp("combined")
    made = new_gallery(folder / "g")
    made.add(class_folders(folder / "photos", 20))
    made.clusters(3)
    return made


@pytest.fixture(scope="module")
def style(gallery: Gallery) -> Any:
    pictures = [Image.eval(picture(2000 + i), lambda shade: shade // 2) for i in range(20)]
    return gallery.fit_style(pictures, how="mean", progress=False)


def imagine(**options: Any) -> fr.Imagine:
    return fr.Imagine(Painter(), n=4, spread=0.9, **options)


def pixels(image: Any) -> Any:
    return np.asarray(image, np.float64)


def encoded(gallery: Gallery, pictures: list[Image.Image]) -> Any:
    encoder = gallery.encoder
    return np.asarray(encoder.encode(encoder.preprocess(pictures)))


def best(gallery: Gallery, vectors: Any, *, among: Any = None) -> list[int]:
    """Ids in the order of the best score with any of the vectors, by all scores."""
    ids = np.array([item.id for item in gallery.items()])
    scores = fr.scores(vectors, gallery.vectors(), metric="cosine").max(0)
    order = ids[np.lexsort((ids, -scores))].tolist()
    return [i for i in order if among is None or i in among]


def members(gallery: Gallery, number: int) -> set[int]:
    return {item.id for item in gallery.items(within=number)}


@pytest.mark.parametrize("seed", [4, 17, 23])  # some imagined ones lie in other clusters
def test_imagined_pictures_answer_within_the_cluster_of_the_query(
    gallery: Gallery, seed: int
) -> None:
    query = picture(seed)
    found = gallery.search(query, k=60, imagine=imagine(fusion="best"), within="cluster")
    assert found.cluster == gallery.nearest_clusters(query, k=1)[0].number
    inside = members(gallery, found.cluster)
    assert 0 < len(inside) < 40
    assert found.ids == best(gallery, encoded(gallery, [query, *found.imagined]), among=inside)
    assert max(match.found_by for match in found) > 0


def test_a_region_is_imagined_and_not_what_is_around_it(gallery: Gallery) -> None:
    query, part = picture(7), picture(7).crop(REGION)
    found = gallery.search(query, k=60, imagine=imagine(fusion="best"), region=REGION)
    assert found.query is not None
    assert found.query.size == (16, 16)
    assert found.ids == best(gallery, encoded(gallery, [part, *found.imagined]))
    alone = gallery.search(part, k=60, imagine=imagine(fusion="best"))
    assert np.array_equal([*map(pixels, found.imagined)], [*map(pixels, alone.imagined)])


def test_what_a_translator_paints_is_imagined(gallery: Gallery, tmp_path: Path) -> None:
    found = gallery.search(picture(7), k=60, imagine=imagine(fusion="best"), translate=Painter())
    assert found.translation is not None
    painted = found.translation.picture
    assert painted is not None
    assert found.ids == best(gallery, encoded(gallery, [painted, *found.imagined]))
    near, far = [
        np.mean([abs(pixels(each) - pixels(shown)).mean() for each in found.imagined])
        for shown in (painted, picture(7).resize((12, 12)))
    ]
    assert near < far
    found.to_html(tmp_path / "x.html")
    page = (tmp_path / "x.html").read_text()
    assert "<b>translated query</b>" in page
    assert "<b>imagined 4</b>" in page
    assert found.image().height > gallery.search(picture(7), k=60).image().height


def test_a_style_of_vectors_carries_the_imagined_ones_too(gallery: Gallery, style: Any) -> None:
    query = picture(7)
    found = gallery.search(query, k=60, imagine=imagine(fusion="best"), translate=style)
    vectors = style.vectors(encoded(gallery, [query, *found.imagined]))
    assert found.ids == best(gallery, vectors)
    assert found.ids != best(gallery, encoded(gallery, [query, *found.imagined]))


def test_the_region_is_what_is_translated(gallery: Gallery, style: Any) -> None:
    part = picture(7).crop(REGION)
    for translate in (Painter(), style):
        found = gallery.search(picture(7), k=9, translate=translate, region=REGION)
        wanted = gallery.search(part, k=9, translate=translate)
        assert (found.ids, found.scores) == (wanted.ids, wanted.scores)
        assert found.ids != gallery.search(picture(7), k=9, translate=translate).ids
    by_item = gallery.search(3, k=60, translate=Painter(), region=REGION)
    assert 3 not in by_item.ids
    assert len(by_item) == 39


def test_the_translated_query_chooses_the_cluster(gallery: Gallery) -> None:
    found = gallery.search(picture(7), k=60, translate=Painter(), within="cluster")
    assert found.translation is not None
    assert found.cluster == gallery.nearest_clusters(found.translation.picture, k=1)[0].number
    assert set(found.ids) == members(gallery, found.cluster)


def test_variety_is_of_one_cluster(gallery: Gallery) -> None:
    varied = gallery.search(picture(7), k=60, diversity=0.7, within="cluster")
    plain = gallery.search(picture(7), k=60, within="cluster")
    assert varied.cluster == plain.cluster
    assert sorted(varied.ids) == sorted(plain.ids)
    assert varied.ids != plain.ids
    assert varied.ids[0] == plain.ids[0]


@pytest.mark.parametrize("fusion", ["ranks", "best"])
@pytest.mark.parametrize("name", ["imagine", "diversity", "region", "translate", "within"])
def test_pages_make_the_whole(gallery: Gallery, style: Any, name: str, fusion: Any) -> None:
    """All but one option at a time, so that no two of them disturb each other's pages."""
    every = {
        "imagine": imagine(fusion=fusion),
        "translate": style,
        "diversity": 0.4,
        "region": REGION,
        "within": "cluster",
    }
    options: Any = {key: value for key, value in every.items() if key != name}
    whole = gallery.search(picture(7), k=40, **options).ids
    pages = [gallery.search(picture(7), k=3, offset=at, **options).ids for at in range(0, 42, 3)]
    assert [item_id for page in pages for item_id in page] == whole
    assert len(whole) == len(set(whole)) > 3


def test_a_cluster_has_no_picture_to_change(gallery: Gallery) -> None:
    cluster = gallery.clusters()[0]
    changes: list[Any] = [{"imagine": imagine()}, {"translate": Painter()}, {"region": REGION}]
    for change in changes:
        with pytest.raises(GalleryError, match=r"no picture: leave .* with cluster\.item"):
            gallery.search(cluster, **change)
    assert gallery.search(cluster.item, k=2, imagine=imagine(), region=REGION)


def test_one_request_may_use_every_switch(gallery: Gallery, style: Any) -> None:
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("fastapi")
    wanted = gallery.search(
        picture(7),
        k=5,
        imagine=imagine(),
        translate=Painter(),
        region=(6, 5, 18, 15),
        within="cluster",
    )
    buffer = io.BytesIO()
    picture(7).save(buffer, "PNG")
    fields = {"k": 5, "imagine": "true", "translate": "true", "within": "cluster"}
    with serving(gallery, imagine=imagine(), translate=Painter()) as address:
        answer = httpx.post(
            f"{address}/api/search",
            files={"image": buffer.getvalue()},
            data={**fields, "region": "0.25,0.25,0.75,0.75"},
        ).json()
        similar = httpx.get(
            f"{address}/api/items/3/similar",
            params={"imagine": "true", "within": "cluster", "region": "0.25,0.25,0.75,0.75"},
        ).json()
    assert [match["id"] for match in answer["matches"]] == wanted.ids
    assert (len(answer["imagined"]), answer["cluster"]) == (4, wanted.cluster)
    with Image.open(io.BytesIO(base64.b64decode(answer["translated"]))) as shown:
        assert shown.size == (12, 12)
    own = gallery.search(3, k=24, imagine=imagine(), region=(6, 5, 18, 15), within="cluster")
    assert [match["id"] for match in similar["matches"]] == own.ids
