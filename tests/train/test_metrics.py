"""Metrics equal scikit-learn and scipy on the same arrays; resamples equal the rows drawn."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from hyenadna.alphabet import IGNORED
from hyenadna.errors import InputError
from hyenadna.train.bootstrap import default_resamples, intervals, paired_differences
from hyenadna.train.curves import confusion, precision_recall, reliability, roc
from hyenadna.train.metrics import (
    COUNTS,
    LOWER_IS_BETTER,
    is_better,
    main_metric,
    metrics,
    per_output,
)
from hyenadna.train.metrics_resampled import resampled_metrics
from hyenadna.train.scored import scored


@pytest.fixture(autouse=True)
def no_warnings():
    """A warning of a library means that a case was not thought of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def softmax(scores: np.ndarray) -> np.ndarray:
    values = np.exp(scores - scores.max(1, keepdims=True))
    return values / values.sum(1, keepdims=True)


def class_rows(rows: int, classes: int, *, seed: int = 0, ties: bool = False):
    random = np.random.default_rng(seed)
    targets = random.integers(0, classes, rows)
    outputs = softmax(random.normal(size=(rows, classes)) + 1.2 * np.eye(classes)[targets])
    if ties:
        outputs = np.round(outputs, 1) + 1e-3
        outputs /= outputs.sum(1, keepdims=True)
    return targets, outputs


def label_rows(rows: int, labels: int, *, seed: int = 0):
    """Ties, missing values, one label that is never true and one that is never known."""
    random = np.random.default_rng(seed)
    targets = (random.random((rows, labels)) < 0.3).astype(np.float32)
    outputs = np.round(0.6 * random.random(targets.shape) + 0.3 * targets, 1)
    targets[random.random(targets.shape) < 0.2] = np.nan
    targets[:, 0] = 0
    targets[:, 1] = np.nan
    return targets, outputs


def value_rows(rows: int, columns: int, *, seed: int = 0):
    """Ties, missing values, a constant target, a constant prediction, and a large offset."""
    random = np.random.default_rng(seed)
    targets = np.round(random.normal(size=(rows, columns)), 1) + 100
    outputs = targets + np.round(random.normal(size=targets.shape), 1)
    targets[random.random(targets.shape) < 0.2] = np.nan
    targets[:, 0] = 3
    outputs[:, 1] = 0.1
    return targets, outputs


# --- point values


@pytest.mark.parametrize("ties", [False, True])
def test_two_classes_equal_scikit_learn(ties):
    true, outputs = class_rows(200, 2, ties=ties)
    top, second = outputs.argmax(1), outputs[:, 1]
    assert metrics("classes", true, outputs) == pytest.approx(
        {
            "accuracy": sk.accuracy_score(true, top),
            "balanced_accuracy": sk.balanced_accuracy_score(true, top),
            "mcc": sk.matthews_corrcoef(true, top),
            "f1_macro": sk.f1_score(true, top, average="macro"),
            "f1_weighted": sk.f1_score(true, top, average="weighted"),
            "f1_binary": sk.f1_score(true, top),
            "auroc": sk.roc_auc_score(true, second),
            "auprc": sk.average_precision_score(true, second),
            "log_loss": sk.log_loss(true, outputs),
            "brier": sk.brier_score_loss(true, second),
            "ece": slow_calibration_error(top == true, outputs.max(1)),
        },
        rel=1e-12,
    )


def test_more_classes_equal_scikit_learn():
    true, outputs = class_rows(300, 4)
    top, one_hot = outputs.argmax(1), np.eye(4)[true]
    found = metrics("tokens", true, outputs)
    assert found == metrics("classes", true, outputs)
    assert found == pytest.approx(
        {
            "accuracy": sk.accuracy_score(true, top),
            "balanced_accuracy": sk.balanced_accuracy_score(true, top),
            "mcc": sk.matthews_corrcoef(true, top),
            "f1_macro": sk.f1_score(true, top, average="macro"),
            "f1_weighted": sk.f1_score(true, top, average="weighted"),
            "auroc": sk.roc_auc_score(true, outputs, multi_class="ovr"),
            "auprc": sk.average_precision_score(one_hot, outputs, average="macro"),
            "log_loss": sk.log_loss(true, outputs),
            "brier": ((outputs - one_hot) ** 2).sum(1).mean(),
            "ece": slow_calibration_error(top == true, outputs.max(1)),
        },
        rel=1e-12,
    )


