"""Padded batches made exact.

The model has no mask inside: a `[PAD]` is a token, and in front of a sequence it changes every
position after it. So the real tokens of each row are moved to its front, the model reads those, and
its outputs are moved back. Causality keeps what stands behind a sequence from touching it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hyenadna.errors import InputError


@dataclass(frozen=True)
class Packing:
    """Where the real tokens of a batch stand.

    order: long (B, W), the input position of the j-th token of the packed row, real ones first and
    in their order. real: bool (B, W), which of them are real. length: L, the input's. W <= L is the
    number of real tokens of the longest row.
    """

    order: Tensor
    real: Tensor
    length: int

    def pack(self, x: Tensor) -> Tensor:
        """(B, L) or (B, L, D) -> (B, W) or (B, W, D): real tokens to the front."""
        order = self.order if x.ndim == 2 else self.order[..., None].expand(-1, -1, x.shape[2])
        return x.gather(1, order)

    def unpack(self, x: Tensor) -> Tensor:
        """(B, W, D) -> (B, L, D): back to their places, zeros at padding."""
        x = x.masked_fill(~self.real[..., None], 0)
        empty = x.new_zeros(x.shape[0], self.length, x.shape[2])
        return empty.scatter(1, self.order[..., None].expand_as(x), x)


def packing(mask: Tensor | None, shape: torch.Size) -> Packing | None:
    """How to pack a batch with this attention mask, or None where every token is real.

    mask: (B, L), non-zero where a token is real. shape: that of the input, (B, L, ...).

    Raises InputError for a mask of another shape, or a row without a real token.
    """
    if mask is None:
        return None
    if tuple(mask.shape) != tuple(shape[:2]):
        raise InputError(
            f"attention_mask has shape {tuple(mask.shape)}, but the input is {tuple(shape[:2])}; "
            "give one value for each token"
        )
    real = mask != 0
    if bool(real.all()):
        return None
    lengths = real.sum(1)
    if not bool(lengths.all()):
        row = int((lengths == 0).nonzero()[0])
        raise InputError(f"attention_mask: row {row} has no real token; leave the row out")
    width = int(lengths.max())
    order = torch.sort(real.to(torch.uint8), dim=1, descending=True, stable=True).indices[:, :width]
    return Packing(order, real.gather(1, order), real.shape[1])


def last_real(real: Tensor) -> Tensor:
    """Index of the last True of each row of (B, L), long (B,); L - 1 where there is none."""
    return real.shape[1] - 1 - real.flip(1).to(torch.uint8).argmax(1)
