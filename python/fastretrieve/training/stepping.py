"""What a recipe adds to a step: the optimizer, the schedule, clipping, mixed precision.

The step itself is in ``encoders/blocks/steps.py``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from fastretrieve.encoders.blocks.steps import descend, losses_of, make_optimizers
from fastretrieve.encoders.protocol import Batch, Trainable
from fastretrieve.training.options import Plan, Precision


class DivergedError(RuntimeError):
    """A loss became NaN or infinite."""


class Stepper:
    """The optimizers of an encoder."""

    def __init__(self, encoder: Trainable, plan: Plan, *, device: torch.device, half: bool) -> None:
        self.encoder, self.plan, self.device, self.half = encoder, plan, device, half
        self.optimizers = make_optimizers(encoder, self._make_optimizer)

    def step(
        self, batch: Batch, labels: torch.Tensor | None, *, number: int
    ) -> dict[str, torch.Tensor]:
        """Step every optimizer on the losses of one batch; return all figures, unfetched."""
        with self.autocast():
            losses = losses_of(self.encoder, batch, labels)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = self.plan.lr_at(number)
        descend(losses, self.optimizers, clip=self.plan.recipe.clip)
        return {name: value.detach() for name, value in losses.items()}

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            yield

    def _make_optimizer(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        recipe = self.plan.recipe
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=recipe.lr, betas=recipe.betas
        )


def uses_bfloat16(device: torch.device, precision: Precision, *, wanted: bool) -> bool:
    """Whether to use mixed precision: "auto" does where bfloat16 is native.

    ``wanted`` is the recipe's choice for "auto".
    """
    if precision == "auto":
        return wanted and (_gpu_has_bfloat16(device) or _cpu_has_bfloat16(device))
    return precision == "bfloat16"


def _gpu_has_bfloat16(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def _cpu_has_bfloat16(device: torch.device) -> bool:
    """Instructions that multiply bfloat16; without them it is slower than float32."""
    ask = getattr(torch.cpu, "get_capabilities", None)  # an older torch cannot say
    if device.type != "cpu" or ask is None:
        return False
    return any(ask().get(name) for name in ("avx512_bf16", "amx_bf16"))


def resolve_device(device: str) -> torch.device:
    """ "auto" takes the GPU if there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    wanted = torch.device(device)
    if wanted.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device {device!r} was asked for, but torch finds no CUDA device; use device='cpu' or "
            "'auto'"
        )
    return wanted


@contextlib.contextmanager
def own_randomness(device: torch.device) -> Iterator[None]:
    """Torch's global random state comes back afterwards, so other code's draws stay the same."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def seed_step(seed: int, step: int) -> None:
    """Let draws depend on the step alone, so that a resumed run draws what an unbroken one does."""
    torch.manual_seed((seed * 1_000_003 + step * 7919 + 1) % (1 << 62))
