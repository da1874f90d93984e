"""The metrics of many resamples of the same rows at once, for bootstrap intervals.

A resample is a weight for each sequence: how often it was drawn. Everything that does not depend on
the weights (orders, ties, bins) is worked out once for a block of resamples; then each metric is a
few array operations on the block. The values are those of `hyenadna.train.metrics` on the rows
drawn, and a test compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import sparse

from hyenadna.train.metrics import (
    ECE_BINS,
    SMALLEST,
    Floats,
    brier_rows,
    columns,
    confidence_bins,
    label_sums,
    normalised,
    per_group,
    scored_classes,
)
from hyenadna.train.metrics_ranking import HALF, Scores
from hyenadna.train.scored import Scored

Weights = Floats
"""How often each of U sequences was drawn in each of B resamples, (U, B). With the resamples side
by side, picking and adding up sequences goes through memory in order."""
Resampled = Callable[[Weights], dict[str, Floats]]
"""Weights -> each metric by name, (B,), NaN where it is undefined."""

Varies = tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]
"""Whether target and prediction have two values or more in each resample, (B,) both."""

_EXACT_IN_FLOAT32: Final = 1 << 24
"""Whole numbers up to this have a float32 each, and so have their sums."""


def resampled_metrics(
    rows: Scored,
    sequence: npt.NDArray[np.int64],
    sequences: int,
    *,
    label_groups: Sequence[str] | None = None,
) -> Resampled:
    """A function from weights of the sequences to the metrics of the rows so drawn.

    sequence: the sequence that each row belongs to, 0 .. sequences - 1, (n,).
    """
    if rows.kind == "values":
        return _values(rows, sequence)
    if rows.kind == "labels":
        return _labels(rows, sequence, sequences, label_groups)
    return _classes(rows, sequence, sequences)


def _classes(rows: Scored, sequence: npt.NDArray[np.int64], sequences: int) -> Resampled:
    true, raw = rows.targets, rows.outputs
    classes = raw.shape[1]
    probability = normalised(raw)
    top, confidence = raw.argmax(1), probability.max(1)
    chosen = probability[np.arange(len(true)), true]

    def table(column: Any, value: Any, width: int) -> sparse.csr_array:
        """Sums over the rows of each sequence, (sequences, width)."""
        columns = np.broadcast_to(np.asarray(column), true.shape)
        values = np.broadcast_to(np.asarray(value, dtype=np.float64), true.shape)
        return sparse.csr_array((values, (sequence, columns)), shape=(sequences, width))

    pairs = table(true * classes + top, 1.0, classes**2)
    gaps = table(confidence_bins(confidence), (top == true) - confidence, ECE_BINS)
    losses = table(0, -np.log(np.clip(chosen, SMALLEST, 1 - SMALLEST)), 1)
    errors = table(0, brier_rows(true, probability), 1)
    rankings = [Ranking(true == c, raw[:, c], sequence) for c in scored_classes(classes)]

    def measure(weights: Weights) -> dict[str, Floats]:
        counts = _sums(weights, pairs).reshape(-1, classes, classes)
        total = counts.sum((1, 2))
        result = confusion_metrics(counts)
        ranked = [ranking.measure(weights) for ranking in rankings]
        for name in ("auroc", "auprc"):
            result[name] = _mean(np.stack([each[name] for each in ranked], 1))
        result["log_loss"] = _sums(weights, losses)[:, 0] / total
        result["brier"] = _sums(weights, errors)[:, 0] / total
        result["ece"] = abs(_sums(weights, gaps)).sum(1) / total
        return result

    return measure


def _sums(weights: Weights, table: sparse.csr_array) -> Floats:
    """(U, B) and (U, K) -> (B, K)."""
    return np.asarray((table.T @ weights).T)


def confusion_metrics(counts: Floats) -> dict[str, Floats]:
    """Metrics of B confusion matrices (B, C, C), rows true, columns predicted."""
    hits = np.diagonal(counts, axis1=1, axis2=2)
    total, true, predicted = counts.sum((1, 2)), counts.sum(2), counts.sum(1)
    occurs = true + predicted > 0
    recall = np.where(true > 0, hits / np.maximum(true, 1), np.nan)
    f1 = np.where(occurs, 2 * hits / np.maximum(true + predicted, 1), np.nan)
    agree = hits.sum(1) * total - (true * predicted).sum(1)
    spread = (total**2 - (predicted**2).sum(1)) * (total**2 - (true**2).sum(1))
    result = {
        "accuracy": hits.sum(1) / total,
        "balanced_accuracy": _mean(recall),
        "mcc": np.where(spread > 0, agree / np.sqrt(np.maximum(spread, 1)), 0.0),
        "f1_macro": _mean(f1),
        "f1_weighted": (np.nan_to_num(f1) * true).sum(1) / total,
    }
    if counts.shape[1] == 2:
        result["f1_binary"] = np.nan_to_num(f1[:, 1])
    return result


class Ranking:
    """One yes/no answer with its scores: areas under the curves, and F1, of any resample.

    The scores of the yes rows (and 0.5) cut the scale; a row lies at a cut or between two. With
    the weight of each such place, a resample is measured from sums along the scale: nothing is
    sorted again, and only as many places as there are yes rows are gone through.
    """

    def __init__(
        self, true: npt.NDArray[np.bool_], score: Scores, sequence: npt.NDArray[np.int64]
    ) -> None:
        half = score.dtype.type(HALF)
        cuts = np.unique(np.append(score[true], half))
        self._cuts, self._half = len(cuts), int(np.searchsorted(cuts, half))
        # no rows: place 0 .. 2K, odd ones at a cut; yes rows, which are all at cuts: behind these
        place = _places(score, cuts)
        place[true] = 2 * len(cuts) + 1 + place[true] // 2
        by_sequence = np.argsort(sequence, kind="stable")
        self._place = place[by_sequence]
        self._ends = np.append(0, np.cumsum(np.bincount(sequence))).astype(np.int32)

    def measure(self, weights: npt.NDArray[np.floating[Any]]) -> dict[str, Floats]:
        """auroc, auprc and f1 (at a score of 0.5), (B,) each; NaN where one answer is lacking."""
        shape = (3 * self._cuts + 1, len(self._ends) - 1)
        ones = np.ones(len(self._place), dtype=weights.dtype)
        table = sparse.csc_array((ones, self._place, self._ends), shape=shape)
        at_place = table @ weights[: shape[1]]
        between, tied = at_place[: 2 * self._cuts : 2], at_place[1 : 2 * self._cuts : 2]
        above_all = at_place[2 * self._cuts]
        yes = at_place[2 * self._cuts + 1 :].astype(np.float64)
        yes_up_to = np.cumsum(yes, axis=0)
        no_up_to = np.cumsum(between + tied, axis=0, dtype=np.float64)
        positives, negatives = yes_up_to[-1], no_up_to[-1] + above_all
        # at each cut: how many are found at its score and above, and how many of them wrongly
        found = positives - yes_up_to + yes
        alarms = negatives - no_up_to + tied
        hits, half_alarms = found[self._half].copy(), alarms[self._half].copy()
        precision = np.divide(found, np.maximum(alarms + found, 1, out=alarms), out=found)
        in_order = np.subtract(no_up_to, 0.5 * tied, out=no_up_to)
        both = (positives > 0) & (negatives > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            values = {
                "auroc": np.einsum("kb,kb->b", yes, in_order) / (positives * negatives),
                "auprc": np.einsum("kb,kb->b", yes, precision) / positives,
                "f1": 2 * hits / (hits + half_alarms + positives),
            }
        return {name: np.where(both, value, np.nan) for name, value in values.items()}


def _places(score: Scores, cuts: Scores) -> npt.NDArray[np.int32]:
    """Where each score lies among rising cuts: 2k below cut k and above the one before, 2k + 1 at.

    The scores are sorted for it: looking up each of them costs five times as much.
    """
    order = np.argsort(score)
    ordered = score[order]
    ends = [np.searchsorted(ordered, cuts, side=side) for side in ("left", "right")]
    counts = np.diff(np.stack(ends, 1).ravel(), prepend=0, append=len(score))
    place = np.empty(len(score), dtype=np.int32)
    place[order] = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return place


def _running(values: Weights) -> Floats:
    """(n, B) -> (n + 1, B): sums of the first 0, 1, … n values."""
    sums = np.zeros((len(values) + 1, values.shape[1]))
    np.cumsum(values, axis=0, out=sums[1:])
    return sums


def _mean(values: Floats) -> Floats:
    """(B, K) -> (B,): mean of those that are not NaN; NaN where there is none."""
    known = ~np.isnan(values)
    count = known.sum(1)
    total = np.where(known, values, 0.0).sum(1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _median(values: Floats) -> Floats:
    """(B, K) -> (B,): median of those that are not NaN; NaN where there is none."""
    some = ~np.isnan(values).all(1)
    result = np.full(len(values), np.nan)
    if some.any():
        result[some] = np.nanmedian(values[some], axis=1)
    return result


def _labels(
    rows: Scored,
    sequence: npt.NDArray[np.int64],
    sequences: int,
    label_groups: Sequence[str] | None,
) -> Resampled:
    groups = per_group(label_groups, rows.outputs.shape[1])
    sums = np.zeros((sequences, 3 + ECE_BINS))
    np.add.at(sums, sequence, label_sums(rows))
    of_one = int(np.bincount(sequence).max())  # rows that one sequence may have

    def measure(weights: Weights) -> dict[str, Floats]:
        count, loss, error, *gaps = sums.T @ weights
        most = of_one * float(weights.sum(0).max())
        small = weights.astype(np.float32) if most < _EXACT_IN_FLOAT32 else weights
        # A label at a time: the places of all rows for all of hundreds would fill the memory.
        ranked = [
            Ranking(c.targets == 1, c.outputs, sequence[c.known]).measure(small)
            for c in columns(rows)
        ]
        each = {name: np.stack([part[name] for part in ranked], 1) for name in ranked[0]}
        result = {name: _mean(values) for name, values in each.items()}
        result |= {f"{name}_median": _median(each[name]) for name in ("auroc", "auprc")}
        for group, members in groups.items():
            for name in ("auroc", "auprc"):
                result[f"{name}_median_{group}"] = _median(each[name][:, members])
        with np.errstate(invalid="ignore", divide="ignore"):
            result["log_loss"], result["brier"] = loss / count, error / count
            result["ece"] = abs(np.stack(gaps)).sum(0) / count
        return result

    return measure


def _values(rows: Scored, sequence: npt.NDArray[np.int64]) -> Resampled:
    targets = [
        _Target(c.targets, c.outputs, sequence[c.known]) for c in columns(rows) if len(c.targets)
    ]

    def measure(weights: Weights) -> dict[str, Floats]:
        parts = [target.measure(weights) for target in targets]
        return {name: _mean(np.stack([part[name] for part in parts], 1)) for name in parts[0]}

    return measure


class _Target:
    """One number to predict."""

    def __init__(self, true: Floats, predicted: Floats, sequence: npt.NDArray[np.int64]) -> None:
        self._sequence = sequence
        self._ranks = _Ranks(true), _Ranks(predicted)
        error = predicted - true
        # Centred and scaled, so that sums of squares keep their digits.
        (x, self._scale), (y, _) = _standard(true), _standard(predicted)
        moments = [np.ones(len(x)), x, y, x * x, y * y, x * y]
        self._of_row = np.column_stack([*moments, error**2, abs(error)])

    def measure(self, weights: Weights) -> dict[str, Floats]:
        drawn = weights[self._sequence]
        total, x, y, xx, yy, xy, squared, absolute = self._of_row.T @ drawn
        some = np.maximum(total, 1)
        varies = self._ranks[0].varies(drawn), self._ranks[1].varies(drawn)
        variance = np.maximum(xx - x * x / some, 0) * self._scale**2
        with np.errstate(invalid="ignore", divide="ignore"):
            r2 = np.where(varies[0], 1 - squared / variance, np.nan)
            rmse = np.where(total > 0, np.sqrt(squared / some), np.nan)
            mae = np.where(total > 0, absolute / some, np.nan)
        return {
            "pearson": _correlation([total, x, y, xx, yy, xy], varies),
            "spearman": self._spearman(drawn, total, varies),
            "r2": r2,
            "rmse": rmse,
            "mae": mae,
        }

    def _spearman(self, drawn: Floats, total: Floats, varies: Varies) -> Floats:
        x, y = (ranks.of(drawn) - 0.5 * (total + 1) for ranks in self._ranks)
        sums = [(drawn * v).sum(0) for v in (x, y, x * x, y * y, x * y)]
        return _correlation([total, *sums], varies)


def _standard(values: Floats) -> tuple[Floats, float]:
    centred = values - values.mean()
    scale = float(abs(centred).max()) or 1.0
    return centred / scale, scale


def _correlation(sums: Sequence[Floats], varies: Varies) -> Floats:
    """Correlation from weighted sums of 1, x, y, x², y², xy, each (B,).

    NaN for a constant target, 0 for a constant prediction of another.
    """
    total, x, y, xx, yy, xy = sums
    some = np.maximum(total, 1)
    together = xy - x * y / some
    apart = np.maximum(xx - x * x / some, 0) * np.maximum(yy - y * y / some, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.clip(together / np.sqrt(apart), -1, 1)
    return np.where(varies[0], np.where(varies[1], value, 0.0), np.nan)


class _Ranks:
    """The ranks of values among the rows of a resample, ties at their mean."""

    def __init__(self, values: Floats) -> None:
        self._order = np.argsort(values, kind="stable")
        ordered = values[self._order]
        self._start = np.searchsorted(ordered, values, side="left")
        self._stop = np.searchsorted(ordered, values, side="right")

    def of(self, drawn: Floats) -> Floats:
        """Ranks from 1, of every row as if it were drawn, (n, B)."""
        before = _running(drawn[self._order])
        return 0.5 * (before[self._start] + before[self._stop]) + 0.5

    def varies(self, drawn: Floats) -> npt.NDArray[np.bool_]:
        """Whether the rows drawn have two values or more, (B,)."""
        there = drawn > 0
        first = np.where(there, self._start[:, None], len(self._start)).min(0)
        last = np.where(there, self._start[:, None], -1).max(0)
        return first < last
