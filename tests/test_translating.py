"""Queries are carried into the gallery's style: by means, by spreads, by a trained translator."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from typer.testing import CliRunner

import fastretrieve as fr
from fastretrieve import cli
from fastretrieve.encoders import EncoderError, create_encoder, load_encoder, write_encoder
from fastretrieve.encoders.blocks.repainting import Framing, Repainter, framed
from fastretrieve.encoders.models.translator import TranslatorEncoder
from fastretrieve.gallery.lookup import styles, translating
from fastretrieve.gallery.lookup.moments import MAX_AXES, moments_of
from fastretrieve.gallery.lookup.styles import PictureStyle, VectorStyle
from gallery_helpers import new_gallery, picture, serving

N = 60
RUNNER = CliRunner()


def other_style(image: Image.Image) -> Image.Image:
    """A picture in the queries' style: dull and reddish."""
    pixels = np.asarray(image, np.float64) * 0.4 + np.array([120, 30, 10])
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write(folder: Path, pictures: list[Image.Image]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, each in enumerate(pictures):
        each.save(folder / f"{i:03d}.png")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Items, queries that show them in another style, and other pictures of that style."""
    root = tmp_path_factory.mktemp("styles")
    items = [picture(i) for i in range(N)]
    return {
        "items": write(root / "items", items),
        "queries": write(root / "queries", [other_style(each) for each in items]),
        "like": write(root / "like", [other_style(picture(i)) for i in range(500, 500 + N)]),
    }


@pytest.fixture(scope="module")
def gallery(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> fr.Gallery:
    made = new_gallery(tmp_path_factory.mktemp("gallery") / "g")
    made.add(folders["items"], progress=False)
    return made


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved translator, small, with random weights."""
    made = TranslatorEncoder(dim=4, image_size=8, width=4)
    made.is_trained = True
    folder = tmp_path_factory.mktemp("saved") / "my-style"
    made.save(folder)
    return folder


def found(gallery: fr.Gallery, folders: dict[str, Path], translate: Any) -> float:
    """The share of queries that find the item that they show."""
    hits = [
        gallery.search(folders["queries"] / f"{i:03d}.png", k=1, translate=translate)[0].item.name
        == f"{i:03d}.png"
        for i in range(0, N, 3)
    ]
    return float(np.mean(hits))


# --- moments ------------------------------------------------------------------------------------


def test_moments_whiten_and_restore() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((4000, 5)) * [5, 3, 1, 1, 0.5] + 7
    moments = moments_of(rows)
    np.testing.assert_allclose(moments.mean, rows.mean(0))
    white = moments.powered(rows - moments.mean, -0.5)
    np.testing.assert_allclose(white.T @ white / len(rows), np.eye(5), atol=0.05)
    np.testing.assert_allclose(moments.powered(white, 0.5), rows - moments.mean, atol=1e-9)


def test_few_rows_are_shrunk_and_unseen_directions_stay_finite() -> None:
    rng = np.random.default_rng(0)
    moments = moments_of(rng.standard_normal((16, 40)))
    assert len(moments.axes) == 15  # no more are known of so few rows
    # All directions are alike here: that some look longer is chance.
    assert moments.variances.max() < 3 * moments.rest
    assert np.isfinite(moments.powered(rng.standard_normal((2, 40)), -0.5)).all()


def test_equal_rows_and_many_axes() -> None:
    rows = np.ones((5, 3))
    np.testing.assert_array_equal(moments_of(rows).powered(rows, -0.5), rows)
    many = moments_of(np.random.default_rng(0).standard_normal((700, 600)))
    assert many.axes.shape == (MAX_AXES, 600)
    variance = np.concatenate([many.variances, np.full(600 - MAX_AXES, many.rest)])
    assert variance.sum() == pytest.approx(600, rel=0.02)  # the mean variance stays what it is


# --- styles of vectors --------------------------------------------------------------------------


@pytest.mark.parametrize("how", styles.HOWS)
def test_a_fit_finds_what_no_translation_misses(
    how: str, gallery: fr.Gallery, folders: dict[str, Path]
) -> None:
    plain = found(gallery, folders, None)
    fitted = gallery.fit_style(folders["like"], how=how, progress=False)
    assert found(gallery, folders, fitted) >= plain + 0.2


def test_a_mean_is_the_difference_of_the_means(gallery: fr.Gallery) -> None:
    like = [other_style(picture(i)) for i in range(500, 530)]
    fitted = gallery.fit_style(like, how="mean", progress=False)
    encoder: Any = gallery.encoder
    units = [
        rows / np.linalg.norm(rows, axis=1, keepdims=True)
        for rows in (encoder.encode(encoder.preprocess(like)), gallery.vectors())
    ]
    wanted = units[0][3] - units[0].mean(0) + units[1].mean(0)
    np.testing.assert_allclose(fitted.vectors(units[0][3:4] * 9)[0], wanted, atol=1e-6)


def test_coral_gives_queries_the_spread_of_the_items() -> None:
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((3000, 4)) * [4, 1, 1, 0.5] + [9, 0, 0, 0]
    items = rng.standard_normal((3000, 4)) * [1, 3, 1, 2]
    style = VectorStyle(
        "coral", moments_of(queries), moments_of(items), metric="l2", made_for="", name="x"
    )
    moved = style.vectors(queries)
    np.testing.assert_allclose(np.cov(moved.T), np.cov(items.T), atol=0.3)
    np.testing.assert_allclose(moved.mean(0), items.mean(0), atol=1e-3)


def test_a_style_comes_back_as_it_was_saved(
    gallery: fr.Gallery, folders: dict[str, Path], tmp_path: Path
) -> None:
    for how in styles.HOWS:
        fitted = gallery.fit_style(folders["like"], how=how, out=tmp_path / how, progress=False)
        again = gallery.open_style(tmp_path / how)
        assert isinstance(again, VectorStyle)
        vectors = gallery.vectors()[3:5]
        np.testing.assert_allclose(again.vectors(vectors), fitted.vectors(vectors), rtol=1e-4)
        assert (again.how, again.name) == (how, how)


def test_a_fit_is_made_once(
    gallery: fr.Gallery, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[str] = []
    fit = translating.fit_style

    def counted(*args: Any, **options: Any) -> Any:
        fits.append(options["how"])
        return fit(*args, **options)

    monkeypatch.setattr(translating, "fit_style", counted)
    for how in ("mean", "coral", "mean", "coral"):
        asked = fr.Translate(folders["like"], how=how)
        gallery.search(folders["queries"] / "003.png", k=1, translate=asked)
    assert fits == ["mean", "coral"]


def test_a_saved_style_is_read_once_until_it_is_written_again(
    folders: dict[str, Path],
    gallery: fr.Gallery,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "style"
    gallery.fit_style(folders["like"], how="mean", out=folder, progress=False)
    reads: list[Path] = []
    load = translating.load_style

    def counted(path: Path) -> Any:
        reads.append(path)
        return load(path)

    monkeypatch.setattr(translating, "load_style", counted)
    for _ in range(2):
        gallery.search(3, k=1, translate=folder)
    assert len(reads) == 1
    gallery.fit_style(folders["like"], how="coral", out=folder, progress=False)
    os.utime(folder / "config.json", ns=(1, 1))
    matches = gallery.search(3, k=1, translate=str(folder))
    assert matches.translation is not None
    assert (len(reads), matches.translation.how) == (2, "coral")


# --- translators --------------------------------------------------------------------------------


def test_a_translator_learns_a_style_from_unpaired_pictures(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    made = TranslatorEncoder(dim=8, image_size=8, width=4, perceptual=0)
    options: dict[str, Any] = {"epochs": 6, "lr": 5e-3, "precision": "float32"}
    result = fr.train(
        made,
        from_=folders["like"],
        to=folders["items"],
        out=tmp_path,
        batch_size=12,
        workers=0,
        progress=False,
        **options,
    )
    assert result.n_held_out == 0  # a search for "from" and "to" would say nothing
    batch = made.preprocess([other_style(picture(i)) for i in range(900, 930)])
    wanted = made.preprocess([picture(i) for i in range(930, 960)])
    colours = [each.mean((0, 2, 3)) for each in (batch, made.translate(batch), wanted)]
    before, after = ((colour - colours[2]).abs().sum() for colour in colours[:2])
    assert after < 0.5 * before
    back = load_encoder(tmp_path)
    assert torch.equal(back.translate(batch), made.translate(batch))  # type: ignore[attr-defined]
    sheets = sorted((tmp_path / "training").glob("translated-*.png"))
    assert len(sheets) == 6
    with Image.open(sheets[0]) as sheet:
        assert sheet.height > 4 * 56  # originals and translations, twice


def test_a_frame_begins_where_it_was_and_can_be_moved() -> None:
    framing = Framing(3, width=4)
    framing.start()
    images = torch.rand(2, 3, 21, 14, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(framed(images, framing(images)).detach(), images, atol=1e-5, rtol=0)
    framing.place.bias.data[0] = 9.0  # as wide a view as there is: things look narrower
    middle = torch.zeros(1, 3, 8, 8)
    middle[..., 2:6] = 1
    narrow = framed(middle, framing(middle)).detach()
    assert 0 < float(narrow.sum()) < 0.7 * float(middle.sum())


def test_a_large_picture_is_repainted_at_its_size() -> None:
    """Changed as its small copy is, with lines that the small one cannot hold."""
    painter = Repainter(1, (16, 16), width=4)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in painter.parameters():
            p += 0.3 * torch.randn(p.shape, generator=random)
        small = torch.rand(1, 1, 16, 16, generator=random)
        torch.testing.assert_close(painter.paint_whole(small, small), painter(small).clamp(0, 1))
        even = F.interpolate(small, scale_factor=8, mode="bilinear")
        lined = even.clone()
        lined[..., ::2] += 0.2
        made, with_lines = (painter.paint_whole(small, whole) for whole in (even, lined))
        again = F.adaptive_avg_pool2d(made, 16)
        assert float((again - painter(small)).abs().mean()) < 0.06
        assert float((again - small).abs().mean()) > 0.15  # a repainted picture
        assert with_lines.shape == lined.shape
        assert float((with_lines - made).abs().mean()) > 0.02


@pytest.mark.parametrize(("size", "shown"), [((30, 24), (24, 24)), ((15, 15), (8, 8))])
def test_a_translated_query_is_as_large_as_it_was(
    size: tuple[int, int], shown: tuple[int, int], translator: Path, gallery: fr.Gallery
) -> None:
    """By whole numbers of times the translator's own size."""
    query = Image.new("RGB", size, "white")
    how = gallery.search(query, k=1, translate=translator).translation
    assert how is not None
    assert how.picture is not None
    assert how.picture.size == shown


def test_a_translated_query_is_searched_and_shown(
    gallery: fr.Gallery, folders: dict[str, Path], translator: Path, tmp_path: Path
) -> None:
    query = folders["queries"] / "005.png"
    matches = gallery.search(query, k=3, translate=translator)
    how = matches.translation
    assert how is not None
    assert how.picture is not None
    assert matches.scores == gallery.search(how.picture, k=3).scores
    assert matches.scores != gallery.search(query, k=3).scores
    assert matches.to_dict()["translated"] == {"style": "my-style", "how": "translator"}
    assert "translated by my-style (translator)" in repr(matches)
    assert matches.image().width == gallery.search(query, k=4).image().width  # a tile more
    matches.to_html(tmp_path / "x.html")
    page = (tmp_path / "x.html").read_text()
    assert page.count("<figure>") == 5
    assert "<b>translated query</b>" in page


def test_an_item_is_translated_from_its_picture(gallery: fr.Gallery, translator: Path) -> None:
    item = gallery.item(7)
    by_path = gallery.search(gallery.file_of(item), k=5, translate=translator)
    by_id = gallery.search(7, k=5, translate=load_encoder(translator))
    assert [i for i in by_path.ids if i != 7][:4] == by_id.ids[:4]
    assert 7 not in by_id.ids


def test_without_a_style_nothing_changes(gallery: fr.Gallery, folders: dict[str, Path]) -> None:
    matches = gallery.search(folders["queries"] / "005.png", k=3)
    assert matches.translation is None
    assert "translated" not in matches.to_dict()


# --- bad input ----------------------------------------------------------------------------------


def grey(folder: Path) -> Any:
    made = TranslatorEncoder(dim=4, image_size=8, channels=1, width=4)
    made.is_trained = True
    made.save(folder)
    return folder


def no_translator(folder: Path) -> Any:
    create_encoder("pixels", image_size=4).save(folder)
    return folder


def untrained(folder: Path) -> Any:
    TranslatorEncoder(dim=4, image_size=8, width=4).save(folder)
    return folder


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a path that is not there": (lambda folder: folder, "does not exist; train one"),
    "a folder of pictures": (lambda folder: folder.parent, "has no config.json; train one"),
    "another encoder": (no_translator, "'pixels'\\) that cannot translate"),
    "a translator for grey": (grey, "grey pictures .* --channels 3"),
    "an untrained one": (untrained, "not trained"),
    "a number": (lambda folder: 5, "translate is the directory of a style"),
    "an unknown way": (lambda folder: fr.Translate(folder, how="magic"), "how is one of mean"),
    "few pictures": (
        lambda folder: fr.Translate([picture(i) for i in range(5)], how="mean"),
        "5 readable pictures .* too few",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_styles_are_clear_errors(name: str, gallery: fr.Gallery, tmp_path: Path) -> None:
    make, message = BAD[name]
    with pytest.raises((fr.GalleryError, EncoderError), match=message):
        gallery.search(3, translate=make(tmp_path / "style"))


def test_a_style_of_another_encoder_or_metric_is_refused(
    gallery: fr.Gallery, folders: dict[str, Path], tmp_path: Path
) -> None:
    style = gallery.fit_style(folders["like"], how="mean", out=tmp_path / "s", progress=False)
    other = fr.Gallery.create(tmp_path / "g", encoder="pixels", image_size=16)
    with pytest.raises(fr.GalleryError, match="fitted to vectors of another encoder"):
        other.search(picture(1), translate=style)
    far = new_gallery(tmp_path / "far", metric="l2")
    with pytest.raises(fr.GalleryError, match="another encoder or metric"):
        far.search(picture(1), translate=tmp_path / "s")
    with pytest.raises(fr.GalleryError, match='the distance l2; take how="coral"'):
        far.fit_style(folders["like"], how="whiten")
    with pytest.raises(fr.GalleryError, match="0 items in the gallery are too few"):
        far.fit_style(folders["like"], how="mean", progress=False)


def test_a_gallery_of_sequences_is_refused(translator: Path, tmp_path: Path) -> None:
    rnn: Any = create_encoder("rnn", dim=4, hidden=4)
    rnn.is_trained = True
    of_sequences = fr.Gallery.create(tmp_path / "g", encoder=rnn)
    with pytest.raises(fr.GalleryError, match="translates each image, and the gallery holds each"):
        of_sequences.search(np.zeros((5, 2), np.float32), translate=translator)


def _weights(**changes: Any) -> dict[str, Any]:
    names = {"mean": (4,), "axes": (2, 4), "variances": (2,), "rest": (1,)}
    made = {
        f"{side}.{name}": np.ones(shape, np.float32)
        for side in ("queries", "items")
        for name, shape in names.items()
    }
    return {**made, **changes}


DAMAGED: dict[str, dict[str, Any]] = {
    "another dim": {"queries.mean": np.ones(5, np.float32)},
    "more variances than axes": {"items.variances": np.ones(3, np.float32)},
    "too many axes": {
        "items.axes": np.ones((600, 4), np.float32),
        "items.variances": np.ones(600, np.float32),
    },
    "one tensor too many": {"more": np.ones(1, np.float32)},
    "no spread": {"items.rest": np.zeros(1, np.float32)},
    "infinite": {"queries.mean": np.full(4, np.inf, np.float32)},
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_style_is_an_error(name: str, gallery: fr.Gallery, tmp_path: Path) -> None:
    write_encoder(
        tmp_path,
        encoder=styles.NAME,
        config={"how": "mean", "metric": "cosine"},
        weights=_weights(**DAMAGED[name]),
        extra={"made_for": "x"},
    )
    with pytest.raises(fr.GalleryError, match=r"is damaged: its (tensors|numbers)"):
        gallery.open_style(tmp_path)


def test_a_config_of_no_style_is_an_error(gallery: fr.Gallery, tmp_path: Path) -> None:
    for config in ({"how": "magic", "metric": "cosine"}, {"how": "mean"}, {}):
        write_encoder(tmp_path, encoder=styles.NAME, config=config, weights=_weights())
        with pytest.raises(fr.GalleryError, match="its config is none of a style"):
            gallery.open_style(tmp_path)


def test_what_training_refuses(folders: dict[str, Path], tmp_path: Path) -> None:
    few = write(tmp_path / "few", [picture(i) for i in range(5)])
    like = folders["like"]
    cases: list[tuple[dict[str, Any], str]] = [
        ({"from_": few, "to": like}, "'from' holds 5 pictures, too few"),
        ({"from_": like}, "give both from_= and to="),
        ({}, "nothing to train on: give from_= and to="),
        ({"from_": like, "to": like, "dataset": like}, "take the place of a data set"),
        ({"from_": like, "to": like, "validation": like}, "validation is for encoders that"),
        ({"dataset": like}, "learns from two folders: give from_="),
    ]
    for options, message in cases:
        with pytest.raises((ValueError, fr.DataError), match=message):
            fr.train("translator", progress=False, **options)
    with pytest.raises(ValueError, match="from_= and to= are for a translator"):
        fr.train("cnn", from_=like, to=like)
    with pytest.raises(ValueError, match="nothing to train on: give a data set"):
        fr.train("cnn")


def test_more_than_two_labels_are_refused() -> None:
    made = TranslatorEncoder(dim=4, image_size=8, width=4)
    with pytest.raises(ValueError, match="perceptual is the weight of a loss"):
        TranslatorEncoder(perceptual=-1)
    with pytest.raises(ValueError, match="learns from two folders"):
        made.loss(torch.zeros(3, 3, 8, 8), torch.tensor([0, 1, 2]))


def test_a_batch_of_one_style_alone_moves_nothing() -> None:
    made = TranslatorEncoder(dim=4, image_size=8, width=4)
    losses = made.loss(torch.zeros(3, 3, 8, 8), torch.zeros(3, dtype=torch.int64))
    assert all(float(value.detach()) == 0 for value in losses.values())
    losses["painters"].backward()


# --- shell --------------------------------------------------------------------------------------


def run(*arguments: object, code: int = 0) -> str:
    shown = RUNNER.invoke(cli.app, [str(a) for a in arguments])
    assert shown.exit_code == code, shown.output + repr(shown.exception)
    return shown.output


def test_the_verbs(gallery: fr.Gallery, folders: dict[str, Path], tmp_path: Path) -> None:
    style, learned, query = tmp_path / "s", tmp_path / "t", folders["queries"] / "004.png"
    text = run("style", gallery.path, folders["like"], "--how", "coral", "--out", style)
    assert f"--translate {style}" in text
    text = run("search", gallery.path, query, "-k", "2", "--translate", style)
    assert "translated by s (coral)" in text
    options = ["--epochs", 1, "--image-size", 8, "--dim", 4]
    options += ["--option", "width=4", "--option", "perceptual=0"]
    sides = ["--from", folders["like"], "--to", folders["items"]]
    text = run("train", "--encoder", "translator", *sides, "--out", learned, *options)
    assert f"wrote {learned}" in text
    asked = ("search", gallery.path, query, "--translate", learned, "--json")
    assert json.loads(run(*asked))["translated"] == {"style": "t", "how": "translator"}
    shutil.rmtree(learned)
    assert isinstance(run(*asked, code=1), str)


def test_a_style_that_is_open_is_taken_as_it_is(gallery: fr.Gallery, translator: Path) -> None:
    style = gallery.open_style(translator)
    assert isinstance(style, PictureStyle)
    assert gallery.open_style(style) is style


# --- server -------------------------------------------------------------------------------------


def test_visitors_translate_only_by_the_style_of_the_server(
    gallery: fr.Gallery, folders: dict[str, Path], translator: Path
) -> None:
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("fastapi")
    query = folders["queries"] / "005.png"

    def asked(address: str, **fields: Any) -> Any:
        files = {"image": query.read_bytes()}
        return httpx.post(f"{address}/api/search", files=files, data={"k": 3, **fields})

    with serving(gallery, translate=translator) as address:
        assert httpx.get(f"{address}/api/gallery").json()["translates"] is True
        plain, carried = (asked(address, translate=word).json() for word in ("false", "true"))
        assert asked(address, translate=str(translator)).status_code == 422
    wanted = gallery.search(query, k=3, translate=translator)
    assert [match["score"] for match in carried["matches"]] == wanted.scores
    assert [m["score"] for m in plain["matches"]] == gallery.search(query, k=3).scores
    assert plain["translated"] is None
    with Image.open(io.BytesIO(base64.b64decode(carried["translated"]))) as shown:
        assert (shown.format, shown.size) == ("JPEG", (24, 24))
    with serving(gallery) as address:
        assert httpx.get(f"{address}/api/gallery").json()["translates"] is False
        refused = asked(address, translate="true")
        assert (refused.status_code, "no style" in refused.json()["detail"]) == (422, True)


def test_a_server_does_not_start_with_what_is_no_style(gallery: fr.Gallery) -> None:
    pytest.importorskip("fastapi")
    with pytest.raises(fr.GalleryError, match="is no style"), serving(gallery, translate="/no"):
        pass
