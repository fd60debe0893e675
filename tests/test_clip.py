"""The encoder clip: a model of the user's own, which data never names."""

import sys
import types

import numpy as np
import pytest
import torch

import fastretrieve as fr
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.testing import run_check

pytest.importorskip("onnxruntime")
pytest.importorskip("tokenizers")

from tiny_onnx import write_clip

DARK, BRIGHT = (np.full((20, 30, 3), value, np.uint8) for value in (10, 240))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.mark.parametrize(
    "check", ["protocol", "shape", "finite", "batch", "empty", "inputs", "save", "threads", "text"]
)
def test_it_keeps_the_promises_of_an_encoder(folder, check):
    from fastretrieve.encoders.models.clip import ClipEncoder

    run_check(
        check,
        lambda: ClipEncoder(path=folder),
        load=lambda saved: ClipEncoder.load(saved, path=folder),
    )


def test_words_find_pictures(folder):
    clip = fr.create_encoder("clip", path=folder)
    shown = clip.encode(clip.preprocess([DARK, BRIGHT]))
    asked = clip.encode_text(["dark", "a bright"])
    assert (asked @ shown.T).argmax(axis=1).tolist() == [0, 1]
    assert clip.encode_text([]).shape == (0, 4)
    assert np.isfinite(clip.encode_text(["", "dark " * 5000, "ein heller Stiefel 靴"])).all()


def test_a_gallery_asks_for_the_model_each_time(folder, tmp_path):
    with fr.Gallery.create(tmp_path / "g", encoder=f"clip:{folder}") as gallery:
        gallery.add([DARK, BRIGHT])
    with fr.Gallery.open(tmp_path / "g") as gallery, pytest.raises(EncoderError, match="clip:/"):
        gallery.search(DARK, k=1)
    with fr.Gallery.open(tmp_path / "g", encoder=f"clip:{folder}") as gallery:
        both = [gallery.search(query, k=1)[0].item.id for query in (BRIGHT, DARK)]
        assert both[0] != both[1]
    assert str(folder) not in (tmp_path / "g" / "encoder" / "config.json").read_text()


def test_another_model_is_refused(folder, tmp_path):
    fr.create_encoder(f"clip:{folder}").save(tmp_path / "saved")
    other = write_clip(tmp_path / "other", seed=1)
    with pytest.raises(EncoderError, match="is not the CLIP model"):
        fr.load_encoder(tmp_path / "saved", encoder=f"clip:{other}")


def test_a_name_in_a_file_opens_no_model(folder, tmp_path):
    fr.create_encoder("clip", path=folder).save(tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"clip"', f'"clip:{folder}"', 1))
    with pytest.raises(EncoderError, match="never run"):
        fr.load_encoder(tmp_path)
    (tmp_path / "config.json").write_text(
        config.replace('"config": {}', f'"config": {{"path": "{folder}"}}')
    )
    with pytest.raises(EncoderError, match="never opened"):
        fr.load_encoder(tmp_path)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"mean": [0, 0]}, "three numbers"),
        ({"std": [1, 1, 0]}, "positive"),
        ({"context_length": 10**9}, "context_length"),
        ({"pad": "x"}, "pad"),
    ],
)
def test_settings_are_checked(tmp_path, settings, fault):
    with pytest.raises(EncoderError, match=fault):
        fr.create_encoder("clip", path=write_clip(tmp_path, **settings))


def test_what_is_missing_or_damaged_is_named(folder, tmp_path):
    with pytest.raises(EncoderError, match="name its folder"):
        fr.create_encoder("clip")
    with pytest.raises(EncoderError, match=r"holds no visual\.onnx"):
        fr.create_encoder("clip", path=tmp_path)
    damaged = write_clip(tmp_path / "damaged")
    (damaged / "textual.onnx").write_bytes(b"no model")
    with pytest.raises(EncoderError, match=r"textual\.onnx is no model"):
        fr.create_encoder("clip", path=damaged)


class TinyClip(torch.nn.Module):
    """What open_clip makes, as far as it is used."""

    def __init__(self):
        super().__init__()
        self.visual = types.SimpleNamespace(image_size=8, image_mean=(0, 0, 0), image_std=(1, 1, 1))
        self.scale = torch.nn.Parameter(torch.ones(4))

    def encode_image(self, pixels):
        return pixels.mean((1, 2, 3))[:, None] * self.scale

    def encode_text(self, tokens):
        return tokens.float() * self.scale


def _open_clip(asked):
    """The package, as far as it is used; it notes what it was asked for."""
    found = types.ModuleType("open_clip")
    texts = {"ViT-B-32": {}, "roberta": {"hf_tokenizer_name": "hub/roberta"}}

    def create_model(name, **options):
        asked.append((name, options))
        return TinyClip()

    found.create_model = create_model
    found.get_model_config = lambda name: {"text_cfg": texts[name]} if name in texts else None
    found.get_tokenizer = lambda name: lambda listed: torch.tensor([[len(t)] * 4 for t in listed])
    return found


def test_a_checkpoint_is_read_with_weights_only(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setitem(sys.modules, "open_clip", _open_clip(asked))
    file = tmp_path / "weights.pt"
    file.write_bytes(b"weights")
    clip = fr.create_encoder("clip", path=file, model="ViT-B-32")
    assert asked == [("ViT-B-32", {"pretrained": str(file), "weights_only": True})]
    assert clip.encode_text(["abc"]).tolist() == [[0.5] * 4]
    assert clip.encode(clip.preprocess([BRIGHT])).shape == (1, 4)
    for name, fault in (
        (None, "name the architecture"),
        ("hf-hub:somebody/model", "name the architecture"),
        ("roberta", "downloads its tokenizer"),
        ("unknown", "no architecture"),
    ):
        with pytest.raises(EncoderError, match=fault):
            fr.create_encoder("clip", path=file, model=name)


def test_a_checkpoint_needs_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    (tmp_path / "weights.pt").write_bytes(b"weights")
    with pytest.raises(EncoderError, match="pip install open-clip-torch"):
        fr.create_encoder("clip", path=tmp_path / "weights.pt", model="ViT-B-32")