def slow_calibration_error(hits, confidence, bins=15):
    """Bin by bin, as the paper writes it."""
    total = 0.0
    for index in range(bins):
        inside = (confidence > index / bins) & (confidence <= (index + 1) / bins)
        if inside.any():
            gap = abs(hits[inside].mean() - confidence[inside].mean())
            total += inside.mean() * gap
    return total


def test_calibration_error_by_hand():
    # Bins (0.6, 0.667] and (0.867, 0.933]: |1/2 - 0.65| * 2/4 + |1 - 0.9| * 2/4
    outputs = np.array([[0.35, 0.65], [0.65, 0.35], [0.9, 0.1], [0.1, 0.9]])
    assert metrics("classes", [1, 1, 0, 1], outputs)["ece"] == pytest.approx(0.125)


def test_float32_probabilities_do_not_warn_and_missing_rows_do_not_count():
    true, outputs = class_rows(100, 3)
    more = np.concatenate([true, [IGNORED, IGNORED]])
    padded = np.concatenate([outputs, outputs[:2]]).astype(np.float32)
    found, want = metrics("classes", more, padded), metrics("classes", true, outputs)
    assert found == pytest.approx(want, rel=1e-5)


def test_one_class_only():
    found = metrics("classes", [0, 0, 0], [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["balanced_accuracy"] == pytest.approx(2 / 3)
    assert found["mcc"] == 0
    assert found["f1_binary"] == 0
    assert math.isnan(found["auroc"]) and math.isnan(found["auprc"])
    assert found["log_loss"] == pytest.approx(-np.log([0.9, 0.6, 0.2]).mean())
    perfect = metrics("classes", [1, 1], [[0.1, 0.9], [0.2, 0.8]])
    assert perfect["accuracy"] == 1 and perfect["mcc"] == 0


def test_constant_prediction_says_nothing():
    true = np.array([0, 1, 1, 0, 1])
    found = metrics("classes", true, np.full((5, 2), 0.5))
    assert found["mcc"] == 0 and found["auroc"] == 0.5
    assert found["auprc"] == pytest.approx(0.6)
    assert found["accuracy"] == pytest.approx(0.4)  # the first of equals is taken


def test_class_that_never_occurs():
    true, outputs = class_rows(60, 3)
    wider = np.column_stack([outputs, np.zeros(60)])
    assert metrics("classes", true, wider) == pytest.approx(metrics("classes", true, outputs))


def test_certain_and_wrong_is_clipped():
    assert metrics("classes", [1, 0], [[1.0, 0.0], [1.0, 0.0]])["log_loss"] == pytest.approx(
        -np.log(np.finfo(float).eps) / 2
    )


def test_labels_equal_scikit_learn_and_are_masked():
    true, outputs = label_rows(80, 6)
    groups = ["TF", "TF", "TF", "DHS", "DHS", ""]
    found = metrics("labels", true, outputs, label_groups=groups)
    known = ~np.isnan(true)
    auroc, auprc, f1 = [], [], []
    for column in range(2, 6):  # the first two have one answer, and none
        rows = known[:, column]
        answer, score = true[rows, column].astype(int), outputs[rows, column]
        auroc.append(sk.roc_auc_score(answer, score))
        auprc.append(sk.average_precision_score(answer, score))
        f1.append(sk.f1_score(answer, score >= 0.5))
    answer, score = true[known].astype(int), outputs[known]
    want = {
        "auroc": np.mean(auroc),
        "auprc": np.mean(auprc),
        "auroc_median": np.median(auroc),
        "auprc_median": np.median(auprc),
        "auroc_median_TF": auroc[0],
        "auprc_median_TF": auprc[0],
        "auroc_median_DHS": np.median(auroc[1:3]),
        "auprc_median_DHS": np.median(auprc[1:3]),
        "f1": np.mean(f1),
        "log_loss": sk.log_loss(answer, score),
        "brier": sk.brier_score_loss(answer, score),
        "ece": slow_calibration_error(answer, np.maximum(score, 1e-12)),
        "labels_counted": 4,
        "labels_left_out": 2,
    }
    assert found == pytest.approx(want, rel=1e-9)


def test_labels_without_any_ranking():
    found = metrics("labels", [[1.0], [1.0]], [[0.5], [0.7]])
    assert math.isnan(found["auroc"]) and found["labels_left_out"] == 1
    assert found["log_loss"] == pytest.approx(-np.log([0.5, 0.7]).mean())


def test_values_equal_scipy_and_scikit_learn():
    true, outputs = value_rows(60, 4)
    found = metrics("values", true, outputs)
    by_name: dict[str, list[float]] = {n: [] for n in ("pearson", "spearman", "r2", "rmse", "mae")}
    for column in range(4):
        rows = ~np.isnan(true[:, column])
        x, y = true[rows, column], outputs[rows, column]
        by_name["rmse"].append(sk.root_mean_squared_error(x, y))
        by_name["mae"].append(sk.mean_absolute_error(x, y))
        if column == 0:  # a constant target is left out
            continue
        by_name["r2"].append(sk.r2_score(x, y))
        # scipy has no answer for a constant prediction; here it is 0
        by_name["pearson"].append(0 if column == 1 else stats.pearsonr(x, y).statistic)
        by_name["spearman"].append(0 if column == 1 else stats.spearmanr(x, y).statistic)
    want = {name: np.mean(values) for name, values in by_name.items()}
    assert found == pytest.approx(want | {"targets_counted": 3, "targets_left_out": 1}, rel=1e-12)


def test_values_of_one_row():
    found = metrics("values", [[1.0]], [[3.0]])
    assert found["rmse"] == 2 and found["mae"] == 2
    assert math.isnan(found["pearson"]) and math.isnan(found["r2"])


def test_per_output():
    true, outputs = class_rows(100, 3)
    rows = per_output("classes", true, outputs, ["a", "b", "c"])
    precision, recall, f1, count = sk.precision_recall_fscore_support(true, outputs.argmax(1))
    assert [row["name"] for row in rows] == ["a", "b", "c"]
    assert [row["count"] for row in rows] == count.tolist()
    for key, want in (("precision", precision), ("recall", recall), ("f1", f1)):
        assert [row[key] for row in rows] == pytest.approx(want)
    assert np.mean([row["auroc"] for row in rows]) == pytest.approx(
        metrics("classes", true, outputs)["auroc"]
    )
    true, outputs = label_rows(50, 4)
    rows = per_output("labels", true, outputs, list("abcd"))
    assert [row["known"] for row in rows] == (~np.isnan(true)).sum(0).tolist()
    assert math.isnan(rows[0]["auroc"]) and rows[0]["positive"] == 0
    true, outputs = value_rows(50, 3)
    pearsons = [row["pearson"] for row in per_output("values", true, outputs, list("abc"))]
    assert math.isnan(pearsons[0]) and pearsons[1] == 0 and 0 < pearsons[2] < 1
    with pytest.raises(InputError, match="2 names for 3 outputs"):
        per_output("values", true, outputs, ["a", "b"])


@pytest.mark.parametrize(
    ("kind", "targets", "outputs", "says"),
    [
        ("classes", [], np.empty((0, 2)), "none of 0 rows|class targets"),
        ("classes", [IGNORED], [[0.5, 0.5]], "none of 1 rows has a target"),
        ("classes", [2], [[0.5, 0.5]], "row 0: target 2 is no class of 0 to 1"),
        ("classes", [0.5], [[0.5, 0.5]], "float64; give whole numbers"),
        ("classes", [0], [[1.0]], "1 classes; at least 2"),
        ("classes", [0, 1], [[0.5, 0.5]], r"shape \(2,\) and outputs \(1, 2\)"),
        ("classes", [0, 0], [[0.5, 0.5], [2.0, -1.0]], "row 1: output 2 is no probability"),
        ("classes", [0], [[0.2, 0.2]], "sum of probabilities 0.4 is not 1"),
        ("classes", [IGNORED, 0], [[0.5, 0.5], [np.nan, 1]], "row 1: output nan is not finite"),
        ("labels", [[np.nan]], [[0.5]], "none of 1 rows"),
        ("labels", [[2.0]], [[0.5]], "row 0: target 2 is not 0 or 1"),
        ("labels", [[1.0]], [[3.0]], "output 3 is no probability"),
        ("labels", [1.0], [[0.5]], r"\(n, T\) both"),
        ("values", [[np.inf]], [[0.5]], "row 0: target inf is not finite"),
        ("words", [[1.0]], [[0.5]], "task is 'words'"),
    ],
)
def test_bad_arrays(kind, targets, outputs, says):
    with pytest.raises(InputError, match=says) as caught:
        metrics(kind, targets, outputs)
    assert "\n" not in str(caught.value)


def test_label_groups_of_another_number():
    with pytest.raises(InputError, match="1 label groups for 2 labels"):
        metrics("labels", [[0.0, 1.0]], [[0.5, 0.5]], label_groups=["TF"])


def test_main_metric_exists_and_knows_its_direction():
    examples = {
        "classes": class_rows(30, 2),
        "tokens": class_rows(30, 2),
        "labels": label_rows(30, 4),
        "values": value_rows(30, 4),
    }
    for kind, rows in examples.items():
        name, higher = main_metric(kind)
        assert name in metrics(kind, *rows)
        assert higher == (name not in LOWER_IS_BETTER)


def test_is_better():
    assert is_better("mcc", 0.2, 0.1) and not is_better("mcc", 0.1, 0.1)
    assert is_better("rmse", 0.1, 0.2) and not is_better("rmse", 0.3, 0.2)
    assert is_better("mcc", -1.0, math.nan) and is_better("mcc", -1.0, None)
    assert not is_better("mcc", math.nan, None)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0, 1, None]), st.integers(0, 4)), min_size=1, max_size=25),
    st.sampled_from([np.float32, np.float64]),
)
def test_areas_equal_scikit_learn_with_ties_and_missing_labels(pairs, dtype):
    """Also where one answer is lacking: then the label is left out, and counted."""
    true = np.array([[np.nan if answer is None else answer] for answer, _ in pairs])
    score = (np.array([[step] for _, step in pairs]) / 4).astype(dtype)
    known = ~np.isnan(true[:, 0])
    if not known.any():
        with pytest.raises(InputError, match="has a target"):
            metrics("labels", true, score)
        return
    found = metrics("labels", true, score)
    answer, said = true[known, 0].astype(int), score[known, 0]
    if len(set(answer)) < 2:
        assert math.isnan(found["auroc"]) and math.isnan(found["auprc"])
        assert (found["labels_counted"], found["labels_left_out"]) == (0, 1)
        return
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(answer, said), rel=1e-12)
    assert found["auprc"] == pytest.approx(sk.average_precision_score(answer, said), rel=1e-12)
    assert found["f1"] == pytest.approx(sk.f1_score(answer, said >= 0.5), rel=1e-12)


