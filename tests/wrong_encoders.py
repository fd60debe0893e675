"""One right encoder with every capability, and wrong ones that break one promise each.

``WRONG`` maps each check to encoders that must fail it. They live in a module of their own because
a worker process has to import them.
"""

import pickle
import random
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fastretrieve.data.images import image_batch
from fastretrieve.encoders.base import TorchEncoder, seeded
from fastretrieve.encoders.protocol import Figure


class RightEncoder(TorchEncoder):
    """A small autoencoder with a head, over 8 x 8 grey pixels."""

    name = "right"
    capabilities = frozenset(
        {
            "trainable",
            "fit",
            "classify",
            "reconstruct",
            "generate",
            "invert",
            "layers",
            "parts",
            "translate",
            "text",
        }
    )
    progress_figure = Figure("reconstruction", "lower")

    def __init__(self, *, dim=6):
        super().__init__(dim=dim, config={"dim": dim})
        self.image_size, self.channels = (8, 8), 1
        with seeded(0):
            self.down, self.up = nn.Linear(64, dim), nn.Linear(dim, 64)
        self.dropout = nn.Dropout(0.1)
        self.register_buffer("centre", torch.zeros(64))
        self.head = None

    def embed(self, batch):
        return self.down(self.dropout(batch.flatten(1)) - self.centre)

    def reconstruct(self, batch):
        with self.evaluating():
            return self._decode(self.embed(self.on_device(batch)))

    def _decode(self, vectors):
        return self.up(vectors).sigmoid().view(-1, 1, 8, 8)

    def loss(self, batch, labels=None):
        batch = self.on_device(batch)
        vectors = self.embed(batch)
        error = nn.functional.mse_loss(self._decode(vectors), batch)
        total = error
        if self.head is not None and labels is not None:
            total = error + nn.functional.cross_entropy(self.head(vectors), labels)
        return {"loss": total, "reconstruction": error}

    def fit(self, batches):
        self.centre = torch.cat(list(batches)).flatten(1).mean(dim=0)
        self.is_trained = True
        return self

    def set_classes(self, names):
        super().set_classes(names)
        with seeded(1):
            self.head = nn.Linear(self.dim, len(self.classes))

    def probabilities(self, batch):
        with self.evaluating():
            return self.head(self.embed(self.on_device(batch))).softmax(dim=1)

    def generate(self, n, seed=0):
        noise = torch.randn(n, self.dim, generator=torch.Generator().manual_seed(seed))
        with self.evaluating():
            return self._decode(noise)

    def invert(self, batch):
        return self.encode(batch)

    def draw(self, codes):
        with self.evaluating():
            return self._decode(codes)

    def layers(self, batch):
        with self.evaluating():
            vectors = self.embed(self.on_device(batch))
            return {"vectors": vectors, "signs": vectors.tanh()}

    def parts(self, batch):
        with self.evaluating():
            pixels = self.on_device(batch)[:, 0, :, :, None]
            weight = self.down.weight.T.view(8, 8, self.dim)
            constant = self.down.bias - self.down.weight @ self.centre
            return pixels * weight, constant.expand(len(pixels), -1)

    def translate(self, batch):
        return 1 - self.on_device(batch)

    def encode_text(self, texts):
        found = torch.zeros(len(texts), self.dim)
        for row, text in zip(found, texts, strict=True):
            for letter in text:
                row[ord(letter) % self.dim] += 1
        return found


class OtherVersion(RightEncoder):
    api_version = 99


class UnknownCapability(RightEncoder):
    capabilities = frozenset({"teleport"})


class MissingMethod(RightEncoder):
    reconstruct = property(lambda self: (_ for _ in ()).throw(AttributeError("reconstruct")))


class WrongDim(RightEncoder):
    def embed(self, batch):
        return super().embed(batch)[:, :-1]


class WrongDtype(RightEncoder):
    def encode(self, batch):
        return super().encode(batch).double()


