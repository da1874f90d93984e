"""The tokens that a cache has read, so that it can read them again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class History:
    """Prompts of any lengths, then one id of each row for every column that followed.

    prompts: B tensors, ids (P,) or embedded tokens (P, D). columns: positions that they took in
    their batch, padding counted.
    """

    def __init__(self, prompts: Sequence[Tensor], columns: int) -> None:
        self.prompts, self.columns = list(prompts), columns
        self._ids = torch.empty(len(prompts), 0, dtype=torch.int64, device=prompts[0].device)
        self._count = 0

    @property
    def length(self) -> int:
        """Columns in all."""
        return self.columns + self._count

    @property
    def ids(self) -> Tensor:
        """(B, n): what followed the prompts."""
        return self._ids[:, : self._count]

    def append(self, ids: Tensor) -> None:
        """Keep ids (B, n), a copy of them."""
        stop = self._count + ids.shape[1]
        if stop > self._ids.shape[1]:
            grown = self._ids.new_empty(len(self._ids), max(stop, 2 * self._count, 64))
            grown[:, : self._count] = self.ids
            self._ids = grown
        self._ids[:, self._count : stop] = ids
        self._count = stop

    def cut(self, length: int) -> None:
        """Forget all columns from `length` on, which is no less than `columns`."""
        self._count = length - self.columns

    def select(self, rows: Sequence[int]) -> History:
        """That of the chosen rows, repeats allowed."""
        chosen = History([self.prompts[row] for row in rows], self.columns)
        chosen.append(self.ids[list(rows)])
        return chosen
