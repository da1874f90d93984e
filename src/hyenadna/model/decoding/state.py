"""Where growing sequences stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hyenadna.conv.online import OnlineConvolution
from hyenadna.errors import InputError


@dataclass
class LayerState:
    """Of one block: the last projections for the short filter, and its long convolutions.

    halo: (B, K-1, (N+1) D), oldest first, at least float32. convolutions: N - 1 of D channels.
    """

    halo: Tensor
    convolutions: list[OnlineConvolution]


@dataclass
class DecodingState:
    """B sequences that have been read so far, each of a length of its own.

    Made by `Decoder.prefill` and changed by `Decoder.step` and `Decoder.extend`. All numbers are
    float32 (float64 in a float64 model), whatever the type of the model.
    """

    layers: list[LayerState]
    logits: Tensor
    """(B, V): of the next token of each row."""
    lengths: Tensor
    """(B,) int64: tokens that each row has read."""
    addresses: Any = None
    """What native code was last told about these tensors; None when they have changed."""

    @property
    def batch(self) -> int:
        """Number of sequences, B."""
        return len(self.logits)

    @property
    def room(self) -> int:
        """Tokens that may still come."""
        return self.layers[0].convolutions[0].room

    @property
    def count(self) -> int:
        """Steps since the effect of all samples was last settled."""
        return self.layers[0].convolutions[0].count

    @property
    def nbytes(self) -> int:
        """Memory of the state, in bytes."""
        convolutions = [c for layer in self.layers for c in layer.convolutions]
        halos = sum(layer.halo.nbytes for layer in self.layers)
        return halos + sum(c.nbytes for c in convolutions) + self.logits.nbytes

    def clone(self) -> DecodingState:
        """The same state once more: steps on one do not change the other."""
        return self.select(range(self.batch))

    def select(self, rows: Sequence[int] | Tensor) -> DecodingState:
        """A state of its own for the chosen rows, repeats allowed: branches, or fewer sequences.

        rows: indices in 0..B-1. The past that branches of one prefilled sequence have in common is
        stored once. Raises InputError for a row that is not there.
        """
        device = self.logits.device
        index = torch.as_tensor(rows, dtype=torch.int64).reshape(-1)
        if not len(index) or int(index.min()) < 0 or int(index.max()) >= self.batch:
            raise InputError(
                f"decoding state: rows {index.tolist()[:8]} of a state of {self.batch} sequences; "
                f"give at least one, each in 0 .. {self.batch - 1}"
            )
        index = index.to(device)
        layers = [
            LayerState(layer.halo[index], [c.select(index) for c in layer.convolutions])
            for layer in self.layers
        ]
        return DecodingState(layers, self.logits[index], self.lengths[index])

    def settle(self) -> None:
        """Adds the effect of all tokens on what is to come, as `extend` needs it."""
        self.addresses = None
        for layer in self.layers:
            for convolution in layer.convolutions:
                convolution.settle()


def join(states: Sequence[DecodingState], order: Sequence[int]) -> DecodingState:
    """One state of the rows of several fresh ones, in a new order.

    order: of each row of the result, its number among all rows of the states. All have just been
    prefilled, with the same room.
    """
    if len(states) == 1 and list(order) == list(range(states[0].batch)):
        return states[0]
    index = torch.as_tensor(order, device=states[0].logits.device)

    def rows(parts: list[Tensor]) -> Tensor:
        return torch.cat(parts)[index]

    layers = []
    for parts in zip(*(state.layers for state in states), strict=True):
        convolutions = []
        for same in zip(*(part.convolutions for part in parts), strict=True):
            assert not any(c.count for c in same)
            settled = rows([c.settled.expand(c.batch, -1, -1) for c in same])
            convolutions.append(OnlineConvolution(same[0].filter, settled, len(index)))
        layers.append(LayerState(rows([part.halo for part in parts]), convolutions))
    logits = rows([state.logits for state in states])
    return DecodingState(layers, logits, rows([state.lengths for state in states]))
