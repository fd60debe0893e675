"""Imagined queries: what is drawn, what it finds, and the order of what is found."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fastretrieve as fr
from fastretrieve.encoders.base import TorchEncoder
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.gallery import Gallery, GalleryError
from fastretrieve.gallery.lookup import imagining, ranking
from fastretrieve.testing import run_check
from gallery_helpers import class_folders, new_gallery, picture


class Sketch(TorchEncoder):
    """A generator whose codes are the pixels themselves, as -1 to 1."""

    name = "sketch"
    capabilities = frozenset({"invert"})

    def __init__(
        self, *, image_size: Any = 12, channels: int = 3, tone: float | None = None
    ) -> None:
        config = {"image_size": image_size, "channels": channels, "tone": tone}
        super().__init__(dim=3, config=config)
        self.tone = tone

    def embed(self, batch: Any) -> torch.Tensor:
        return batch.mean((2, 3))

    def invert(self, batch: Any) -> torch.Tensor:
        return batch.flatten(1) * 2 - 1

    def draw(self, codes: torch.Tensor) -> torch.Tensor:
        drawn = ((codes + 1) / 2).clamp(0, 1).view(-1, self.channels, *self.image_size)
        return drawn if self.tone is None else drawn * 0 + self.tone


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    folder = tmp_path_factory.mktemp("imagining")
    made = new_gallery(folder / "g")
    made.add(class_folders(folder / "photos", 30))
    return made


def oracle(gallery: Gallery, pictures: list[Image.Image]) -> tuple[Any, Any]:
    """Scores of all items with each picture, and the ids: [n_pictures, n_items], [n_items]."""
    encoder = gallery.encoder
    vectors = np.asarray(encoder.encode(encoder.preprocess(pictures)))
    ids = np.array([item.id for item in gallery.items()])
    return fr.scores(vectors, gallery.vectors(), metric="cosine"), ids


def test_the_best_score_with_any_picture_orders_the_items(gallery: Gallery) -> None:
    query = picture(7)
    found = gallery.search(
        query, imagine=fr.Imagine(Sketch(), n=5, spread=0.6, fusion="best"), k=60
    )
    assert len(found.imagined) == 5
    scores, ids = oracle(gallery, [query, *found.imagined])
    order = np.lexsort((ids, -scores.max(0)))
    assert found.ids == ids[order].tolist()
    assert [match.found_by for match in found] == scores.argmax(0)[order].tolist()
    assert found.scores == pytest.approx(scores.max(0)[order], abs=1e-6)
    assert {match.found_by for match in found} > {0, 1}


def test_sums_of_reciprocal_ranks_order_the_items(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "LISTED", 8)
    query = picture(7)
    wanted = fr.Imagine(Sketch(), n=3, spread=0.6)
    found = gallery.search(query, imagine=wanted, k=60)
    scores, ids = oracle(gallery, [query, *found.imagined])
    ranks = np.argsort(np.argsort(-scores, axis=1), axis=1) + 1
    values = np.where(ranks <= 8, 1 / (60 + ranks), 0).sum(0)
    fused = np.lexsort((ids, -values))[: int((values > 0).sum())]
    rest = [i for i in np.argsort(-scores[0]) if values[i] == 0]
    assert len(fused) > 8
    assert rest
    assert found.ids == ids[[*fused, *rest]].tolist()
    assert [m.found_by for m in found] == [*ranks.argmin(0)[fused], *[0] * len(rest)]


@pytest.mark.parametrize("fusion", ["best", "ranks"])
@pytest.mark.parametrize("diversity", [0.0, 0.4])
def test_pages_make_the_whole(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch, fusion: Any, diversity: float
) -> None:
    monkeypatch.setattr(ranking, "LISTED", 10)
    monkeypatch.setattr(ranking, "BLOCK", 16)
    wanted = fr.Imagine(Sketch(), n=3, spread=0.6, fusion=fusion)

    def ids(**options: Any) -> list[int]:
        found = gallery.search(picture(7), imagine=wanted, diversity=diversity, **options)
        return found.ids

    whole = ids(k=60)
    assert sorted(whole) == [item.id for item in gallery.items()]
    pages = [ids(k=7, offset=offset) for offset in range(0, 60, 7)]
    assert [item_id for page in pages for item_id in page] == whole


def test_conditions_items_and_include_self(gallery: Gallery) -> None:
    wanted = fr.Imagine(Sketch(), n=3, spread=0.2)
    bags = gallery.search(picture(7), imagine=wanted, where="label = 'bag'", k=60)
    assert {item.label for item in bags.items} == {"bag"}
    assert len(bags) == 30
    item = gallery.items()[4]
    others = gallery.search(item, imagine=wanted, k=60)
    assert item.id not in others.ids
    assert len(others) == 59
    own = gallery.search(item.id, imagine=wanted, include_self=True, k=3)
    assert (own[0].item.id, own[0].found_by) == (item.id, 0)
    content = Image.open(gallery.file_of(item))
    assert others.ids == gallery.search(content, imagine=wanted, k=60).ids[1:]


def pixels(pictures: list[Image.Image]) -> list[bytes]:
    return [each.tobytes() for each in pictures]


def test_the_same_query_imagines_the_same_pictures(gallery: Gallery) -> None:
    def drawn(**options: Any) -> list[bytes]:
        state = torch.random.get_rng_state()
        found = gallery.search(picture(7), imagine=fr.Imagine(Sketch(), n=4, **options))
        assert torch.equal(state, torch.random.get_rng_state())
        return pixels(found.imagined)

    assert drawn() == drawn()
    assert len({*drawn()}) == 4
    assert not {*drawn()} & {*drawn(seed=1)}


def test_several_generators_draw_in_turn(gallery: Gallery) -> None:
    light, dark = Sketch(tone=1.0, image_size=(4, 6)), Sketch(tone=0.0, channels=1)
    # A generator that cannot redraw anything adds nothing: each picture is the query.
    found = gallery.search(picture(7), imagine=fr.Imagine([light, dark], n=3))
    sizes = [(each.mode, each.size) for each in found.imagined]
    assert sizes == [("RGB", (6, 4)), ("L", (12, 12)), ("RGB", (6, 4))]
    assert len(gallery.search(picture(7), imagine=[light, dark]).imagined) == 16
    one = gallery.search(picture(7), imagine=fr.Imagine([light, dark], n=1))
    assert pixels(one.imagined) == pixels(found.imagined[:1])


SMALL: dict[str, Any] = {"image_size": 8, "channels": 3, "width": 4, "dim": 24}
GENERATORS = {
    "gan": {**SMALL, "latent": 8, "parts": 1},
    "vae": {**SMALL, "parts": 1},
    "autoencoder": SMALL,
}


@pytest.mark.parametrize("name", GENERATORS)
def test_the_built_in_generators_invert(name: str) -> None:
    cls = fr.create_encoder(name, **GENERATORS[name]).__class__
    assert run_check("invert", partial(cls, **GENERATORS[name]))


@pytest.mark.parametrize("name", GENERATORS)
def test_what_a_generator_cannot_redraw_stays(name: str, tmp_path: Path, gallery: Gallery) -> None:
    """Even one that has learnt nothing draws pictures near the query while the spread is small."""
    made: Any = fr.create_encoder(name, **GENERATORS[name])
    made.is_trained = True
    made.save(tmp_path / "generator")
    near, far = (
        gallery.search(
            picture(7), imagine=fr.Imagine(tmp_path / "generator", n=4, spread=spread)
        ).imagined
        for spread in (0.02, 1.0)
    )
    query = np.asarray(picture(7).resize((8, 8), Image.Resampling.BILINEAR), np.float64)

    def distance(pictures: list[Image.Image]) -> float:
        return float(np.mean([np.abs(np.asarray(each) - query).mean() for each in pictures]))

    assert distance(near) < 6
    assert len({*pixels(far)}) == 4
    assert distance(near) < distance(far)


def test_a_directory_is_read_once_and_again_when_it_changes(
    tmp_path: Path, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = fr.create_encoder("autoencoder", dim=4, image_size=8, channels=3, width=4)
    made.is_trained = True  # type: ignore[attr-defined]
    made.save(tmp_path)
    read = []
    load = imagining.as_encoder
    monkeypatch.setattr(imagining, "as_encoder", lambda *a, **o: read.append(a) or load(*a, **o))
    for _ in range(2):
        gallery.search(picture(7), imagine=str(tmp_path))
    assert len(read) == 1
    made.save(tmp_path)
    gallery.search(picture(7), imagine=tmp_path)
    assert len(read) == 2


def test_a_generator_of_more_pixels_than_the_encoder_sees_them(
    tmp_path: Path, gallery: Gallery
) -> None:
    """A JPEG may be decoded as small as the gallery's encoder needs it, 8 pixels here."""
    stripes = np.tile(np.array([0, 255], np.uint8), (512, 256))
    Image.fromarray(stripes).convert("RGB").save(tmp_path / "stripes.jpg", quality=95)
    sketch = Sketch(image_size=512)
    (drawn,) = gallery.search(
        tmp_path / "stripes.jpg", imagine=fr.Imagine(sketch, n=1, spread=0.01)
    ).imagined
    assert np.asarray(drawn, np.float64)[:, ::2].mean() < 40


