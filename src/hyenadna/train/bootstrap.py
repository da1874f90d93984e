"""How sure a metric is: bootstrap intervals over sequences, and of the difference of two models.

Sequences are drawn with replacement, as many as there are, and every metric is worked out anew
(percentile bootstrap, Efron and Tibshirani 1993). Bases of one sequence are drawn together: they
are not independent. An interval says what another test set of this kind could give; it knows
nothing of other seeds of training, and duplicates in the set make it too narrow. That of a
calibration error lies too high, since noise only adds to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from hyenadna.errors import InputError
from hyenadna.task_kinds import TaskKind
from hyenadna.train.metrics import LOWER_IS_BETTER, Floats, metrics_of
from hyenadna.train.metrics_resampled import Weights, resampled_metrics
from hyenadna.train.scored import Scored, scored

RESAMPLES: Final = 1000
_FEWEST: Final = 100
# Rows x outputs x resamples in all, some ten seconds of one core.
_WORK: Final = 300_000_000
# Sequences x resamples of a block: some 100 MB, of which labels need fewer arrays at a time.
_AT_ONCE: Final = 1 << 20
_AT_ONCE_OF_LABELS: Final = 1 << 24


@dataclass(frozen=True)
class Interval:
    """A metric and where it lies: NaN ends where too few resamples define it."""

    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Difference(Interval):
    """A metric of one model less that of another on the same rows, and where it lies."""

    better: float = math.nan
    """Share of resamples in which the first model is the better one, equal ones counted half."""


@dataclass(frozen=True, eq=False)
class Resamples:
    """The metrics of one set of outputs, on all rows and on each resample; made by `resample`."""

    values: dict[str, float]
    """Each metric of `hyenadna.train.metrics.metrics`."""
    drawn: dict[str, Floats]
    """Those that have an interval, in each resample, (resamples,)."""


def resample(
    kind: TaskKind,
    targets: npt.ArrayLike,
    outputs: npt.ArrayLike,
    *,
    clusters: npt.ArrayLike | None = None,
    label_groups: Sequence[str] | None = None,
    resamples: int | None = None,
    seed: int = 0,
) -> Resamples:
    """Each metric on all rows, and on resamples of them: what intervals and differences are of.

    clusters: what each row belongs to (whole numbers; for tokens: its sequence), (n,); rows of one
    cluster are drawn together; each row for itself when left out. resamples: at least 2; when left
    out, 1,000, fewer for large sets, never less than 100 (`default_resamples`). The same seed gives
    the same resamples whatever is measured.

    Raises InputError for arrays that do not fit, and options out of range.
    """
    rows = scored(kind, targets, outputs)
    values = metrics_of(rows, label_groups=label_groups)
    drawn = _drawn(rows, len(np.asarray(targets)), clusters, label_groups, resamples, seed)
    return Resamples(values, drawn)


def intervals_of(found: Resamples, *, level: float = 0.95) -> dict[str, Interval]:
    """Each metric with its interval. level: in (0, 1), or InputError is raised."""
    _require_level(level)
    result = {name: Interval(value) for name, value in found.values.items()}
    for name, each in found.drawn.items():
        result[name] = Interval(found.values[name], *_ends(each, level))
    return result


def differences_of(
    first: Resamples, second: Resamples, *, level: float = 0.95
) -> dict[str, Difference]:
    """Each metric of `first` less that of `second`, of the same rows, resamples and seed.

    The interval of a difference is narrower than two intervals side by side, because a hard row is
    hard for both. level: in (0, 1), or InputError is raised.
    """
    _require_level(level)
    result = {}
    for name in first.drawn:
        gap = first.drawn[name] - second.drawn[name]
        ends = _ends(gap, level)
        gap = gap[~np.isnan(gap)]
        ahead = -gap if name in LOWER_IS_BETTER else gap
        share = float(((ahead > 0) + 0.5 * (ahead == 0)).mean()) if gap.size else math.nan
        result[name] = Difference(first.values[name] - second.values[name], *ends, share)
    return result


def intervals(
    kind: TaskKind,
    targets: npt.ArrayLike,
    outputs: npt.ArrayLike,
    *,
    clusters: npt.ArrayLike | None = None,
    label_groups: Sequence[str] | None = None,
    resamples: int | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Each metric of `hyenadna.train.metrics.metrics` with its interval.

    level: in (0, 1). Other arguments and errors as for `resample`.
    """
    _require_level(level)
    found = resample(
        kind, targets, outputs, clusters=clusters, label_groups=label_groups, resamples=resamples,
        seed=seed,
    )  # fmt: skip
    return intervals_of(found, level=level)


