"""How good outputs are over a whole set of sequences, by kind of task.

Every figure is of the whole set, never a mean over batches. What cannot be said of the rows at hand
(an AUROC where there is one class only, a correlation with a constant target) is NaN; what is left
out of a mean is counted. A prediction that is the same for every row says nothing, and scores so:
AUROC 0.5, MCC 0, correlation 0.

classes, tokens (one of C classes for each sequence, or each base that counts)
    accuracy           share of rows whose most probable class (the first of equals) is the true one
    balanced_accuracy  mean recall of the classes that occur among the targets
    mcc                Matthews correlation of any number of classes (Gorodkin 2004); 0 where either
                       side is constant
    f1_macro           mean F1 over the classes that occur among targets or predictions
    f1_weighted        the same, weighted by the number of targets
    f1_binary          two classes only: F1 of the second
    auroc              area under the ROC; two classes: of the second; more: mean of one against the
                       rest, over classes with rows on both sides
    auprc              average precision, sum of (R_k - R_k-1) P_k; classes as for auroc
    log_loss           mean of -ln of the true class's probability, nats; clipped at 2.2e-16
    brier              mean of the squared error of the probabilities: two classes: of the second
                       (0 to 1); more: summed over classes (0 to 2)
    ece                expected calibration error (Guo et al. 2017): |accuracy - confidence| over 15
                       bins of equal width of the largest probability, weighted by rows
labels (T yes/no labels each; a missing one is passed over)
    auroc, auprc       means over labels that have both answers; the others are left out of these
    auroc_median, auprc_median   medians over the same labels
    auroc_median_G, auprc_median_G   medians over the labels of group G, where groups are given
    f1                 mean F1 at probability 0.5, over the same labels
    log_loss, brier, ece   over all known (sequence, label) pairs; ece: the label's probability
                       against how often it is true, 15 bins
    labels_counted, labels_left_out   how many labels auroc is the mean of, and is not
values (T numbers each; a missing one is passed over)
    pearson, spearman, r2   means over targets that are not constant
    rmse, mae          means over targets that are known somewhere
    targets_counted, targets_left_out   how many targets pearson is the mean of, and is not
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn import metrics as sk

from hyenadna.errors import InputError
from hyenadna.task_kinds import TaskKind
from hyenadna.train.metrics_ranking import auprc, auroc, ranked
from hyenadna.train.scored import Scored, scored

Floats = npt.NDArray[np.float64]
Row = dict[str, str | float]

ECE_BINS: Final = 15
SMALLEST: Final = float(np.finfo(np.float64).eps)
"""Probabilities are clipped at this for a logarithm, as scikit-learn does."""
_COLUMNS_AT_ONCE: Final = 16  # labels lie side by side in memory: one at a time is slow to pick out
_CELLS_AT_ONCE: Final = 1 << 18
LOWER_IS_BETTER: Final = frozenset({"log_loss", "brier", "ece", "rmse", "mae"})
COUNTS: Final = frozenset(
    {"labels_counted", "labels_left_out", "targets_counted", "targets_left_out"}
)
"""Entries that say how many labels or targets a figure is of, not how good it is."""


class MainMetric(NamedTuple):
    """The metric by which models of a task are compared."""

    name: str
    higher_is_better: bool


def main_metric(kind: TaskKind) -> MainMetric:
    """The metric that chooses between models of a task.

    classes, tokens: mcc, which a majority class cannot lift and which the histone tasks of the
    field report; labels: auroc (mean: the median ignores what happens to half of the labels);
    values: pearson, as the regression suites report. Higher is better for each.
    """
    name = {"classes": "mcc", "tokens": "mcc", "labels": "auroc", "values": "pearson"}[kind]
    return MainMetric(name, name not in LOWER_IS_BETTER)


def is_better(name: str, new: float, old: float | None) -> bool:
    """Whether `new` is strictly better than `old`. NaN is worse than any number, None than all."""
    if math.isnan(new):
        return False
    if old is None or math.isnan(old):
        return True
    return new < old if name in LOWER_IS_BETTER else new > old


def metrics(
    kind: TaskKind,
    targets: npt.ArrayLike,
    outputs: npt.ArrayLike,
    *,
    label_groups: Sequence[str] | None = None,
) -> dict[str, float]:
    """Each metric of the task by name, as the head of this file defines them.

    kind, targets, outputs:
        classes: (n,) class numbers with -100 where missing, (n, C) probabilities;
        tokens: the same, for all bases that count, one after the other;
        labels: (n, T) of 0, 1 and NaN, (n, T) probabilities;
        values: (n, T) numbers with NaN where missing, (n, T) numbers.
    label_groups: for labels, the group of each (such as TF, DHS, HM), T names; "" for none.

    Raises InputError for arrays that do not fit, and where no row has a target.
    """
    return metrics_of(scored(kind, targets, outputs), label_groups=label_groups)


def metrics_of(rows: Scored, *, label_groups: Sequence[str] | None = None) -> dict[str, float]:
    """The same as `metrics`, for rows that are checked already."""
    if rows.kind == "values":
        return _values(rows)
    if rows.kind == "labels":
        return _labels(rows, label_groups)
    return _classes(rows)


def per_output(
    kind: TaskKind, targets: npt.ArrayLike, outputs: npt.ArrayLike, names: Sequence[str]
) -> list[Row]:
    """A row of figures for each class, label or target, with its name.

    classes, tokens: name, count, predicted, precision, recall, f1, auroc, auprc (each class against
    the rest); labels: name, known, positive, auroc, auprc, f1; values: name, known, pearson,
    spearman, r2, rmse, mae. names: one for each column of `outputs`.

    Raises InputError as `metrics` does, and for another number of names.
    """
    rows = scored(kind, targets, outputs)
    width = rows.outputs.shape[1]
    if len(names) != width:
        raise InputError(f"metrics: {len(names)} names for {width} outputs; give one for each")
    if rows.by_class:
        return _per_class(rows, names)
    return [
        {"name": name, "known": len(column.targets), **_per_column(rows.kind, column)}
        for name, column in zip(names, columns(rows), strict=True)
    ]


def per_group(label_groups: Sequence[str] | None, width: int) -> dict[str, npt.NDArray[np.bool_]]:
    """Which of `width` labels belong to each named group. Raises InputError for another number."""
    if label_groups is None:
        return {}
    if len(label_groups) != width:
        raise InputError(
            f"metrics: {len(label_groups)} label groups for {width} labels; give one for each"
        )
    of = np.asarray(label_groups, dtype=np.str_)
    return {str(group): of == group for group in dict.fromkeys(label_groups) if group}


def mean(values: npt.ArrayLike) -> float:
    """Mean of the values that are not NaN; NaN where there is none."""
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if known.size else math.nan


def median(values: npt.ArrayLike) -> float:
    """Median of the values that are not NaN; NaN where there is none."""
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    return float(np.median(known)) if known.size else math.nan


def confidence_bins(confidence: Floats) -> npt.NDArray[np.int64]:
    """The bin of each probability, 0 .. 14: (0, 1/15], (1/15, 2/15], …; the first holds 0 too."""
    return np.clip(np.ceil(confidence * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)


def calibration_error(hits: npt.NDArray[Any], confidence: Floats) -> float:
    """Expected calibration error: sum over bins of |sum of hits - sum of confidence| / n."""
    gaps = np.bincount(confidence_bins(confidence), weights=hits - confidence)
    return float(abs(gaps).sum() / len(confidence))


def normalised(probabilities: Floats) -> Floats:
    """Rows that sum to 1 exactly enough for a logarithm (they come from float32)."""
    return probabilities / probabilities.sum(1, keepdims=True)


def scored_classes(classes: int) -> Sequence[int]:
    """The classes whose ranking counts: the second of two, each of more."""
    return (1,) if classes == 2 else range(classes)


def _classes(rows: Scored) -> dict[str, float]:
    true, raw = rows.targets, rows.outputs
    classes = raw.shape[1]
    probability = normalised(raw)
    top = raw.argmax(1)
    f1 = {"zero_division": 0}
    result = {
        "accuracy": sk.accuracy_score(true, top),
        "balanced_accuracy": sk.recall_score(
            true, top, labels=np.unique(true), average="macro", zero_division=0
        ),
        "mcc": _mcc(true, top),
        "f1_macro": sk.f1_score(true, top, average="macro", **f1),
        "f1_weighted": sk.f1_score(true, top, average="weighted", **f1),
    }
    if classes == 2:
        result["f1_binary"] = sk.f1_score(true, top, labels=[1], average="macro", **f1)
    against = [(true == c, raw[:, c]) for c in scored_classes(classes)]
    result["auroc"] = mean([auroc(*pair) for pair in against])
    result["auprc"] = mean([auprc(*pair) for pair in against])
    result["log_loss"] = sk.log_loss(true, probability, labels=np.arange(classes))
    result["brier"] = brier_rows(true, probability).mean()
    result["ece"] = calibration_error(top == true, probability.max(1))
    return {name: float(value) for name, value in result.items()}


def _mcc(true: npt.NDArray[np.int64], top: npt.NDArray[np.int64]) -> float:
    if np.ptp(true) == 0 or np.ptp(top) == 0:
        return 0.0  # scikit-learn says the same, with a warning
    return float(sk.matthews_corrcoef(true, top))


def brier_rows(true: npt.NDArray[np.int64], probability: Floats) -> Floats:
    """Squared error of the probabilities of each row: two classes: of the second; more: summed."""
    if probability.shape[1] == 2:
        return (probability[:, 1] - true) ** 2
    error = probability.copy()
    error[np.arange(len(true)), true] -= 1
    return (error**2).sum(1)


def _per_class(rows: Scored, names: Sequence[str]) -> list[Row]:
    true, top = rows.targets, rows.outputs.argmax(1)
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        true, top, labels=np.arange(len(names)), average=None, zero_division=0
    )
    return [
        {
            "name": name,
            "count": int(support[c]),
            "predicted": int((top == c).sum()),
            "precision": float(precision[c]),
            "recall": float(recall[c]),
            "f1": float(f1[c]),
            "auroc": auroc(true == c, rows.outputs[:, c]),
            "auprc": auprc(true == c, rows.outputs[:, c]),
        }
        for c, name in enumerate(names)
    ]


class Column(NamedTuple):
    """One label or target, without the rows where it is missing."""

    targets: npt.NDArray[Any]
    outputs: npt.NDArray[Any]
    known: npt.NDArray[np.bool_] | slice
    """Which rows these are: an index for arrays of all rows."""


def columns(rows: Scored) -> Iterator[Column]:
    """Each label or target, in order."""
    for start in range(0, rows.outputs.shape[1], _COLUMNS_AT_ONCE):
        block = slice(start, start + _COLUMNS_AT_ONCE)
        together = (np.ascontiguousarray(a[:, block].T) for a in (rows.targets, rows.outputs))
        for true, predicted in zip(*together, strict=True):
            known = ~np.isnan(true)
            if known.all():
                yield Column(true, predicted, slice(None))
            else:
                yield Column(true[known], predicted[known], known)


def _per_column(kind: TaskKind, column: Column) -> dict[str, float]:
    true, predicted, _ = column
    if kind == "labels":
        yes = true == 1
        return {"positive": int(np.count_nonzero(yes)), **ranked(yes, predicted)._asdict()}
    return {
        "pearson": pearson(true, predicted),
        "spearman": spearman(true, predicted),
        "r2": r2(true, predicted),
        "rmse": float(sk.mean_squared_error(true, predicted) ** 0.5) if len(true) else math.nan,
        "mae": float(sk.mean_absolute_error(true, predicted)) if len(true) else math.nan,
    }


def _labels(rows: Scored, label_groups: Sequence[str] | None) -> dict[str, float]:
    groups = per_group(label_groups, rows.outputs.shape[1])
    each = np.array([ranked(c.targets == 1, c.outputs) for c in columns(rows)])
    areas = dict(zip(("auroc", "auprc"), each.T[:2], strict=True))
    result = {name: mean(values) for name, values in areas.items()}
    result |= {f"{name}_median": median(values) for name, values in areas.items()}
    for group, members in groups.items():
        for name, values in areas.items():
            result[f"{name}_median_{group}"] = median(values[members])
    result["f1"] = mean(each[:, 2])
    count, loss, error, *gaps = label_sums(rows).sum(0)
    result["log_loss"], result["brier"] = float(loss / count), float(error / count)
    result["ece"] = float(abs(np.array(gaps)).sum() / count)
    return result | _left_out("labels", areas["auroc"])


def label_sums(rows: Scored) -> Floats:
    """Sums over the known labels of each row, (n, 18), for figures that are means over all pairs.

    1, the loss, the squared error, and true - probability in each of the calibration bins.
    """
    width = rows.outputs.shape[1]
    found = np.zeros((len(rows), 3 + ECE_BINS))
    at_once = max(1, _CELLS_AT_ONCE // width)
    for start in range(0, len(rows), at_once):
        block = slice(start, start + at_once)
        true = rows.targets[block].astype(np.float64)
        probability = np.minimum(rows.outputs[block].astype(np.float64), 1.0)
        known = ~np.isnan(true)
        chosen = np.where(true == 1, probability, 1 - probability)
        loss = -np.log(np.clip(chosen, SMALLEST, 1 - SMALLEST))
        gap = np.where(known, true - probability, 0.0)
        place = np.arange(len(true))[:, None] * ECE_BINS + confidence_bins(probability)
        gaps = np.bincount(place.ravel(), gap.ravel(), minlength=len(true) * ECE_BINS)
        found[block, 0] = known.sum(1)
        found[block, 1] = (loss * known).sum(1)
        found[block, 2] = (gap**2).sum(1)
        found[block, 3:] = gaps.reshape(-1, ECE_BINS)
    return found


def _values(rows: Scored) -> dict[str, float]:
    each = [_per_column("values", column) for column in columns(rows)]
    result = {name: mean([row[name] for row in each]) for name in each[0]}
    return result | _left_out("targets", np.array([row["pearson"] for row in each]))


def _left_out(what: str, values: Floats) -> dict[str, float]:
    left_out = int(np.isnan(values).sum())
    return {f"{what}_counted": float(len(values) - left_out), f"{what}_left_out": float(left_out)}


def pearson(true: Floats, predicted: Floats) -> float:
    """Pearson correlation; NaN for a constant target, 0 for a constant prediction of another."""
    return _correlation(stats.pearsonr, true, predicted)


def spearman(true: Floats, predicted: Floats) -> float:
    """Pearson correlation of the ranks, ties at their mean; constants as for `pearson`."""
    return _correlation(stats.spearmanr, true, predicted)


def _correlation(measure: Callable[..., Any], true: Floats, predicted: Floats) -> float:
    if len(true) < 2 or np.ptp(true) == 0:
        return math.nan
    return 0.0 if np.ptp(predicted) == 0 else float(measure(true, predicted).statistic)


def r2(true: Floats, predicted: Floats) -> float:
    """1 - squared error / variance of the target; NaN for a constant target; may be negative."""
    if len(true) < 2 or np.ptp(true) == 0:
        return math.nan
    return float(sk.r2_score(true, predicted))
