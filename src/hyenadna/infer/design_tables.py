"""What can still be completed from each position and state, by recursion from the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from hyenadna.errors import InputError
from hyenadna.infer.design_motifs import Masks, Table

MAX_BYTES: Final = 1 << 30
"""Memory that the tables of one plan may take."""
NEVER: Final = 1 << 30
"""Lowest count where there is no completion, far above every length."""

Counts = npt.NDArray[np.int32]


class Feasible:
    """Whether a state at a position has a completion at all.

    The rows of most positions are the same, so each is kept once.
    """

    def __init__(self, steps: Mapping[int, Table], masks: Masks, sink: int) -> None:
        """Fill the rows from the last position to the first.

        steps: next states (S + 1, K) by mask; masks: what is asked for at each position, (L,).

        Raises InputError where the rows would take more than MAX_BYTES.
        """
        row = np.ones(sink + 1, dtype=bool)
        row[sink] = False
        self._rows = [row]
        self._row_of = np.zeros(len(masks) + 1, dtype=np.int32)
        numbers = {row.tobytes(): 0}
        before: dict[tuple[int, int], int] = {}
        now = 0
        for position, mask in zip(range(len(masks) - 1, -1, -1), masks[::-1].tolist(), strict=True):
            known = before.get((mask, now))
            if known is None:
                row = np.asarray(self._rows[now][steps[mask]].any(axis=1))
                known = numbers.setdefault(row.tobytes(), len(self._rows))
                if known == len(self._rows):
                    require_memory(2 * (known + 1) * len(row), len(masks), sink)
                    self._rows.append(row)
                before[mask, now] = known
            self._row_of[position] = now = known

    def __getitem__(self, position: int) -> npt.NDArray[np.bool_]:
        """Whether each state has a completion from the position (0 .. L) on: (S + 1,)."""
        return self._rows[self._row_of[position]]


class GcCounts:
    """Lowest and highest number of G and C that completions from a state at a position have.

    Every count from `low` to `high` can be had. The counts of a state are a union of those of its
    next states, nearly always without a gap; where there is one, only the longest piece is kept
    (the lowest of equals), and `exact` is False: then some sequences that fit never come, but what
    is kept is still reached for certain.
    """

    low: Counts
    """(L + 1, S + 1), NEVER or more where there is no completion."""
    high: Counts
    """(L + 1, S + 1), below 0 where there is no completion."""
    exact: bool

    def __init__(self, steps: Mapping[int, Table], masks: Masks, gained: Counts, sink: int) -> None:
        """Fill the rows from the last position to the first.

        steps: next states (S + 1, K) by mask; masks: what is asked for at each position, (L,);
        gained: 1 for the letters G and C, else 0, (K,).

        Raises InputError where the rows would take more than MAX_BYTES.
        """
        shape = (len(masks) + 1, sink + 1)
        require_memory(8 * shape[0] * shape[1], len(masks), sink)
        self.low = np.zeros(shape, dtype=np.int32)
        self.high = np.zeros(shape, dtype=np.int32)
        self.low[-1, sink], self.high[-1, sink] = NEVER, -NEVER
        self.exact = True
        # letters first: numpy reduces the first axis over whole rows of states
        by_letter = {mask: np.ascontiguousarray(table.T) for mask, table in steps.items()}
        gain = gained[:, None]
        for position, mask in zip(range(len(masks) - 1, -1, -1), masks[::-1].tolist(), strict=True):
            table = by_letter[mask]
            low = self.low[position + 1].take(table) + gain
            high = self.high[position + 1].take(table) + gain
            self._join(low, high, self.low[position], self.high[position])

    def _join(self, low: Counts, high: Counts, to_low: Counts, to_high: Counts) -> None:
        """Put the union of K intervals, (K, S + 1), in a row, or its longest piece."""
        lowest = low.min(0, out=to_low)
        high.max(0, out=to_high)
        # A letter that leads nowhere becomes one more point of the union; the same for all
        # letters where none leads anywhere, which keeps such states as they are.
        low = np.where(low < NEVER, low, lowest)
        high = np.maximum(high, lowest)
        if (low.max(0) <= high.min(0) + 1).all():
            return
        # Sorted each by itself, the lows and highs show the gaps: one lies where as many
        # intervals have ended as have begun, and not all have begun.
        low.sort(0)
        high.sort(0)
        gaps: npt.NDArray[np.bool_] = low[1:] > high[:-1] + 1
        if gaps.any():
            self.exact = False
            where = np.flatnonzero(gaps.any(0))
            to_low[where], to_high[where] = _longest(low[:, where], high[:, where], gaps[:, where])


def _longest(low: Counts, high: Counts, gaps: npt.NDArray[np.bool_]) -> tuple[Counts, Counts]:
    """Ends of the longest piece of each column: sorted lows and highs (K, X), gaps (K - 1, X)."""
    start = best_low = low[0]
    best_high = high[0]
    for index in range(len(low)):
        if index:
            start = np.where(gaps[index - 1], low[index], start)
        longer = high[index] - start > best_high - best_low
        best_low = np.where(longer, start, best_low)
        best_high = np.where(longer, high[index], best_high)
    return best_low, best_high


def require_memory(need: int, length: int, states: int) -> None:
    """Raise InputError where tables of `need` bytes are more than MAX_BYTES."""
    if need > MAX_BYTES:
        raise InputError(
            f"design: {length:,} new bases with {states:,} states need tables of more than "
            f"{MAX_BYTES >> 20:,} MiB; give fewer new bases, fewer forbidden motifs, or no gc"
        )
