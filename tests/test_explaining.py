"""Why a match matched: maps that sum to the score, regions, and what is refused."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import fastretrieve as fr
from fastretrieve import cli
from fastretrieve.encoders.blocks.located import located
from fastretrieve.encoders.blocks.networks import grid_pool, place_edges
from fastretrieve.gallery import Gallery, GalleryError
from fastretrieve.gallery.lookup import occluding, regions
from gallery_helpers import new_gallery, picture, write_pictures

EXACT = {
    "cnn": {"image_size": 32, "dim": 16, "width": 4},
    "cnn of the code": {"image_size": 20, "dim": 16, "width": 4, "form": "code"},
    "cnn of an odd size": {"image_size": (27, 41), "dim": 16, "width": 4},
    "gan": {"image_size": 22, "dim": 24, "width": 4},
    "pretrained": {"image_size": 33, "imagenet": False},
    "pretrained, fused": {"image_size": 33, "imagenet": False, "dim": 32},
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are slower with more."""
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


@functools.cache
def encoder_of(name: str) -> Any:
    encoder = fr.create_encoder(name.partition(" ")[0].strip(","), **EXACT[name])
    encoder.is_trained = True
    chance = torch.Generator().manual_seed(1)
    with torch.no_grad():  # no number is zero only because nothing was learned
        for buffer in encoder.buffers():
            if buffer.is_floating_point():
                buffer += 0.01 * torch.rand(buffer.shape, generator=chance)
        if name.startswith("pretrained"):  # its random network gives the same for all pictures
            for weight in encoder.parameters():
                weight *= 2.0
    return encoder


def pictures(n: int) -> list[Image.Image]:
    return [picture(i, size=(40, 30)) for i in range(n)]


@pytest.mark.parametrize("name", EXACT)
def test_parts_and_constant_sum_to_the_vector(name: str) -> None:
    encoder = encoder_of(name)
    batch = encoder.preprocess(pictures(3))
    parts, constant = encoder.parts(batch)
    rows = encoder.encode(batch)
    assert parts.dtype == constant.dtype == torch.float32
    sums = parts.double().sum((1, 2)) + constant
    assert float((sums - rows).abs().max()) <= 1e-5 * max(1.0, float(rows.abs().max()))
    assert encoder.parts(batch[:0])[1].shape == (0, encoder.dim)


def test_a_position_adds_what_lies_there() -> None:
    """A change of a corner changes the parts near that corner."""
    encoder = encoder_of("cnn")
    batch = torch.full((2, 3, 32, 32), 0.5)
    batch[1, :, :6, 26:] = 1.0
    changed = np.abs(np.diff(encoder.parts(batch)[0].numpy(), axis=0))[0].sum(2)
    assert changed[:8, 8:].sum() > 0.8 * changed.sum()


@pytest.mark.parametrize("cells", [1, 2, 3])
def test_located_cells_are_those_of_the_pooling(cells: int) -> None:
    maps = torch.rand(2, 3, 5, 8, dtype=torch.float64)
    found = located(maps, cells=cells, grid=(4, 16))
    torch.testing.assert_close(found.total(), grid_pool(maps, cells))


def middle_of_sight(maps: torch.Tensor, image: torch.Tensor, place: int) -> float:
    """Where across the image the pixels lie, in the middle, that a place of its maps sees."""
    (gradient,) = torch.autograd.grad(maps[0, :, place, place].sum(), image)
    weights = gradient.abs().sum((0, 1, 2))
    return float((weights * (torch.arange(len(weights)) + 0.5)).sum() / weights.sum())


def test_places_lie_where_the_networks_look() -> None:
    cnn, gan = copy.deepcopy(encoder_of("cnn")), copy.deepcopy(encoder_of("gan"))
    image = torch.full((1, 3, 32, 32), 0.9, requires_grad=True)
    with torch.no_grad():
        for weight in (*cnn.body.parameters(), *gan.discriminator.blocks.parameters()):
            weight.fill_(0.01)
    for maps, edges in (
        (cnn.body.all_maps(image)[1], cnn.body.edges(2)),
        (gan.discriminator.maps(image)[1], [place_edges(8, 32, first=2.0, step=4)]),
    ):
        around = 32 * edges[-1][4:6]
        assert middle_of_sight(maps, image, 4) == pytest.approx(float(around.mean()), abs=0.1)


@pytest.mark.parametrize("side", [128, 100])
def test_places_of_the_pretrained_network_lie_where_it_looks(side: int) -> None:
    encoder = fr.create_encoder("pretrained", image_size=side, imagenet=False)
    image = torch.full((1, 3, side, side), 0.9, requires_grad=True)
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.fill_(0.001)
    maps = encoder._maps(image)["edges"]
    place = maps.shape[3] // 2
    around = side * encoder._edges(maps)[1][place : place + 2]
    assert middle_of_sight(maps, image, place) == pytest.approx(float(around.mean()), abs=0.5)