def test_medians_by_group_of_many_rare_labels_equal_scikit_learn():
    """More labels than are taken at once; targets as bool, predictions as float32."""
    random = np.random.default_rng(3)
    true = random.random((400, 45)) < np.linspace(0.0, 0.3, 45)
    score = np.round(0.5 * random.random(true.shape) + 0.3 * true, 2).astype(np.float32)
    groups = [("DHS", "TF", "HM")[i % 3] for i in range(45)]
    found = metrics("labels", true, score, label_groups=groups)
    both = [i for i in range(45) if true[:, i].any()]
    assert 0 < found["labels_left_out"] == 45 - len(both) < 5
    for name, measure in (("auroc", sk.roc_auc_score), ("auprc", sk.average_precision_score)):
        each = {i: measure(true[:, i], score[:, i]) for i in both}
        for group in ("DHS", "TF", "HM"):
            want = np.median([each[i] for i in both if groups[i] == group])
            assert found[f"{name}_median_{group}"] == pytest.approx(want, rel=1e-12)
        assert found[name] == pytest.approx(np.mean(list(each.values())), rel=1e-12)
        rows = per_output("labels", true, score, [str(i) for i in range(45)])
        assert [rows[i][name] for i in both] == pytest.approx(list(each.values()), rel=1e-12)
    same = metrics("labels", true.astype(np.float64), score.astype(np.float64), label_groups=groups)
    assert found == same