class NotFinite(RightEncoder):
    def embed(self, batch):
        return super().embed(batch) / (batch.flatten(1)[:, :1] * 0)


class Constant(RightEncoder):
    def embed(self, batch):
        return super().embed(batch) * 0


class Sampling(RightEncoder):
    def embed(self, batch):
        found = super().embed(batch)
        return found + torch.randn_like(found)


class BatchStatistics(RightEncoder):
    def embed(self, batch):
        found = super().embed(batch)
        return found - found.mean(dim=0)


class NoEmptyBatch(RightEncoder):
    def preprocess(self, items):
        return torch.stack([super(NoEmptyBatch, self).preprocess([item])[0] for item in items])


class WritesToItems(RightEncoder):
    def preprocess(self, items):
        batch = super().preprocess(items)
        for item in items:
            if isinstance(item, np.ndarray):
                item[...] = 0
        return batch


class WritesToBatch(RightEncoder):
    def embed(self, batch):
        return super().embed(batch.mul_(0.5))


class KeepsGradients(RightEncoder):
    def encode(self, batch):
        return self.embed(self.on_device(batch))


class LeavesGradients(RightEncoder):
    def encode(self, batch):
        if len(batch):
            with torch.enable_grad():
                self.embed(batch).sum().backward()
        return super().encode(batch)


class LeavesEvalMode(RightEncoder):
    def encode(self, batch):
        self.eval()
        return super().encode(batch)


class SwitchesGradientsOff(RightEncoder):
    def encode(self, batch):
        torch.set_grad_enabled(False)
        return super().encode(batch)


class SeedsTorch(RightEncoder):
    def encode(self, batch):
        torch.manual_seed(0)
        return super().encode(batch)


class SeedsNumpy(RightEncoder):
    def encode(self, batch):
        np.random.seed(0)  # noqa: NPY002
        return super().encode(batch)


class SeedsRandom(RightEncoder):
    def preprocess(self, items):
        random.seed(0)
        return super().preprocess(items)


class DrawsFromNumpy(RightEncoder):
    def preprocess(self, items):
        np.random.rand()  # noqa: NPY002, the fault in question
        return super().preprocess(items)


class DrawsFromRandom(RightEncoder):
    def save(self, directory):
        random.random()
        super().save(directory)


class LeavesTensorBehind(RightEncoder):
    def __init__(self, **config):
        super().__init__(**config)
        self.scale = torch.ones(6)

    def embed(self, batch):
        return super().embed(batch) * self.scale


class ToReturnsNothing(RightEncoder):
    def to(self, device):
        super().to(device)


class ForgetsWeights(RightEncoder):
    def fit(self, batches):
        super().fit(batches)
        with torch.no_grad():
            self.down.weight.add_(1)
        return self

    @classmethod
    def load(cls, directory, *, device="cpu"):
        encoder = cls()
        encoder.is_trained = True
        return encoder


class ForgetsTraining(RightEncoder):
    @classmethod
    def load(cls, directory, *, device="cpu"):
        encoder = super().load(directory, device=device)
        encoder.is_trained = True
        return encoder


class Pickles(RightEncoder):
    def save(self, directory):
        super().save(directory)
        Path(directory, "extra.pkl").write_bytes(pickle.dumps(self.config))


class SavesAnotherName(RightEncoder):
    def save(self, directory):
        self.name = "other"
        super().save(directory)
        self.name = "right"


class CannotBeSent(RightEncoder):
    def __init__(self, **config):
        super().__init__(**config)
        self.scale = lambda vectors: vectors * 2

    def embed(self, batch):
        return self.scale(super().embed(batch))


_SEEN = []  # grows in this process and is empty in a new one


class KeepsStateOutside(RightEncoder):
    def __init__(self, **config):
        super().__init__(**config)
        _SEEN.append(self)

    def preprocess(self, items):
        return super().preprocess(items) * (0.5 if _SEEN else 1.0)