def filled(folder: Path, encoder: Any, metric: str = "cosine") -> Gallery:
    gallery = Gallery.create(folder / "g", encoder=encoder, metric=metric)
    gallery.add(folder / "photos", progress=False)
    return gallery


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "photos", 6)
    return tmp_path


CASES = [("cnn", "cosine"), ("cnn", "ip"), ("cnn", "l2"), ("cnn", "sqeuclidean"), ("gan", "ip")]


@pytest.mark.parametrize(("name", "metric"), [*CASES, ("pretrained, fused", "cosine")])
def test_both_maps_sum_to_the_score(photos: Path, name: str, metric: str) -> None:
    gallery = filled(photos, encoder_of(name), metric)
    (match,) = gallery.search(picture(50), k=1)
    found = gallery.explain(picture(50), match.item)
    assert found.method == "parts"
    wanted = 1e-5 * max(1.0, abs(match.score))
    assert found.score == pytest.approx(match.score, abs=wanted)
    for one in (found.query, found.item):
        assert one.parts.sum() + one.constant == pytest.approx(match.score, abs=wanted)
        assert np.ptp(one.parts) > 0
        assert one.heat.sum() == pytest.approx(1.0)


def beside(one: Image.Image, other: Image.Image) -> Image.Image:
    both = Image.new("RGB", (48, 20))
    both.paste(one, (0, 0))
    both.paste(other, (24, 0))
    return both


def test_occlusion_finds_the_object_that_matched(tmp_path: Path) -> None:
    gallery = new_gallery(tmp_path / "g")
    one, other, none = (Image.new("RGB", (24, 20)) for _ in range(3))
    one.paste(picture(1, size=(18, 14)), (3, 3))
    other.paste(picture(2, size=(18, 14)), (3, 3))
    gallery.add([beside(one, none), beside(none, other)], progress=False)
    for item_id, half in ((1, slice(0, 4)), (2, slice(4, 8))):
        found = gallery.explain(beside(one, other), item_id)
        assert found.method == "occlusion"
        assert not found.is_exact
        for each in (found.query, found.item):
            assert each.heat[:, half].sum() > 0.95
            assert each.parts.sum() + each.constant == pytest.approx(found.score)


def test_occlusion_takes_one_batch(photos: Path) -> None:
    gallery = filled(photos, fr.create_encoder("pixels", image_size=8))
    sizes: list[int] = []
    encode = gallery.encoder.encode
    gallery.encoder.encode = lambda batch: (sizes.append(len(batch)), encode(batch))[1]  # type: ignore[method-assign]
    gallery.explain(picture(50, size=(3000, 2000)), 1)
    assert sizes == [2 * (2 + occluding.POSITIONS**2)]


def test_a_picture_of_one_pixel_is_explained(photos: Path) -> None:
    found = filled(photos, fr.create_encoder("pixels", image_size=8)).explain(
        np.full((1, 1), 200, np.uint8), 1
    )
    assert found.query.parts.shape == (8, 8)
    assert found.image().size[0] > 320


def test_a_region_is_searched_and_explained_as_its_crop(photos: Path) -> None:
    gallery = filled(photos, fr.create_encoder("pixels", image_size=8))
    whole = beside(picture(3), picture(50))
    wanted = gallery.search(picture(3), k=4)
    found = gallery.search(whole, k=4, region=(0, 0, 24, 20))
    assert (found.ids, found.scores) == (wanted.ids, wanted.scores)
    assert found.query is not None
    assert found.query.size == (24, 20)
    explained = gallery.explain(whole, found.ids[0], region=(0, 0, 24, 20))
    assert explained.score == pytest.approx(found.scores[0], abs=1e-5)
    assert explained.query.region == (0, 0, 24, 20)


def test_a_region_of_an_item_is_of_its_picture_and_leaves_it_out(photos: Path) -> None:
    gallery = filled(photos, fr.create_encoder("pixels", image_size=8))
    crop = picture(2).crop((2, 3, 20, 15))
    wanted = [(m.item.id, m.score) for m in gallery.search(crop, k=6) if m.item.id != 3]
    found = gallery.search(3, k=6, region=(2, 3, 20, 15))
    assert list(zip(found.ids, found.scores, strict=True)) == wanted