def paired_differences(
    kind: TaskKind,
    targets: npt.ArrayLike,
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    *,
    clusters: npt.ArrayLike | None = None,
    label_groups: Sequence[str] | None = None,
    resamples: int | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Difference]:
    """Each metric of outputs `first` less that of `second`, on the same resamples of the same rows.

    Arguments and errors as for `intervals`; see `differences_of`.
    """
    _require_level(level)
    sides = [
        resample(
            kind, targets, outputs, clusters=clusters, label_groups=label_groups,
            resamples=resamples, seed=seed,
        )
        for outputs in (first, second)
    ]  # fmt: skip
    return differences_of(*sides, level=level)


def default_resamples(rows: int, outputs: int) -> int:
    """How many resamples are drawn when nobody says: 1,000, down to 100 for large sets."""
    return min(RESAMPLES, max(_FEWEST, _WORK // max(rows * outputs, 1)))


def _require_level(level: float) -> None:
    if not 0 < level < 1:
        raise InputError(f"intervals: level is {level}; it must be between 0 and 1, such as 0.95")


def _drawn(
    rows: Scored,
    count: int,
    clusters: npt.ArrayLike | None,
    label_groups: Sequence[str] | None,
    resamples: int | None,
    seed: int,
) -> dict[str, Floats]:
    """Each metric of each resample, (resamples,)."""
    if resamples is None:
        resamples = default_resamples(*rows.outputs.shape)
    if resamples < 2:
        raise InputError(f"intervals: resamples is {resamples}; it must be at least 2")
    sequence = _sequences(rows, count, clusters)
    sequences = int(sequence.max()) + 1
    measure = resampled_metrics(rows, sequence, sequences, label_groups=label_groups)
    random = np.random.default_rng(seed)
    block = _block(rows, sequences)
    parts = [
        measure(_weights(random, min(block, resamples - start), sequences))
        for start in range(0, resamples, block)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _block(rows: Scored, sequences: int) -> int:
    """How many resamples are measured at once."""
    if rows.kind == "labels":
        return max(1, _AT_ONCE_OF_LABELS // max(len(rows), sequences))
    return max(1, _AT_ONCE // max(len(rows), sequences, rows.outputs.shape[1] ** 2))


def _sequences(rows: Scored, count: int, clusters: npt.ArrayLike | None) -> npt.NDArray[np.int64]:
    """The sequence of each row that counts, numbered from 0 without gaps."""
    if clusters is None:
        return np.arange(len(rows))
    of = np.asarray(clusters)
    if of.shape != (count,):
        raise InputError(f"intervals: clusters have shape {of.shape}; {count} rows need ({count},)")
    return np.unique(of[rows.rows], return_inverse=True)[1].reshape(-1).astype(np.int64)


def _weights(random: np.random.Generator, count: int, sequences: int) -> Weights:
    """How often each sequence is drawn in each of `count` resamples, (sequences, count)."""
    weights = np.empty((sequences, count))
    for resample in range(count):
        drawn = random.integers(0, sequences, sequences)
        weights[:, resample] = np.bincount(drawn, minlength=sequences)
    return weights


def _ends(values: Floats, level: float) -> tuple[float, float]:
    """Percentiles of the resamples that define a metric; NaN where fewer than half do."""
    known = values[~np.isnan(values)]
    if 2 * known.size < values.size:
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
