"""One step of training: losses, gradients of each player, a step of each optimizer.

``fr.train`` and ``check_encoder`` take their steps here, by ``losses_of`` and ``descend``.
``check_encoder`` trains with a plain Adam (``training_step``). ``training/stepping.py`` adds what a
recipe asks for: AdamW, a schedule, clipping and bfloat16. ``protocol.Trainable`` says what ``loss``
returns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.protocol import Batch, Trainable

MakeOptimizer = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]


def parameter_groups(encoder: Trainable) -> dict[str, list[torch.nn.Parameter]]:
    """The parameters of each loss: ``{"loss": all parameters}``, or the players of a game."""
    groups = getattr(encoder, "parameter_groups", None)
    if groups is None:
        return {"loss": [p for p in encoder.parameters() if p.requires_grad]}
    return {name: list(parameters) for name, parameters in groups().items()}


def make_optimizers(
    encoder: Trainable, make: MakeOptimizer | None = None
) -> dict[str, torch.optim.Optimizer]:
    """One optimizer for each group; Adam at 1e-3 where nothing else is asked for."""
    create = make or (lambda parameters: torch.optim.Adam(parameters, lr=1e-3))
    return {name: create(parameters) for name, parameters in parameter_groups(encoder).items()}


def losses_of(
    encoder: Trainable, batch: Batch, labels: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    """``encoder.loss`` as a dict, checked against the groups and the progress figure."""
    result: Any = encoder.loss(batch, labels)
    losses = dict(result) if isinstance(result, Mapping) else {"loss": result}
    wanted = {*parameter_groups(encoder), encoder.progress_figure.name}
    if missing := wanted - set(losses):
        raise EncoderError(
            f"loss() of encoder {encoder.name!r} returned {sorted(losses)} but its parameter "
            f"groups and progress figure need {sorted(missing)} too"
        )
    return losses


def descend(
    losses: Mapping[str, torch.Tensor],
    optimizers: Mapping[str, torch.optim.Optimizer],
    *,
    clip: float = 0.0,
) -> None:
    """Step every optimizer once, each on the gradient of the loss of its own name.

    ``clip`` is the largest norm of a group's gradient, 0 for any.
    """
    for index, (name, optimizer) in enumerate(optimizers.items()):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        # .backward() would mix the gradients of the players of a game.
        gradients = torch.autograd.grad(
            losses[name], parameters, allow_unused=True, retain_graph=index + 1 < len(optimizers)
        )
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        if clip:
            torch.nn.utils.clip_grad_norm_(parameters, clip)
    for optimizer in optimizers.values():
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def training_step(
    encoder: Trainable,
    batch: Batch,
    labels: torch.Tensor | None,
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> dict[str, float]:
    """Step every optimizer once on the losses of one batch; return all figures as numbers."""
    losses = losses_of(encoder, batch, labels)
    descend(losses, optimizers)
    return {name: float(value.detach()) for name, value in losses.items()}
