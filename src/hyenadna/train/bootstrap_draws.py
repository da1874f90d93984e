"""How sure a mean over rows and draws is: a bootstrap over both.

A few-shot figure is a mean over the rows measured and over a few draws of demonstrations. Another
test set would have other rows, another user would draw other demonstrations: rows and draws are
both drawn with replacement. With few draws the interval is too narrow rather than too wide; a
single draw or row adds nothing to it, and where all values agree it has no width.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from hyenadna.errors import InputError
from hyenadna.train.bootstrap import Difference, Interval

Floats = npt.NDArray[np.float64]
RESAMPLES: Final = 1000
_ENDS: Final = (0.025, 0.975)
_NUMBERS_AT_ONCE: Final = 1 << 20


def draws_interval(values: npt.ArrayLike, *, seed: int = 0) -> Interval:
    """The mean of values (D, n) of n rows in D draws, with its 95 % interval.

    The same seed gives the same resamples for all arrays of one shape. Raises InputError for an
    empty array or one of another number of axes.
    """
    drawn = resampled_means(values, seed=seed)
    low, high = np.quantile(drawn, _ENDS)
    return Interval(float(np.mean(np.asarray(values, dtype=np.float64))), float(low), float(high))


def draws_difference(first: npt.ArrayLike, second: npt.ArrayLike, *, seed: int = 0) -> Difference:
    """The mean of `first` less `second`, (D, n) each, paired by row and draw, with its interval.

    Where one has a single draw it stands beside every draw of the other. Raises InputError as
    `draws_interval` does, and for other rows.
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1]:
        raise InputError(
            f"draws: shapes {one.shape} and {other.shape}; give (D, n) of the same rows"
        )
    gap = one - other
    drawn = resampled_means(gap, seed=seed)
    low, high = np.quantile(drawn, _ENDS)
    better = float(((drawn > 0) + 0.5 * (drawn == 0)).mean())
    return Difference(float(gap.mean()), float(low), float(high), better)


def resampled_means(values: npt.ArrayLike, *, seed: int) -> Floats:
    """The mean in each of `RESAMPLES` resamples of rows and draws, of values (D, n)."""
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or not table.size:
        raise InputError(f"draws: values have shape {table.shape}; give (draws, rows), not empty")
    draws, rows = table.shape
    random = np.random.default_rng([seed, draws, rows])
    # how often each is drawn
    of_draws = random.multinomial(draws, np.full(draws, 1 / draws), RESAMPLES)
    found = np.empty(RESAMPLES)
    at_once = max(1, _NUMBERS_AT_ONCE // rows)
    for first in range(0, RESAMPLES, at_once):
        block = slice(first, first + at_once)
        of_rows = random.multinomial(rows, np.full(rows, 1 / rows), len(found[block]))
        found[block] = ((of_draws[block] @ table) * of_rows).sum(1)
    return found / (draws * rows)