class SharesAnAttribute(RightEncoder):
    def embed(self, batch):
        self.current = batch
        for _ in range(200):  # another thread gets its turn here
            self.down(batch.flatten(1))
        return super().embed(self.current)


class DoesNotLearn(RightEncoder):
    def loss(self, batch, labels=None):
        losses = super().loss(batch, labels)
        return {"loss": -losses["reconstruction"], "reconstruction": losses["reconstruction"]}


class LossWithoutParameters(RightEncoder):
    def loss(self, batch, labels=None):
        free = torch.zeros(1, requires_grad=True).sum()
        return {"loss": free, "reconstruction": free}


class NoSuchFigure(RightEncoder):
    progress_figure = Figure("bliss", "higher")


class FitForgetsToSay(RightEncoder):
    def fit(self, batches):
        super().fit(batches)
        self.is_trained = False
        return self


class LogitsForProbabilities(RightEncoder):
    def probabilities(self, batch):
        with self.evaluating():
            return self.head(self.embed(self.on_device(batch)))


class ForgetsClasses(RightEncoder):
    @classmethod
    def load(cls, directory, *, device="cpu"):
        encoder = super().load(directory, device=device)
        encoder.classes = ()
        return encoder


class ReconstructsAnotherShape(RightEncoder):
    def reconstruct(self, batch):
        return super().reconstruct(batch)[:, :, :4]


class ReconstructsAtRandom(RightEncoder):
    def reconstruct(self, batch):
        return super().reconstruct(batch) + torch.rand(len(batch), 1, 8, 8)


def _new_seed():
    return random.Random().randrange(2**32)


class GeneratesWithoutSeed(RightEncoder):
    def generate(self, n, seed=0):
        return super().generate(n, seed=_new_seed())


class GeneratesOneThing(RightEncoder):
    def generate(self, n, seed=0):
        return super().generate(n, seed=7)


class GeneratesFromGlobalState(RightEncoder):
    def generate(self, n, seed=0):
        torch.manual_seed(seed)
        with self.evaluating():
            return self._decode(torch.randn(n, self.dim))


class InvertsTheBatch(RightEncoder):
    def invert(self, batch):
        codes = super().invert(batch)
        return codes - codes.mean(dim=0)


class InvertsToMaps(RightEncoder):
    def invert(self, batch):
        return super().invert(batch)[:, :, None]

    def draw(self, codes):
        return super().draw(codes[:, :, 0])


class InvertsAllAlike(RightEncoder):
    def invert(self, batch):
        return super().invert(batch) * 0


class DrawsAtRandom(RightEncoder):
    def draw(self, codes):
        noise = torch.randn(codes.shape, generator=torch.Generator().manual_seed(_new_seed()))
        return super().draw(codes + noise)


class DrawsFromGlobalState(RightEncoder):
    def draw(self, codes):
        torch.manual_seed(0)
        return super().draw(codes)


class DrawsOneThing(RightEncoder):
    def draw(self, codes):
        return super().draw(codes * 0)


class DrawsAnotherShape(RightEncoder):
    def draw(self, codes):
        return super().draw(codes)[:, :, :4]


class DrawingKeepsGradients(RightEncoder):
    def draw(self, codes):
        return self._decode(codes)


class LayersAreMaps(RightEncoder):
    def layers(self, batch):
        return {"maps": super().layers(batch)["vectors"][:, :, None]}


class LayersOfTheBatch(RightEncoder):
    def layers(self, batch):
        vectors = super().layers(batch)["vectors"]
        return {"centred": vectors - vectors.mean(dim=0)}


class PartsWithoutConstant(RightEncoder):
    def parts(self, batch):
        located, constant = super().parts(batch)
        return located, torch.zeros_like(constant)


class PartsThatSayNothing(RightEncoder):
    def parts(self, batch):
        return torch.zeros(len(batch), 8, 8, self.dim), self.encode(batch)


