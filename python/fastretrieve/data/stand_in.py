"""What stands in for Fashion-MNIST where no network is: digits that are made hard to find again.

scikit-learn's 1,797 digits are enlarged, turned, moved to a random place, and surrounded by pieces
of other digits. A picture shows one whole digit. The digits that queries are made of are in no
picture that is searched.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE, LARGE = 32, 18  # pixels of a picture, and of the digit in it
PIECE, N_PIECES = 7, 5  # clutter: squares cut from other digits, paler than the digit
TURN = 25.0  # degrees, at most, to either side
_PALE = 0.7

Images = NDArray[np.uint8]


def cluttered(
    digits: Images, labels: NDArray[np.int64], n: int, *, seed: int
) -> tuple[Images, NDArray[np.int64]]:
    """``n`` pictures [n, SIDE, SIDE] of these digits [n_digits, 8, 8], and what they show.

    >>> ones = np.full((4, 8, 8), 255, np.uint8)
    >>> pictures, shown = cluttered(ones, np.arange(4), 6, seed=0)
    >>> pictures.shape, shown.tolist()
    ((6, 32, 32), [0, 1, 2, 3, 0, 1])
    """
    rng = np.random.default_rng(seed)
    large = [
        Image.fromarray(digit).resize((LARGE, LARGE), Image.Resampling.BICUBIC) for digit in digits
    ]
    arrays = [np.asarray(image) for image in large]
    pictures = np.zeros((n, SIDE, SIDE), np.uint8)
    chosen = np.arange(n) % len(digits)
    for picture, digit in zip(pictures, chosen.tolist(), strict=True):
        for other in rng.integers(0, len(digits), N_PIECES).tolist():
            y, x = rng.integers(0, LARGE - PIECE + 1, 2).tolist()
            piece = arrays[other][y : y + PIECE, x : x + PIECE] * _PALE
            top, left = rng.integers(0, SIDE - PIECE + 1, 2).tolist()
            picture[top : top + PIECE, left : left + PIECE] = piece
        angle = float(rng.uniform(-TURN, TURN))
        turned = np.asarray(large[digit].rotate(angle, Image.Resampling.BILINEAR))
        top, left = rng.integers(0, SIDE - LARGE + 1, 2).tolist()
        place = picture[top : top + LARGE, left : left + LARGE]
        np.maximum(place, turned, out=place)
    return pictures, labels[chosen]