def test_labels_are_not_copied():
    """There may be 200 million of them."""
    true, score = np.zeros((3, 2), dtype=bool), np.full((3, 2), 0.5, dtype=np.float32)
    rows = scored("labels", true, score)
    assert np.shares_memory(rows.targets, true) and np.shares_memory(rows.outputs, score)


# --- intervals

EXAMPLES = {
    "two classes": ("classes", *class_rows(40, 2, ties=True)),
    "five classes, few rows": ("classes", *class_rows(7, 5)),
    "bases of sequences": ("tokens", *class_rows(90, 3, ties=True)),
    "labels": ("labels", *label_rows(30, 5)),
    "labels as bool, outputs as float32": (
        "labels",
        label_rows(30, 5, seed=1)[0] == 1,
        label_rows(30, 5, seed=1)[1].astype(np.float32),
    ),
    "values": ("values", *value_rows(30, 4)),
    "values, few rows": ("values", *value_rows(4, 3, seed=3)),
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_resampled_metrics_equal_metrics_of_the_rows_drawn(example):
    kind, targets, outputs = EXAMPLES[example]
    groups = ["a", "a", "b", "b", ""] if kind == "labels" else None
    rows = scored(kind, targets, outputs)
    sequence = np.arange(len(rows)) // (4 if kind == "tokens" else 1)
    sequences = int(sequence.max()) + 1
    random = np.random.default_rng(1)
    draws = [np.arange(sequences)]
    draws += [random.integers(0, sequences, sequences) for _ in range(25)]
    weights = np.stack([np.bincount(draw, minlength=sequences) for draw in draws], 1).astype(float)
    found = resampled_metrics(rows, sequence, sequences, label_groups=groups)(weights)
    for resample in range(len(draws)):
        drawn = np.repeat(np.arange(len(rows)), weights[sequence, resample].astype(int))
        want = metrics(kind, rows.targets[drawn], rows.outputs[drawn], label_groups=groups)
        got = {name: values[resample] for name, values in found.items()}
        assert got == pytest.approx(
            {name: value for name, value in want.items() if name not in COUNTS},
            rel=1e-8, abs=1e-9, nan_ok=True,
        )  # fmt: skip


def test_interval_covers_as_often_as_it_says():
    """Of 200 sets of 150 rows with a known accuracy of 0.7, some 95 % of intervals hold it."""
    random = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        true = random.integers(0, 2, 150)
        right = random.random(150) < 0.7
        outputs = np.eye(2)[np.where(right, true, 1 - true)]
        found = intervals("classes", true, outputs, resamples=200)["accuracy"]
        held += found.low <= 0.7 <= found.high
    assert 0.89 <= held / 200 <= 0.99


def test_intervals_are_the_same_for_the_same_seed_only():
    rows = class_rows(80, 2)
    first = intervals("classes", *rows, resamples=100, seed=3)
    assert first == intervals("classes", *rows, resamples=100, seed=3)
    assert first["mcc"] != intervals("classes", *rows, resamples=100, seed=4)["mcc"]
    for name, each in first.items():
        assert each.value == metrics("classes", *rows)[name]
        assert each.low <= each.high


def test_more_certainty_is_wider():
    rows = class_rows(80, 2)
    narrow = intervals("classes", *rows, level=0.5)["accuracy"]
    wide = intervals("classes", *rows, level=0.99)["accuracy"]
    assert wide.low < narrow.low <= narrow.value <= narrow.high < wide.high


def test_clusters_are_drawn_together():
    """20 copies of each row are no new evidence: with clusters the interval stays as wide."""
    true, outputs = class_rows(50, 2)
    many = np.repeat(true, 20), np.repeat(outputs, 20, axis=0)
    alone = intervals("classes", true, outputs)["accuracy"]
    together = intervals("tokens", *many, clusters=np.repeat(np.arange(50), 20) + 7)["accuracy"]
    apart = intervals("tokens", *many)["accuracy"]
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high))
    assert apart.high - apart.low < 0.5 * (together.high - together.low)


