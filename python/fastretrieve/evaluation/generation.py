"""``evaluate_generator``: how good are the images that an encoder draws?

Drawn and real images are compared in the features of another encoder, which must not have taught
the generator. ``fastretrieve`` searches for neighbours, so the figures are exact.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastretrieve.data import Dataset, Loader, longest_side, open_dataset
from fastretrieve.encoders import EncoderError, as_encoder
from fastretrieve.encoders.encoding import as_array, refuse_untrained

NEIGHBOURS = 3  # as in the paper on precision and recall
COPY = 0.02  # root mean square difference of pixels in [0, 1] below which an image is a copy
_CHUNK = 256
_MOST_SEARCHED = 20_000  # training images that are searched for the nearest one

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class GeneratorEvaluation:
    """The figures of drawn images, each beside what it was measured against."""

    kid: float  # squared kernel distance: 0 where drawn and real images are alike
    precision: float  # the share of drawn images that lie among the real ones
    recall: float  # the share of real images that lie among the drawn ones
    nyquist: float  # energy at the highest frequencies over that of real images
    nearest: float  # median distance to the nearest real image: root mean square of pixels
    nearest_of_real: float  # the same of real images, each without itself
    n_copies: int  # drawn images whose nearest real image differs by less than COPY
    n: int  # images of each kind

    def __str__(self) -> str:
        return (
            f"{self.n} drawn and {self.n} real images: KID {self.kid:.4f}, precision "
            f"{self.precision:.3f}, recall {self.recall:.3f}, Nyquist energy {self.nyquist:.2f} x, "
            f"nearest image {self.nearest:.3f} (real: {self.nearest_of_real:.3f}), "
            f"{self.n_copies} copies"
        )

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def evaluate_generator(
    encoder: Any,
    dataset: Any,
    *,
    features: Any = "pretrained",
    layer: str | None = None,
    n: int = 2000,
    seed: int = 0,
    device: str | None = None,
) -> GeneratorEvaluation:
    """Compare ``n`` images that ``encoder`` draws with as many of ``dataset``, its training images.

    ``features`` is the encoder that compares them, by its vector or by one of its ``layers``. Take
    features that no loss of the generator has seen. The vector of ``pretrained`` is none of them,
    but its first five blocks teach ``vae`` and ``gan`` (unless ``perceptual=0``), which flatters
    these a little: beside another kind of generator, judge by another encoder.

    >>> from fastretrieve.encoders.models.vae import VaeEncoder
    >>> vae = VaeEncoder(dim=4, image_size=8, channels=1, width=4)
    >>> vae.is_trained = True
    >>> images = np.random.default_rng(0).integers(0, 255, (20, 8, 8), np.uint8)
    >>> found = evaluate_generator(vae, images, features="pixels", n=20)
    >>> found.n, found.n_copies
    (20, 0)
    """
    artist, judge = as_encoder(encoder, device=device), as_encoder(features, device=device)
    if "generate" not in artist.capabilities:
        raise EncoderError(
            f"encoder must be one that can generate (gan, vae, autoregressive), {artist.name!r} "
            "cannot"
        )
    refuse_untrained(artist)
    data = open_dataset(dataset, modality=artist.modality)
    real = _pictures(artist, data, n=_MOST_SEARCHED, seed=seed)
    n = min(n, len(real))
    if n <= NEIGHBOURS + 1:
        raise ValueError(f"{n} real images are too few: take at least {NEIGHBOURS + 2}")
    drawn = draw(artist, n, seed=seed)
    drawn_rows = _features(judge, drawn, layer)
    real_rows = _features(judge, real[:n], layer)
    distances = nearest_distances(drawn, real)
    return GeneratorEvaluation(
        kid=kernel_distance(drawn_rows, real_rows),
        precision=share_inside(drawn_rows, real_rows),
        recall=share_inside(real_rows, drawn_rows),
        nyquist=nyquist_energy(drawn) / max(nyquist_energy(real[:n]), 1e-12),
        nearest=float(np.median(distances)),
        nearest_of_real=float(np.median(nearest_distances(real[:n], real, skip=1))),
        n_copies=int((distances < COPY).sum()),
        n=n,
    )


def kernel_distance(a: Matrix, b: Matrix) -> float:
    """The unbiased squared maximum mean discrepancy with the kernel (x . y / dim + 1)^3 (KID).

    >>> rows = np.eye(4, dtype=np.float32)
    >>> kernel_distance(rows, rows + 3) > 1 > kernel_distance(rows, rows)
    True
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)

    def kernel(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
        values: NDArray[np.float64] = (p @ q.T / p.shape[1] + 1) ** 3
        return values

    def within(p: NDArray[np.float64]) -> float:
        values = kernel(p, p)
        return float((values.sum() - np.trace(values)) / (len(p) * (len(p) - 1)))

    return within(x) + within(y) - 2 * float(kernel(x, y).mean())


def share_inside(points: Matrix, manifold: Matrix, *, k: int = NEIGHBOURS) -> float:
    """The share of points that are as near to a row of the manifold as its k-th neighbour.

    Of drawn points among real ones it is the precision, of real among drawn ones the recall.

    >>> line = np.arange(8, dtype=np.float32)[:, None]
    >>> share_inside(np.float32([[3.5], [40.0]]), line)
    0.5
    """
    from fastretrieve import scores, topk

    # Each row finds itself first, or an equal row in its place.
    radii = np.asarray(topk(manifold, manifold, k=k + 1, metric="l2").scores)[:, k]
    inside = [
        (np.asarray(scores(points[i : i + _CHUNK], manifold, metric="l2")) <= radii).any(axis=1)
        for i in range(0, len(points), _CHUNK)
    ]
    return float(np.concatenate(inside).mean())


def nyquist_energy(images: torch.Tensor) -> float:
    """The mean energy of [n, c, h, w] at the highest frequency of a row or a column.

    A checkerboard has all its energy there, and a smooth image almost none.

    >>> board = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(1, 1, 4, 4)
    >>> nyquist_energy(board), nyquist_energy(board * 0 + 0.5)
    (0.25, 0.0)
    """
    height, width = images.shape[2:]
    spectrum = torch.fft.fft2(images.double()).abs().square().mean((0, 1)) / (height * width) ** 2
    spectrum[0, 0] = 0
    rows, columns = _highest(height), _highest(width)
    return float(
        spectrum[rows].sum() + spectrum[:, columns].sum() - spectrum[rows][:, columns].sum()
    )


def nearest_distances(
    images: torch.Tensor, rows: torch.Tensor, *, skip: int = 0
) -> NDArray[np.float64]:
    """Root mean square pixel difference of each image to its nearest row, after ``skip`` nearer."""
    from fastretrieve import topk

    found = topk(images.flatten(1).numpy(), rows.flatten(1).numpy(), k=skip + 1, metric="l2")
    distances: NDArray[np.float64] = np.asarray(found.scores, np.float64)[:, skip]
    distances /= images[0].numel() ** 0.5
    return distances


def draw(artist: Any, n: int, *, seed: int) -> torch.Tensor:
    """``n`` drawn images [n, c, h, w] on the CPU."""
    parts = [
        torch.as_tensor(artist.generate(min(_CHUNK, n - i), seed=seed + i)).detach().cpu()
        for i in range(0, n, _CHUNK)
    ]
    return torch.cat(parts).float()


def _highest(side: int) -> list[int]:
    """Where the highest frequency of a side stands: once for an even side, else twice."""
    return [side // 2] if side % 2 == 0 else [side // 2, side // 2 + 1]


def _pictures(artist: Any, dataset: Dataset, *, n: int, seed: int) -> torch.Tensor:
    """Up to ``n`` real images in random order, of the size that the artist draws."""
    order = np.random.default_rng(seed).permutation(len(dataset))[:n]
    data, size = dataset.subset(order), longest_side(artist)
    with Loader(data, artist.preprocess, batch_size=_CHUNK, workers=None, size=size) as loader:
        parts = [torch.as_tensor(loaded.batch) for loaded in loader]
    if not parts:
        raise ValueError(f"none of the {len(dataset)} images could be read")
    return torch.cat(parts).float()


def _features(judge: Any, images: torch.Tensor, layer: str | None) -> Matrix:
    """What the judge sees in each image."""
    rows = []
    for i in range(0, len(images), _CHUNK):
        batch = judge.preprocess(list(images[i : i + _CHUNK]))
        if layer is None:
            rows.append(as_array(judge.encode(batch)))
            continue
        layers = judge.layers(batch)
        if layer not in layers:
            raise ValueError(f"layer must be one of {sorted(layers)}, got {layer!r}")
        rows.append(as_array(layers[layer]))
    return np.concatenate(rows)
