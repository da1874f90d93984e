"""The other strand of a batch of tokens, in the rows that it came in."""

from __future__ import annotations

import torch
from torch import Tensor

from hyenadna.alphabet import COMPLEMENT, MASK, UNK


def other_strand(tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Reverse complement of each row (B, L), and the position that each token of it came from.

    tokens: integer ids (B, L). lengths: (B,), real tokens of each row, from its front.

    What stands between two special tokens is a sequence, and is reversed in its own place. So
    `[CLS]`, `[SEP]` and padding stay where they are, rows stay padded on the right, and the two
    sequences of a pair `x [SEP] y [SEP]` keep their order. `[MASK]` and `[UNK]` stand for a base
    and move with the others. Done twice it gives the tokens back, and the second result, int64
    (B, L), is its own inverse: `states.gather(1, order)` puts per-token results back in place.
    """
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    special = (tokens < UNK) & (tokens != MASK)
    fixed = special | (positions >= lengths[:, None])
    # first and last position of the stretch of bases that a position lies in
    start = torch.where(fixed, positions + 1, 0).cummax(1).values
    end = torch.where(fixed, positions - 1, len(positions) - 1)
    stop = end.flip(1).cummin(1).values.flip(1)
    order = torch.where(fixed, positions, start + stop - positions)
    complement = torch.from_numpy(COMPLEMENT).to(device=tokens.device, dtype=tokens.dtype)
    return complement[tokens.long()].gather(1, order), order