def test_missing_rows_change_no_interval():
    true, outputs = class_rows(50, 2)
    more = np.concatenate([[IGNORED], true]), np.concatenate([outputs[:1], outputs])
    cluster = np.arange(51)
    assert intervals("classes", *more, clusters=cluster) == intervals("classes", true, outputs)


def test_undefined_metric_has_no_interval():
    found = intervals("classes", [0, 0, 0], [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    assert math.isnan(found["auroc"].value) and math.isnan(found["auroc"].low)
    assert not math.isnan(found["accuracy"].low)


def test_paired_differences():
    true, outputs = class_rows(300, 2)
    worse = softmax(np.log(outputs) + np.random.default_rng(5).normal(size=outputs.shape) * 1.5)
    found = paired_differences("classes", true, outputs, worse)
    first, second = intervals("classes", true, outputs), intervals("classes", true, worse)
    for name in ("mcc", "auroc", "log_loss"):
        gap = found[name]
        assert gap.value == pytest.approx(first[name].value - second[name].value)
        assert gap.low <= gap.value <= gap.high
        widths = [each[name].high - each[name].low for each in (first, second)]
        assert gap.high - gap.low < sum(widths)
        assert gap.better > 0.97  # log_loss too, where less is better
    same = paired_differences("classes", true, outputs, outputs)["mcc"]
    assert (same.value, same.low, same.high, same.better) == (0, 0, 0, 0.5)


def test_options_of_intervals():
    rows = class_rows(10, 2)
    with pytest.raises(InputError, match="level is 95; it must be between 0 and 1"):
        intervals("classes", *rows, level=95)
    with pytest.raises(InputError, match="resamples is 1; it must be at least 2"):
        intervals("classes", *rows, resamples=1)
    with pytest.raises(InputError, match=r"clusters have shape \(3,\); 10 rows need \(10,\)"):
        intervals("classes", *rows, clusters=[0, 1, 2])
    assert default_resamples(1000, 2) == 1000
    assert default_resamples(200_000, 919) == 100


def test_blocks_change_nothing(monkeypatch):
    examples = [("labels", *label_rows(40, 4)), ("classes", *class_rows(40, 3))]
    whole, parts = {}, {}
    for kind, *rows in examples:
        whole |= {(kind, k): v for k, v in intervals(kind, *rows, resamples=50).items()}
    for name in ("_AT_ONCE", "_AT_ONCE_OF_LABELS"):
        monkeypatch.setattr(f"hyenadna.train.bootstrap.{name}", 1)
    for kind, *rows in examples:
        parts |= {(kind, k): v for k, v in intervals(kind, *rows, resamples=50).items()}
    for name, each in whole.items():
        assert (each.low, each.high) == pytest.approx(
            (parts[name].low, parts[name].high), nan_ok=True, rel=1e-9
        )


# --- points of the pictures


def test_curves_have_the_areas_of_their_metrics():
    for ties in (False, True):
        rows = scored("classes", *class_rows(150, 2, ties=ties))
        curve = roc(rows, 1, "b")
        assert sk.auc(curve.x, curve.y) == pytest.approx(curve.area)
        area = sk.roc_auc_score(rows.targets, rows.outputs[:, 1])
        assert curve.area == pytest.approx(area, rel=1e-12)
        curve = precision_recall(rows, 1, "b")
        steps = np.diff(curve.x, prepend=0)
        assert (steps >= 0).all() and curve.x[-1] == 1
        assert (steps * curve.y).sum() == pytest.approx(curve.area)
        assert curve.positive == rows.targets.mean()


def test_long_curves_are_thinned_with_their_ends():
    rows = scored("classes", *class_rows(20_000, 2))
    curve = roc(rows, 1, "b")
    assert len(curve.x) <= 400
    assert (curve.x[0], curve.y[0], curve.x[-1], curve.y[-1]) == (0, 0, 1, 1)
    assert sk.auc(curve.x, curve.y) == pytest.approx(curve.area, abs=1e-3)


def test_curves_of_one_answer_have_no_points():
    rows = scored("labels", *label_rows(30, 3))
    for curve in (roc(rows, 0, "x"), precision_recall(rows, 1, "x")):
        assert len(curve.x) == 0 and math.isnan(curve.area)


def test_reliability_has_the_error_of_the_metric():
    for kind, targets, outputs in EXAMPLES.values():
        if kind == "values":
            continue
        points = reliability(scored(kind, targets, outputs))
        assert points.error == pytest.approx(metrics(kind, targets, outputs)["ece"])
        assert points.count.sum() == (~np.isnan(targets)).sum()


def test_confusion_has_true_classes_as_rows():
    rows = scored("classes", [0, 0, 1], [[0.2, 0.8, 0.0], [0.9, 0.1, 0.0], [0.3, 0.7, 0.0]])
    assert confusion(rows).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
