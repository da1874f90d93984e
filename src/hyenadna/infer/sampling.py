"""The choice of the next base: temperature, top-k, top-p, and random numbers of each sample's own.

Probabilities are made from the logits of the letters that may be generated, in float64; the base is
found by the inverse of their cumulative sum. All rows at once, without a loop over them: this runs
once for every base.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from hyenadna.errors import InputError

Floats = npt.NDArray[np.float64]
_DRAWN_AT_ONCE: Final = 1024
_COLDEST: Final = 1e-6  # below it the quotients overflow, and nothing but the likeliest is left


@dataclass(frozen=True)
class Sampling:
    """How the next base is chosen from its probabilities.

    First temperature, then top-k, then top-p among those that are left, as the common libraries do.
    """

    temperature: float = 1.0
    """Logits are divided by it: below 1 likely bases gain, and 0 always takes the likeliest."""
    top_k: int | None = None
    """Choose among so many likeliest bases; None: among all."""
    top_p: float | None = None
    """Choose among the likeliest bases that together reach this probability; None: among all."""
    seed: int = 0
    """Same seed, same sequences. Sample j of prompt i depends on (seed, i, j) alone."""

    def __post_init__(self) -> None:
        def need(ok: bool, field: str, rule: str) -> None:
            if not ok:
                raise InputError(f"sampling: {field} is {getattr(self, field)!r}; {rule}")

        warm = _is_number(self.temperature) and _COLDEST <= self.temperature < math.inf
        need(
            warm or self.temperature == 0,
            "temperature",
            f"it must be 0 (the likeliest base) or at least {_COLDEST:g}",
        )
        some = self.top_k is None or (is_whole(self.top_k) and self.top_k >= 1)
        need(some, "top_k", "it must be a whole number, at least 1")
        share = self.top_p is None or (_is_number(self.top_p) and 0 < self.top_p <= 1)
        need(share, "top_p", "it must be above 0 and at most 1")
        need(is_whole(self.seed) and self.seed >= 0, "seed", "it must be a whole number from 0 up")

    @property
    def greedy(self) -> bool:
        """Whether nothing is left to chance."""
        return self.temperature == 0 or self.top_k == 1


def is_whole(value: object) -> bool:
    """Whether a value is a whole number, True and False not counted."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return is_whole(value) or isinstance(value, float | np.floating)


class Chooser:
    """The next letter of each of B rows, see `choose`; compiled for one way of sampling."""

    def __init__(self, sampling: Sampling, letters: Sequence[int]) -> None:
        """letters: K token ids that may be generated."""
        self.sampling = sampling
        ids = [int(letter) for letter in letters]
        # neighbours are a view of the logits, which is ten times faster than a selection
        neighbours = ids == list(range(ids[0], ids[0] + len(ids)))
        self._columns = slice(ids[0], ids[0] + len(ids)) if neighbours else np.array(ids)
        self._whole = (sampling.top_k is None or sampling.top_k >= len(ids)) and (
            sampling.top_p is None or sampling.top_p >= 1
        )
        # first[i, j]: of two letters that are equally likely, j comes before i
        self._first = np.tri(len(ids), k=-1, dtype=bool)

    def choose(
        self,
        logits: npt.NDArray[np.floating],
        uniform: Floats,
        allowed: npt.NDArray[np.bool_] | None = None,
    ) -> npt.NDArray[np.intp]:
        """Index into the letters for each row, (B,).

        logits: (B, V). uniform: one random number in [0, 1) for each row, (B,); not looked at where
        nothing is left to chance. allowed: (B, K), which letters may come; None: all.

        Raises InputError where the logits are no finite numbers, ValueError for a row in which
        nothing is allowed.
        """
        scores = logits[:, self._columns].astype(np.float64)
        if allowed is not None:
            scores[~allowed] = -np.inf
        best = scores.max(axis=1)
        # a sum is finite only if all of it is; of columns that are not allowed, nothing is asked
        if not math.isfinite(float(best.sum())):
            _explain(logits[:, self._columns])
        if self.sampling.greedy:
            return scores.argmax(axis=1)
        scores -= best[:, None]
        scores /= self.sampling.temperature
        weights = np.exp(scores)
        if not self._whole:
            weights *= self._kept(weights)
        return _invert(weights, uniform)

    def _kept(self, weights: Floats) -> npt.NDArray[np.bool_]:
        """Which letters top-k and top-p leave, (B, K).

        There are at most five letters, so that comparing all pairs costs less than sorting. Equals
        come in the order of the letters.
        """
        mine, other = weights[:, :, None], weights[:, None, :]
        ahead = (other > mine) | ((other == mine) & self._first)
        kept = np.ones(weights.shape, dtype=bool)
        if self.sampling.top_k is not None:
            kept = ahead.sum(axis=2) < self.sampling.top_k
        if self.sampling.top_p is not None:
            # the one that reaches top_p is the last to stay
            left = weights * kept
            mass = np.einsum("bij,bj->bi", ahead, left)
            kept &= mass < self.sampling.top_p * left.sum(axis=1)[:, None]
        return kept


def _invert(weights: Floats, uniform: Floats) -> npt.NDArray[np.intp]:
    """First index whose cumulative weight exceeds the share `uniform` of the sum, (B,).

    Never one of weight 0: the sums before it and after it are the same.
    """
    sums = weights.cumsum(axis=1)
    total = sums[:, -1]
    # below the total also where the product is rounded up to it
    aim = np.minimum(uniform * total, np.nextafter(total, 0.0))
    return (sums <= aim[:, None]).sum(axis=1)


def _explain(logits: npt.NDArray[np.floating]) -> None:
    if np.isfinite(logits).all():
        raise ValueError("a row has no letter that is allowed")
    raise InputError(
        "model: its predictions are not finite numbers; the weights are damaged or overflow - "
        "load another checkpoint"
    )


class Uniforms:
    """Random numbers in [0, 1) for the samples of one batch, each row from a stream of its own.

    A stream is keyed by (seed, prompt, sample) and by nothing else, so that a sample is the same in
    whatever batch, order or process it is drawn.
    """

    def __init__(self, seed: int, rows: Sequence[tuple[int, int]]) -> None:
        """rows: (prompt, sample) of each row, both from 0."""
        self._streams = [
            np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))
            for key in rows
        ]
        self._block = np.empty((0, len(rows)))
        self._next = 0

    def draw(self) -> Floats:
        """The next number of each row, (B,)."""
        if self._next == len(self._block):
            # drawn ahead: one call for a thousand bases
            drawn = [stream.random(_DRAWN_AT_ONCE) for stream in self._streams]
            self._block = np.stack(drawn, axis=1)
            self._next = 0
        self._next += 1
        row: Floats = self._block[self._next - 1]
        return row
