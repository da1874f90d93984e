"""Muon: momentum whose matrices are made orthogonal, beside AdamW for everything else.

Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks", with the scale of Liu
et al. 2025, arXiv 2502.16982, which gives the updates of a matrix the size that AdamW's have.

The same as `torch.optim.Muon(adjust_lr_fn="match_rms_adamw")`, its twin in the tests, but for four
things: matrices that lie stacked in one parameter are turned each by itself, parameters may lie in
parts on several ranks (FSDP2), the iteration is in float32 (torch's in bf16, slow on CPUs without
it), and one optimiser holds AdamW's groups too, so that schedule, loss scale and resumption need
not know of two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
from torch import Tensor

from hyenadna.model.parallel.parts import dealt, whole

NEWTON_SCHULZ: Final = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration (Jordan et al. 2024): fast, to singular values near 1."""
ITERATIONS: Final = 5
MOMENTUM: Final = 0.95
UPDATE_SIZE: Final = 0.2
"""Root mean square of an update at a learning rate of 1, about that of AdamW (Liu et al. 2025)."""


def orthogonal(g: Tensor) -> Tensor:
    """About the nearest matrix with orthonormal rows or columns, for each of (..., R, C).

    Singular values come out between 0.7 and 1.2 where they were not tiny; a zero stays zero.
    """
    a, b, c = NEWTON_SCHULZ
    tall = g.shape[-2] > g.shape[-1]
    x = g.mT if tall else g
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(torch.finfo(g.dtype).tiny)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if tall else x


class MuonAdamW(torch.optim.AdamW):
    """AdamW, and Muon in the groups that say how many `blocks` their matrices have.

    A matrix (R, C) of a group with `blocks` n is n matrices (R / n, C) below each other, each with
    a size of its own: the projections of an operator, say.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], **options: Any) -> None:
        super().__init__([{"blocks": 0, **group} for group in groups], **options)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """See `torch.optim.Optimizer.step`."""
        every = self.param_groups
        self.param_groups = [group for group in every if not group["blocks"]]
        try:
            loss = super().step(closure)
        finally:
            self.param_groups = every
        for group in every:
            if group["blocks"]:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._turn(parameter, group)
        return loss

    def _turn(self, parameter: Tensor, group: dict[str, Any]) -> None:
        """One update of a matrix."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(parameter.grad, 1 - MOMENTUM)
        ahead = parameter.grad.lerp(state["momentum"], MOMENTUM)  # Nesterov's
        # where rows lie on several ranks, each makes the whole of it and takes its own
        blocks = whole(ahead).unflatten(0, (group["blocks"], -1)).float()
        size = UPDATE_SIZE * max(blocks.shape[-2:]) ** 0.5
        update = orthogonal(blocks).flatten(0, 1).to(parameter.dtype)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(dealt(update, parameter), alpha=-group["lr"] * size)
