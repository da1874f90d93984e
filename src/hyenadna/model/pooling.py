"""One vector for a sequence out of its hidden states, padding never counted.

The sums are products with a row of weights, so that no second tensor of the size of the states is
made, forward or backward: at a million positions it would be a gibibyte.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import torch
from torch import Tensor, nn

from hyenadna.errors import InputError

Pooling = Literal["mean", "last", "first", "sum", "attention", "token"]
POOLINGS: Final[tuple[str, ...]] = get_args(Pooling)


def pool(
    states: Tensor, lengths: Tensor, pooling: Literal["mean", "last", "first", "sum"]
) -> Tensor:
    """Pooled states (B, D), in float32 or above.

    states: (B, L, D), finite. lengths: (B,), 1 .. L, real positions of each row, from its front.
    `last` is the last real position, `mean` and `sum` run over the real ones. The four are those
    of the original's decoder with `l_output = 0` and `use_lengths` (shared specification, (f)).

    Raises InputError for another name.
    """
    if pooling == "first":
        return _exact(states[:, 0])
    if pooling == "last":
        at = (lengths - 1)[:, None, None].expand(-1, 1, states.shape[2])
        return _exact(states.gather(1, at)[:, 0])
    if pooling not in ("mean", "sum"):
        raise InputError(f"pool: no pooling {pooling!r} without weights of its own; {POOLINGS}")
    weights = real_positions(lengths, states.shape[1]).to(_exact(states[:0]).dtype)
    if pooling == "mean":
        weights = weights / lengths[:, None].to(weights.dtype)
    return weighted_sum(states, weights)


def real_positions(lengths: Tensor, length: int) -> Tensor:
    """Whether each position is real: bool (B, L), for `length` = L."""
    return torch.arange(length, device=lengths.device) < lengths[:, None]


def weighted_sum(states: Tensor, weights: Tensor) -> Tensor:
    """`sum_l weights[b, l] states[b, l]`: (B, L, D), (B, L) -> (B, D), in float32 or above."""
    with torch.autocast(states.device.type, enabled=False):
        states = _exact(states)
        return torch.bmm(weights.to(states.dtype)[:, None], states)[:, 0]


class AttentionPooling(nn.Module):
    """A mean whose weights are learned: softmax of `state . query / sqrt(D)` over real positions.

    The query starts at 0, which is the plain mean.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(d_model))

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """(B, L, D), (B,) -> (B, D), in float32 or above."""
        real = real_positions(lengths, states.shape[1])
        with torch.autocast(states.device.type, enabled=False):
            weights = self.scores(states).masked_fill(~real, -torch.inf).softmax(1)
        return weighted_sum(states, weights)

    def scores(self, states: Tensor) -> Tensor:
        """(..., D) -> (...): what the softmax over the positions takes."""
        states = _exact(states)
        return states @ (self.query.to(states.dtype) * states.shape[-1] ** -0.5)


def _exact(states: Tensor) -> Tensor:
    """The states in float32, or float64 where they are: half precision is no type to sum in."""
    return states.to(torch.promote_types(states.dtype, torch.float32))