def test_a_region_is_of_the_upright_picture(photos: Path) -> None:
    gallery = filled(photos, fr.create_encoder("pixels", image_size=8))
    upright = beside(picture(3), picture(50))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter
    upright.transpose(Image.Transpose.ROTATE_90).save(photos / "turned.png", exif=exif)
    found = gallery.search(photos / "turned.png", k=1, region=(24, 0, 48, 20))
    assert found.scores == gallery.search(picture(50), k=1).scores


def test_a_region_of_a_large_jpeg_counts_its_own_pixels(photos: Path) -> None:
    """Decoded for the encoder alone, it would be eight times smaller."""
    gallery = filled(photos, fr.create_encoder("pixels", image_size=8))
    picture(50, size=(800, 600)).save(photos / "large.jpg")
    gallery.add(photos / "large.jpg", progress=False)
    for query in (photos / "large.jpg", 7):
        found = gallery.search(query, k=1, region=(400, 300, 800, 600))
        assert found.query is not None
        assert found.query.size == (400, 300)


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ((0, 0, 25, 20), r"not inside the picture of 24 x 20 pixels"),
        ((-1, 0, 5, 5), r"not inside"),
        ((5, 5, 5, 9), r"is empty; .* left < right"),
        ((9, 0, 5, 9), r"is empty"),
        ((0, 0, 9), r"\(left, top, right, bottom\) in pixels; got"),
        ((0, 0, float("nan"), 5), r"all of them finite"),
        ("abcd", r"in pixels; got 'abcd'"),
    ],
)
def test_a_wrong_region_is_refused(photos: Path, region: Any, message: str) -> None:
    gallery = filled(photos, fr.create_encoder("pixels", image_size=8))
    for ask in (gallery.search, lambda q, **o: gallery.explain(q, 1, **o)):
        with pytest.raises(GalleryError, match=message):
            ask(picture(1), region=region)


def test_what_cannot_be_explained_says_why(photos: Path) -> None:
    gallery = filled(photos, fr.create_encoder("pixels", image_size=8))
    with pytest.raises(GalleryError, match="has no item 99"):
        gallery.explain(1, 99)
    with pytest.raises(GalleryError, match="names 6 items; give the id of one"):
        gallery.explain(1, photos / "photos")
    (photos / "photos" / "00001.png").unlink()
    with pytest.raises(GalleryError, match=r"item 2 has no picture any more: .*00001\.png"):
        gallery.explain(1, 2)
    with pytest.raises(GalleryError, match="item 2 has no picture any more"):
        gallery.search(2, region=(0, 0, 5, 5))
    picture(77).save(photos / "photos" / "00002.png")
    with pytest.raises(GalleryError, match=r"item 3 has changed since it was added"):
        gallery.explain(1, 3)
    with pytest.raises(GalleryError, match=r"item 3 has changed since it was added"):
        gallery.explain(3, 1)
    gallery.update(progress=False)
    assert gallery.explain(1, 3).score == pytest.approx(gallery.search(1, k=9).scores[-1], abs=1)


def test_galleries_of_sequences_are_refused(tmp_path: Path) -> None:
    encoder = fr.create_encoder("rnn", n_features=3, dim=4)
    encoder.is_trained = True
    gallery = Gallery.create(tmp_path / "g", encoder=encoder)
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((9, 3)))
    gallery.add(tmp_path / "a.npy", progress=False)
    with pytest.raises(GalleryError, match="holds sequences; regions and explanations are of"):
        gallery.explain(1, 1)
    with pytest.raises(GalleryError, match="holds sequences"):
        gallery.search(1, region=(0, 0, 1, 1))


def test_the_shell_explains_and_searches_a_region(photos: Path) -> None:
    filled(photos, fr.create_encoder("pixels", image_size=8)).close()
    picture(3).save(photos / "query.png")

    def run(verb: str, *words: Any) -> Any:
        return CliRunner().invoke(cli.app, [verb, str(photos / "g"), *map(str, words)])

    done = run("explain", photos / "query.png", 4, "--save", photos / "why.png")
    assert "by occlusion" in done.output, done.output
    with Image.open(photos / "why.png") as image:
        assert image.size[0] > 4 * 320
    told = json.loads(run("explain", 1, 4, "--region", "0,0,12,20", "--json").output)
    assert told["query"]["region"] == [0, 0, 12, 20]
    found = json.loads(
        run("search", photos / "query.png", "--region", "0,0,12,20", "-k", 1, "--json").output
    )
    assert found["query"].startswith("a part of ")
    wrong = run("search", photos / "query.png", "--region", "0,0")
    assert "in pixels" in str(wrong.exception)


def test_a_typed_region() -> None:
    assert regions.parsed("1, 2.5,3,4") == (1, 2.5, 3, 4)
    with pytest.raises(GalleryError, match=r"such as 10,20,110,220; got '1;2'"):
        regions.parsed("1;2")
