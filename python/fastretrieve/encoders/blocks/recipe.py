"""How an encoder is best trained: the defaults of ``fr.train``."""

from __future__ import annotations

from typing import NamedTuple


class Recipe(NamedTuple):
    """An encoder may carry one as its attribute ``recipe``."""

    lr: float = 2e-3  # the peak of the cosine schedule
    weight_decay: float = 1e-4  # of matrices and kernels; biases and norms have none
    betas: tuple[float, float] = (0.9, 0.99)
    batch_size: int = 128
    steps: int = 4000  # from which fr.train takes the epochs, if it is not told
    clip: float = 0.0  # the largest norm of a gradient, 0 for any
    decay: bool = True  # whether the learning rate follows a cosine down to zero
    half: bool = True  # whether precision="auto" may compute in bfloat16 where that is native