class Flat(Sketch):
    name = "flat"

    def draw(self, codes: torch.Tensor) -> torch.Tensor:
        return super().draw(codes).flatten(1)


class TooBright(Sketch):
    name = "too-bright"

    def draw(self, codes: torch.Tensor) -> torch.Tensor:
        return super().draw(codes) * 255


def untrained() -> Any:
    return fr.create_encoder("vae", dim=4, image_size=8, width=4)


def of_sequences() -> Any:
    return fr.create_encoder("rnn", dim=4)


@pytest.mark.parametrize(
    ("generator", "error", "told"),
    [
        (lambda: "no-such-directory/", GalleryError, "no-such-directory is no saved encoder"),
        (list, GalleryError, "imagine names no generator"),
        (lambda: fr.create_encoder("pixels"), GalleryError, "lacks the capability 'invert'"),
        (untrained, EncoderError, "'vae' is not trained"),
        (of_sequences, GalleryError, "draws sequences, and the gallery holds images"),
        (Flat, GalleryError, r"'flat': draws \[16, 432\], but pictures are"),
        (TooBright, GalleryError, "'too-bright': draws values from 0 to 255"),
        (lambda: 7, EncoderError, "breaks the protocol"),
    ],
)
def test_what_cannot_draw_is_refused(
    gallery: Gallery, generator: Any, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        gallery.search(picture(7), imagine=generator())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"n": 0}, "n must be at least 1"),
        ({"n": 257}, r"n must be in \[1, 256\]"),
        ({"spread": 0}, "spread is the share of noise .* got 0"),
        ({"spread": 1.01}, "at most 1, got 1.01"),
        ({"spread": float("nan")}, "got nan"),
        ({"spread": "wide"}, "got 'wide'"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"fusion": "sum"}, "fusion must be best or ranks"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        fr.Imagine("my-gan/", **options)


