"""Points of the pictures of a classifier: ROC, precision-recall, calibration, confusion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn import metrics as sk

from hyenadna.train.metrics import ECE_BINS, Floats, columns, confidence_bins, normalised
from hyenadna.train.metrics_ranking import auprc, auroc
from hyenadna.train.scored import Scored

_POINTS: Final = 400  # a curve is drawn the same with these; a million points make a slow page


@dataclass(frozen=True, eq=False)
class Curve:
    """A curve of one class or label: (x, y), and the metric that goes with it."""

    name: str
    x: Floats
    y: Floats
    area: float
    positive: float
    """Share of rows that are of the class: the precision of a guess."""


@dataclass(frozen=True, eq=False)
class Reliability:
    """What was promised and what came true, in bins of equal width of the promise."""

    promised: Floats
    """Mean probability of each bin that holds a row."""
    observed: Floats
    """Share that came true."""
    count: npt.NDArray[np.int64]
    error: float
    """Expected calibration error."""


def confusion(rows: Scored) -> npt.NDArray[np.int64]:
    """Counts (C, C): rows true, columns predicted."""
    classes = np.arange(rows.outputs.shape[1])
    return sk.confusion_matrix(rows.targets, rows.outputs.argmax(1), labels=classes)


def roc(rows: Scored, column: int, name: str) -> Curve:
    """False positive rate (x) against true positive rate (y) of one class or label.

    Without points where only one answer occurs.
    """
    true, score = one_column(rows, column)
    if not _has_both(true):
        return _nothing(name, true)
    false_rate, true_rate, _ = sk.roc_curve(true, score)
    return Curve(name, *_thin(false_rate, true_rate), auroc(true, score), float(true.mean()))


def precision_recall(rows: Scored, column: int, name: str) -> Curve:
    """Recall (x, rising) against precision (y) of one class or label.

    Without points where only one answer occurs. The area is the average precision: that of steps
    which hold the precision of their right end.
    """
    true, score = one_column(rows, column)
    if not _has_both(true):
        return _nothing(name, true)
    precision, recall, _ = sk.precision_recall_curve(true, score)
    # From the most certain row on; the point (0, 1) that scikit-learn adds is none of the data.
    x, y = recall[-2::-1], precision[-2::-1]
    reached = int(np.argmax(x == 1)) + 1  # beyond full recall there are only lower thresholds
    return Curve(name, *_thin(x[:reached], y[:reached]), auprc(true, score), float(true.mean()))


def one_column(rows: Scored, column: int) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Whether the class or label is true, and its output, for rows where that is known."""
    if rows.by_class:
        return rows.targets == column, rows.outputs[:, column]
    true = rows.targets[:, column]
    known = ~np.isnan(true)
    return true[known] == 1, rows.outputs[known, column]


def reliability(rows: Scored) -> Reliability:
    """Calibration in 15 bins: of the most probable class's probability, or of all labels'."""
    count = np.zeros(ECE_BINS, dtype=np.int64)
    promised, observed = np.zeros(ECE_BINS), np.zeros(ECE_BINS)
    for promise, truth in _promises(rows):
        bins = confidence_bins(promise)
        count += np.bincount(bins, minlength=ECE_BINS)
        promised += np.bincount(bins, weights=promise, minlength=ECE_BINS)
        observed += np.bincount(bins, weights=truth, minlength=ECE_BINS)
    error = float(abs(observed - promised).sum() / count.sum())
    there = count > 0
    count, promised, observed = count[there], promised[there], observed[there]
    return Reliability(promised / count, observed / count, count, error)


def _promises(rows: Scored) -> Iterator[tuple[Floats, Floats]]:
    """Probabilities and what came true, each (m,), one label at a time where there are several."""
    if rows.by_class:
        hits = rows.outputs.argmax(1) == rows.targets
        yield normalised(rows.outputs).max(1), hits.astype(np.float64)
        return
    for column in columns(rows):
        yield np.minimum(column.outputs.astype(np.float64), 1.0), column.targets.astype(np.float64)


def _has_both(true: npt.NDArray[np.bool_]) -> bool:
    return bool(true.any() and not true.all())


def _nothing(name: str, true: npt.NDArray[np.bool_]) -> Curve:
    share = float(true.mean()) if len(true) else float("nan")
    return Curve(name, np.empty(0), np.empty(0), float("nan"), share)


def _thin(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """At most `_POINTS` points, evenly along the curve, with both ends."""
    if len(x) <= _POINTS:
        return x, y
    along = np.concatenate([[0.0], np.cumsum(abs(np.diff(x)) + abs(np.diff(y)))])
    keep = np.searchsorted(along, np.linspace(0, along[-1], _POINTS - 2))
    keep = np.unique(np.concatenate([[0], keep, [len(x) - 1]]))
    return x[keep], y[keep]