class PartsOfTheBatch(RightEncoder):
    def parts(self, batch):
        located, constant = super().parts(batch)
        mean = located.mean(dim=0)
        return located - mean, constant + mean.sum(dim=(0, 1))


class PartsInAnotherOrder(RightEncoder):
    def parts(self, batch):
        located, constant = super().parts(batch)
        return located.permute(0, 3, 1, 2), constant


class TextsByTheBatch(RightEncoder):
    def encode_text(self, texts):
        found = super().encode_text(texts)
        return found / found.abs().max() if len(texts) else found


class TextsOfAnotherDim(RightEncoder):
    def encode_text(self, texts):
        return super().encode_text(texts)[:, 1:]


class TextsAllAlike(RightEncoder):
    def encode_text(self, texts):
        return torch.ones(len(texts), self.dim)


class NeedsAText(RightEncoder):
    def encode_text(self, texts):
        return torch.cat([RightEncoder.encode_text(self, [text]) for text in texts])


class ForgetsItsWords(RightEncoder):
    def __init__(self, *, dim=6):
        super().__init__(dim=dim)
        self.salt = _new_seed() % 1000  # not saved

    def encode_text(self, texts):
        return super().encode_text(texts) + self.salt


class TranslatesByTheBatch(RightEncoder):
    def translate(self, batch):
        return batch / batch.max()


class TranslatesBeyondWhite(RightEncoder):
    def translate(self, batch):
        return 2 * batch


class GreyOnly(RightEncoder):
    """Right, but it refuses colour: a preprocess that fails is a failed check, not a crash."""

    def preprocess(self, items):
        if any(np.asarray(item).ndim == 3 for item in items):
            raise ValueError("colour")
        return torch.from_numpy(image_batch(items, size=8, channels=1))


WRONG = {
    "protocol": [OtherVersion, UnknownCapability, MissingMethod],
    "shape": [WrongDim],
    "dtype": [WrongDtype],
    "finite": [NotFinite],
    "distinct": [Constant],
    "deterministic": [Sampling],
    "batch": [BatchStatistics],
    "empty": [NoEmptyBatch],
    "inputs": [WritesToItems, WritesToBatch],
    "gradients": [KeepsGradients, LeavesGradients, LeavesEvalMode, SwitchesGradientsOff],
    "random state": [SeedsTorch, SeedsNumpy, SeedsRandom, DrawsFromNumpy, DrawsFromRandom],
    "device": [LeavesTensorBehind, ToReturnsNothing],
    "save": [ForgetsWeights, ForgetsTraining, Pickles, SavesAnotherName],
    "workers": [CannotBeSent, KeepsStateOutside],
    "threads": [SharesAnAttribute],
    "trainable": [DoesNotLearn, LossWithoutParameters, NoSuchFigure],
    "fit": [FitForgetsToSay],
    "classify": [LogitsForProbabilities, ForgetsClasses],
    "reconstruct": [ReconstructsAnotherShape, ReconstructsAtRandom],
    "generate": [GeneratesWithoutSeed, GeneratesOneThing, GeneratesFromGlobalState],
    "invert": [
        InvertsTheBatch,
        InvertsToMaps,
        InvertsAllAlike,
        DrawsAtRandom,
        DrawsFromGlobalState,
        DrawsOneThing,
        DrawsAnotherShape,
        DrawingKeepsGradients,
    ],
    "layers": [LayersAreMaps, LayersOfTheBatch],
    "parts": [PartsWithoutConstant, PartsThatSayNothing, PartsOfTheBatch, PartsInAnotherOrder],
    "translate": [TranslatesByTheBatch, TranslatesBeyondWhite],
    "text": [
        TextsByTheBatch,
        TextsOfAnotherDim,
        TextsAllAlike,
        NeedsAText,
        ForgetsItsWords,
    ],
}