def test_a_gallery_of_sequences_imagines_nothing(tmp_path: Path) -> None:
    encoder: Any = of_sequences()
    encoder.is_trained = True
    made = Gallery.create(tmp_path / "g", encoder=encoder)
    with pytest.raises(GalleryError, match="this gallery holds sequences; leave imagine out"):
        made.search(np.zeros((4, encoder.n_features), np.float32), imagine=Sketch())


def test_an_item_whose_file_is_gone_has_nothing_to_imagine_from(tmp_path: Path) -> None:
    made = new_gallery(tmp_path / "g")
    photos = class_folders(tmp_path / "photos", 2)
    made.add(photos)
    item = made.items()[0]
    made.file_of(item).unlink()
    assert made.search(item, k=1)  # its vector is there
    with pytest.raises(GalleryError, match=str(item.name)):
        made.search(item, k=1, imagine=Sketch())


def test_diversity_takes_one_of_each_kind_first(tmp_path: Path) -> None:
    """Five pictures, and four copies of each with a pixel changed."""
    made = new_gallery(tmp_path / "g", metric="l2")
    kinds = np.repeat(np.arange(5), 4)
    copies = [np.array(picture(kind, size=(8, 8))) for kind in kinds.tolist()]
    for i, copy in enumerate(copies):
        copy[0, i % 4] ^= 1
    made.add(np.stack(copies))
    plain = made.search(picture(0, size=(8, 8)), k=20)
    assert [kinds[i - 1] for i in plain.ids[:4]] == [0] * 4
    varied = made.search(picture(0, size=(8, 8)), k=20, diversity=0.7)
    assert varied.ids[0] == plain.ids[0]
    assert {int(kinds[i - 1]) for i in varied.ids[:5]} == {*range(5)}
    assert sorted(varied.ids) == sorted(plain.ids)
    with pytest.raises(GalleryError, match="diversity is between 0"):
        made.search(picture(0), diversity=1.5)


def test_distances_are_best_where_they_are_smallest(tmp_path: Path) -> None:
    made = new_gallery(tmp_path / "g", metric="l2")
    made.add(class_folders(tmp_path / "photos", 5))
    found = made.search(
        picture(2), imagine=fr.Imagine(Sketch(), n=3, spread=0.5, fusion="best"), k=10
    )
    assert found.scores == sorted(found.scores)
    plain = dict(zip(*[(p := made.search(picture(2), k=10)).ids, p.scores], strict=True))
    assert all(match.score <= plain[match.item.id] for match in found)


def test_sheet_page_and_json_show_what_was_imagined(gallery: Gallery, tmp_path: Path) -> None:
    wanted = fr.Imagine(Sketch(tone=0.0), n=16)
    found = gallery.search(picture(7), imagine=wanted, k=4)
    plain = gallery.search(picture(7), k=4)
    assert plain.imagined == []
    assert found.image().height > plain.image().height + 100
    assert found.image().width == plain.image().width
    found.to_html(tmp_path / "found.html")
    text = (tmp_path / "found.html").read_text()
    assert [text.count(f"<b>imagined {i}</b>") for i in (0, 1, 16, 17)] == [0, 1, 1, 0]
    told = json.loads(json.dumps(found.to_dict()))
    assert told["imagined"] == 16
    assert [match["found_by"] for match in told["matches"]] == [m.found_by for m in found]
    by_drawing = next(m for m in gallery.search(picture(7), k=60, imagine=Sketch()) if m.found_by)
    assert found._tile(by_drawing).note.endswith(f" by imagined {by_drawing.found_by}")
