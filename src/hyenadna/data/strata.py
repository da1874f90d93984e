"""Places for training windows: random numbers from counters, shuffles without a table, strata.

Where a window lies: a region of r bases has r - 1 targets and gets max(1, round((r - 1) / L))
strata, which split its targets evenly. A pass visits the strata of all regions of a genome in a
shuffled order. In each it draws one target, lays the window of L + 1 bases around it, and moves the
window back into its region where it sticks out. Hence a pass sees the whole split about once, each
pass with fresh crops, and short regions and the ends of long ones are not neglected.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from hyenadna.genome.intervals import Interval

UInt64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]

# 2^64 / golden ratio: multiples of it spread most evenly over the circle.
GOLDEN: Final = 0x9E3779B97F4A7C15
_MASK: Final = (1 << 64) - 1


def _mix(x: UInt64s) -> UInt64s:
    """Hash of each number: the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def random_bits(seed: int, *keys: int | Int64s | UInt64s) -> UInt64s:
    """Random 64-bit numbers that depend on the seed and the keys only; keys broadcast."""
    state = _mix(np.array([(seed + GOLDEN) & _MASK], dtype=np.uint64))
    for key in keys:
        state = _mix((state ^ np.asarray(key).astype(np.uint64)) + np.uint64(GOLDEN))
    return state


def below(random: UInt64s, limit: npt.ArrayLike) -> Int64s:
    """Numbers 0 .. limit - 1 from random 64-bit numbers (limits below 2^53)."""
    unit = (random >> np.uint64(11)).astype(np.float64) * 2.0**-53
    limits = np.asarray(limit, dtype=np.int64)
    return np.minimum((unit * limits).astype(np.int64), limits - 1)


def shuffled(index: Int64s, count: int, seed: int, *keys: int | Int64s) -> Int64s:
    """Where a random permutation of 0 .. count - 1 sends each index; keys choose the permutation.

    A Feistel network on the next even power of two, walked until it lands below `count` (Black and
    Rogaway 2002): no table, so that a pass over 10^8 strata costs no memory.
    """
    half = max(1, math.ceil(math.log2(max(count, 2)) / 2))
    bits, low = np.uint64(half), np.uint64((1 << half) - 1)
    keyed = [np.broadcast_to(np.asarray(key, dtype=np.int64), index.shape) for key in keys]
    value = index.astype(np.uint64)
    todo = np.arange(len(index))
    while len(todo):
        left, right = value[todo] >> bits, value[todo] & low
        for turn in range(4):
            noise = random_bits(seed, *(key[todo] for key in keyed), turn, right) & low
            left, right = right, left ^ noise
        value[todo] = (left << bits) | right
        todo = todo[value[todo] >= np.uint64(count)]
    return value.astype(np.int64)


class Strata:
    """The strata of some regions at one window length L, as arrays over the regions.

    Regions of one base have no target and are left out; at least one must be longer.
    """

    def __init__(self, intervals: Sequence[Interval], length: int) -> None:
        regions = [region for region in intervals if region.length >= 2]
        self.contigs = [region.contig for region in regions]
        self.starts = np.array([region.start for region in regions], dtype=np.int64)
        self.lengths = np.array([region.length for region in regions], dtype=np.int64)
        self.windows = np.minimum(self.lengths, length + 1)
        self.counts = np.maximum(1, np.rint((self.lengths - 1) / length).astype(np.int64))
        self.ends = np.cumsum(self.counts)
        self.total = int(self.ends[-1])
        self.half = length // 2

    def place(self, strata: Int64s, within: UInt64s) -> tuple[Int64s, Int64s, Int64s]:
        """(region, start, stop) of the window for each stratum, at a random place inside it."""
        region = np.searchsorted(self.ends, strata, side="right")
        count, length = self.counts[region], self.lengths[region]
        rank = strata - (self.ends[region] - count)
        # Edges of the stratum in integers: the strata of a region split its targets exactly.
        first, last = rank * (length - 1) // count, (rank + 1) * (length - 1) // count
        target = first + below(within, last - first)
        start = np.clip(target - self.half, 0, length - self.windows[region])
        start = start + self.starts[region]
        return region, start, start + self.windows[region]
