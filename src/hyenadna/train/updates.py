"""One update of the weights from their gradients, and what becomes of those that are no numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import torch
from torch import Tensor

from hyenadna.errors import InputError
from hyenadna.model.parallel.parts import whole

MAX_BAD_STEPS: Final = 20
"""Steps in a row with a loss or gradient that is not finite before the run is given up."""


def update(
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    parameters: Iterable[Tensor],
    *,
    clip: float,
    loss: float,
    factor: float = 1.0,
) -> tuple[float, bool]:
    """Clip and step; the gradient's norm before clipping, and whether it and the loss were finite.

    Where they were not, the step is left out. The gradients are gone afterwards. clip: largest
    global norm. factor: what the gradients, once unscaled, are multiplied with first.
    """
    parameters = list(parameters)
    scaler.unscale_(optimizer)
    if factor != 1:
        torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], factor)
    norm = float(whole(torch.nn.utils.clip_grad_norm_(parameters, clip)))
    finite = math.isfinite(norm) and math.isfinite(loss)
    if finite:
        scaler.step(optimizer)
    scaler.update()  # fp16: a smaller scale after a gradient that was not finite
    optimizer.zero_grad(set_to_none=True)
    return norm, finite


def count_bad(
    before: int, scaler: torch.amp.GradScaler, *, finite: bool, loss: float, step: int, lr: float
) -> int:
    """Bad steps in a row after one more, given how many there were before it.

    finite: as `update` says. step: number of this one, from 1; lr: peak learning rate; both for the
    message. Raises InputError where it is the `MAX_BAD_STEPS`th.
    """
    # fp16: the first scales are too large by design, and then only a loss that is not finite is bad
    scaling = scaler.is_enabled() and scaler.get_scale() >= 1
    if finite or (scaling and math.isfinite(loss)):
        return 0
    if before + 1 >= MAX_BAD_STEPS:
        raise InputError(
            f"training diverged: no finite gradient in the last {before + 1} steps (step {step}); "
            f"lower --lr {lr:g} or take --precision float32"
        )
    return before + 1
