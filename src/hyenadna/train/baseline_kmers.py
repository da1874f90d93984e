"""Linear models on k-mer counts: logistic regression for classes and labels, ridge for values.

Features of a sequence: the frequencies of all words of 1 .. k bases, each column divided by its
standard deviation, and the logarithm of the length. Words with an N are not counted. `canonical`
counts a word and its reverse complement as one, so the strand does not matter. The longest word,
canonical or not, and the strength of the penalty are chosen on the valid part by the main metric of
the task, with at most 8,000 training rows; the choice is then fitted on all of them.

More than 64 labels have words of up to 4 bases and at most 100,000 rows: hundreds of logistic
regressions on thousands of words would take days, and the text of what was chosen says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse as sparse
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

from hyenadna.alphabet import IGNORED, A, Ids
from hyenadna.data.labelled_data import LabelledData
from hyenadna.errors import InputError
from hyenadna.train.baseline_choice import flat_targets, valid_score

Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

MAX_WORD: Final = 6
_WORDS_TRIED: Final = (4, MAX_WORD)
_STRENGTHS: Final = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Inverse penalties C; the penalty of ridge is 1 / C."""
_ROWS_TO_CHOOSE: Final = 8000
_MANY_LABELS: Final = 64
_ROWS_OF_MANY: Final = 100_000
_STEPS_OF_MANY: Final = 50
_BASES_AT_ONCE: Final = 1 << 20
_ROWS_AT_ONCE: Final = 512
_CENTRED: Final = 3
"""Words up to this length are in nearly every row, so that centring them costs no memory; it makes
the fit converge several times faster."""
_ITERATIONS: Final = 300
_CELLS_AT_ONCE: Final = 1 << 21


def count_words(sequences: Sequence[Ids], k: int, *, canonical: bool) -> sparse.csr_matrix:
    """How often each word of k bases is in each sequence: sparse float32, (n, words).

    Words are in alphabetic order; canonical ones by the first of the pair.

    Raises InputError for a k outside of 1 .. 6.
    """
    if not 1 <= k <= MAX_WORD:
        raise InputError(f"k-mers: k is {k}; it must be in 1 .. {MAX_WORD}")
    column = canonical_columns(k) if canonical else np.arange(4**k)
    width = int(column.max()) + 1
    rows = [_count(chunk, k, column, width) for chunk in _chunks(sequences)]
    return sparse.vstack(rows or [sparse.csr_matrix((0, width), dtype=np.float32)], format="csr")


def canonical_columns(k: int) -> Int64s:
    """Column of each word of k bases when a word and its reverse complement share one, (4^k,)."""
    words = np.arange(4**k)
    twin, left = np.zeros_like(words), words.copy()
    for _ in range(k):
        twin, left = twin * 4 + (3 - left % 4), left // 4
    columns: Int64s = np.unique(np.minimum(words, twin), return_inverse=True)[1].reshape(-1)
    return columns


def word_codes(bases: npt.NDArray[np.uint8], k: int) -> tuple[Int64s, npt.NDArray[np.bool_]]:
    """Code of the word that starts at each place but the last k - 1, and whether it is a word.

    bases: 0 .. 3, or another number where there is no base.
    """
    n = max(len(bases) - k + 1, 0)
    code, real = np.zeros(n, dtype=np.int64), np.ones(n, dtype=np.bool_)
    for j in range(k):
        base = bases[j : j + n]
        code = code * 4 + (base & 3)
        real &= base < 4
    return code, real


def as_bases(ids: Ids) -> npt.NDArray[np.uint8]:
    """0 .. 3 for A C G T, and a greater number for any other token."""
    return ids - np.uint8(A)  # tokens before A wrap around to large numbers


def _chunks(sequences: Sequence[Ids]) -> Any:
    """The sequences in lists of about a million bases."""
    chunk: list[Ids] = []
    bases = 0
    for sequence in sequences:
        chunk.append(sequence)
        bases += len(sequence)
        if bases >= _BASES_AT_ONCE or len(chunk) == _ROWS_AT_ONCE:
            yield chunk
            chunk, bases = [], 0
    if chunk:
        yield chunk


def _count(chunk: list[Ids], k: int, column: Int64s, width: int) -> sparse.csr_matrix:
    stop = np.array([0], dtype=np.uint8)  # no base: no word reaches into the next sequence
    joined = np.concatenate([part for sequence in chunk for part in (sequence, stop)])
    row = np.repeat(np.arange(len(chunk)), [len(sequence) + 1 for sequence in chunk])
    code, real = word_codes(as_bases(joined), k)
    at = row[: len(code)][real] * width + column[code[real]]
    counts = np.bincount(at, minlength=len(chunk) * width).reshape(len(chunk), width)
    return sparse.csr_matrix(counts.astype(np.float32))


def word_frequencies(sequences: Sequence[Ids], k: int, *, canonical: bool) -> sparse.csr_matrix:
    """Features before scaling: frequencies of words of 1 .. k bases, log length; (n, F) float32."""
    blocks = []
    for length in range(1, k + 1):
        counts = count_words(sequences, length, canonical=canonical)
        total = np.maximum(np.asarray(counts.sum(axis=1)).reshape(-1), 1)
        blocks.append(sparse.diags_array(1 / total, dtype=np.float32) @ counts)
    log_length = np.log([[max(len(sequence), 1)] for sequence in sequences]).astype(np.float32)
    blocks.append(sparse.csr_matrix(log_length.reshape(len(sequences), 1)))
    return sparse.hstack(blocks, format="csr", dtype=np.float32)


@dataclass(frozen=True)
class WordFeatures:
    """Scaled features of sequences; made by `fit` on the train part."""

    k: int
    canonical: bool
    mean: Float32s = field(repr=False)
    scale: Float32s = field(repr=False)

    @classmethod
    def fit(cls, raw: sparse.csr_matrix, k: int, canonical: bool) -> WordFeatures:
        """The scaling of raw features (n, F): mean where it is subtracted, standard deviation."""
        mean = np.asarray(raw.mean(axis=0)).reshape(-1)
        square = np.asarray(raw.multiply(raw).mean(axis=0)).reshape(-1)
        spread = np.sqrt(np.maximum(square - mean**2, 0))
        scale = np.where(spread > 1e-7, spread, 1).astype(np.float32)
        widths = [canonical_columns(j).max() + 1 if canonical else 4**j for j in (1, 2, 3)]
        dense = np.zeros(raw.shape[1], dtype=np.bool_)
        dense[: sum(widths[:_CENTRED])] = dense[-1] = True
        return cls(k, canonical, np.where(dense, mean, 0).astype(np.float32), scale)

    def scaled(self, raw: sparse.csr_matrix) -> sparse.csr_matrix:
        """The features of raw ones, (n, F)."""
        centred = np.flatnonzero(self.mean)
        head = raw[:, centred].toarray() - self.mean[centred]
        rest = np.setdiff1d(np.arange(raw.shape[1]), centred)
        order = np.argsort(np.concatenate([centred, rest]), kind="stable")
        joined = sparse.hstack([sparse.csr_matrix(head), raw[:, rest]], format="csr")[:, order]
        return (joined @ sparse.diags_array(1 / self.scale, dtype=np.float32)).tocsr()

    def __call__(self, sequences: Sequence[Ids]) -> sparse.csr_matrix:
        """The features of sequences, (n, F) float32."""
        return self.scaled(word_frequencies(sequences, self.k, canonical=self.canonical))


class Linear(Protocol):
    """A fitted linear model."""

    def outputs(self, features: Any) -> Float64s:
        """Probabilities or values, (n, T)."""


@dataclass(frozen=True)
class KmerModel:
    """A linear model on k-mer frequencies; made by `fit_kmers`."""

    features: WordFeatures
    linear: Linear
    chosen: str
    name: str = "kmer"

    def predict(self, sequences: Sequence[Ids]) -> Float32s:
        """Probabilities (n, C) or (n, T), or values (n, T), float32."""
        at_once = 4096
        parts = [
            self.linear.outputs(self.features([sequences[i] for i in range(start, stop)]))
            for start in range(0, len(sequences), at_once)
            for stop in [min(start + at_once, len(sequences))]
        ]
        if not parts:
            raise InputError("k-mer baseline: no sequences to predict")
        return np.concatenate(parts).astype(np.float32)


def fit_kmers(train: LabelledData, valid: LabelledData, seed: int) -> KmerModel:
    """The linear model on k-mers of the train part, chosen on the valid part.

    Raises InputError where the train part has a single class.
    """
    if train.task.kind == "classes":
        train = _known(train)
        valid = _known(valid)
        require_two_classes(train)
    many = train.task.kind == "labels" and train.task.outputs > _MANY_LABELS
    fewer = ""
    if many and len(train) > _ROWS_OF_MANY:
        fewer = f", {_ROWS_OF_MANY:,} of {len(train):,} rows"
        train = _some_rows(train, _ROWS_OF_MANY, seed)
    small = _some_rows(train, _ROWS_TO_CHOOSE, seed)
    kind, answers = valid.task.kind, flat_targets(valid)
    best, chosen = (-np.inf, -np.inf), (0, False, 0.0)
    for k in _WORDS_TRIED[:1] if many else _WORDS_TRIED:
        for canonical in (False, True):
            raw = word_frequencies(small.sequences, k, canonical=canonical)
            features = WordFeatures.fit(raw, k, canonical)
            x, held_out = features.scaled(raw), features(valid.sequences)
            for strength, model in fit_path(x, small, _STRENGTHS, seed):
                score = valid_score(kind, answers, model.outputs(held_out), where=valid.name)
                if score > best:
                    best, chosen = score, (k, canonical, strength)
    k, canonical, strength = chosen
    raw = word_frequencies(train.sequences, k, canonical=canonical)
    features = WordFeatures.fit(raw, k, canonical)
    ((_, model),) = fit_path(features.scaled(raw), train, (strength,), seed)
    strands = "both strands as one" if canonical else "strand kept"
    return KmerModel(features, model, f"k 1..{k}, {strands}, C {strength:g}{fewer}")


def _some_rows(data: LabelledData, most: int, seed: int) -> LabelledData:
    """The data, or where it has more rows so many of them, drawn at random, in their order."""
    if len(data) <= most:
        return data
    return data.select(np.sort(np.random.default_rng(seed).permutation(len(data))[:most]))


def _known(data: LabelledData) -> LabelledData:
    """The rows whose class is known."""
    return data.select(np.flatnonzero(data.targets != IGNORED))


def require_two_classes(train: LabelledData) -> None:
    """Nothing, where the train part has two classes or more. Raises InputError otherwise."""
    present = np.unique(
        np.concatenate(train.targets) if train.task.kind == "tokens" else train.targets
    )
    present = present[present != IGNORED]
    if len(present) < 2:
        name = train.task.names[int(present[0])] if len(present) else "none"
        raise InputError(
            f"{train.name}: all train rows are of one class ({name}); a classifier needs two"
        )


def fit_path(x: Any, data: LabelledData, strengths: Sequence[float], seed: int) -> Any:
    """(C, model) for each inverse penalty, weakest model first, each begun where the last ended."""
    targets: npt.NDArray[Any] = np.asarray(data.targets)
    if data.task.kind == "values":
        return ((c, _Ridge.fit(x, targets, 1 / c)) for c in strengths)
    if data.task.kind == "labels":
        return _label_path(x, targets, strengths)
    return logistic_path(x, targets, data.task.outputs, strengths, seed)


@dataclass(frozen=True)
class Logistic:
    """Logistic regression of scikit-learn over all C classes, those that train lacks at 0."""

    coefficients: Float64s
    intercept: Float64s
    classes: Int64s
    outputs_in_all: int

    def outputs(self, features: Any) -> Float64s:
        """Probabilities (n, C)."""
        score = features @ self.coefficients.T + self.intercept
        if score.shape[1] == 1:  # two classes: one score
            score = np.concatenate([np.zeros_like(score), score], axis=1)
        score = np.exp(score - score.max(axis=1, keepdims=True))
        out = np.zeros((len(score), self.outputs_in_all))
        out[:, self.classes] = score / score.sum(axis=1, keepdims=True)
        return out


def logistic_path(
    x: Any, targets: Int64s, outputs: int, strengths: Sequence[float], seed: int
) -> Any:
    """(C, model) for each inverse penalty in turn: multinomial logistic regression.

    x (n, F), targets (n,) classes 0 .. outputs - 1.
    """
    model = LogisticRegression(max_iter=_ITERATIONS, warm_start=True, random_state=seed)
    for strength in strengths:
        model.C = strength
        with warnings.catch_warnings():
            # A weak penalty may not converge in time; the valid loss says whether that is good.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x, targets)
        yield (
            strength,
            Logistic(model.coef_.copy(), model.intercept_.copy(), model.classes_.copy(), outputs),
        )


@dataclass(frozen=True)
class _Labels:
    """One logistic regression per label, fitted together."""

    weights: Float64s
    intercept: Float64s

    def outputs(self, features: Any) -> Float64s:
        """Probabilities (n, T)."""
        return _sigmoid(features @ self.weights + self.intercept)


def _sigmoid(score: Float64s) -> Float64s:
    return 0.5 * (1 + np.tanh(0.5 * score))


def _label_path(x: Any, targets: npt.NDArray[Any], strengths: Sequence[float]) -> Any:
    """(C, model) for each inverse penalty. targets (n, T): 0, 1 and NaN, or bool."""
    positive, negative = (targets == 1).sum(axis=0), (targets == 0).sum(axis=0)
    share = (positive + 0.5) / (positive + negative + 1)
    at = np.zeros((x.shape[1] + 1, targets.shape[1]))
    at[-1] = np.log(share / (1 - share))
    if targets.shape[1] <= _MANY_LABELS:
        for strength in strengths:
            at = _minimised(_LabelLoss(x, targets, strength), at)
            yield strength, _Labels(at[:-1], at[-1])
        return
    dense = x.toarray().astype(np.float32)  # words of many labels are short, and in nearly all rows
    axes = _principal_axes(dense)
    for strength in strengths:
        at = _along(axes, share * (1 - share), _LabelLoss(dense, targets, strength), at)
        yield strength, _Labels(at[:-1], at[-1])


@dataclass(frozen=True, eq=False)
class _LabelLoss:
    """Summed log loss of all labels plus |w|^2 / 2C, and its gradient, of weights (F + 1, T).

    All labels at once, because one product with the features then serves hundreds of them; some
    rows at a time, because of as many numbers as there are labels for each. Dense features are
    multiplied in their own type, the sums are float64.
    """

    x: Any
    targets: npt.NDArray[Any]
    strength: float

    def __call__(self, w: Float64s) -> tuple[float, Float64s]:
        dtype = np.dtype(np.float64) if sparse.issparse(self.x) else self.x.dtype
        weights, intercept = w[:-1].astype(dtype), w[-1].astype(dtype)
        gradient = np.concatenate([w[:-1] / self.strength, np.zeros((1, w.shape[1]))])
        loss = float((w[:-1] ** 2).sum() / (2 * self.strength))
        at_once = max(1, _CELLS_AT_ONCE // w.shape[1])
        for start in range(0, len(self.targets), at_once):
            x = self.x[start : start + at_once]
            targets = self.targets[start : start + at_once].astype(dtype)
            known = ~np.isnan(targets)
            y = np.nan_to_num(targets, copy=False)
            score = x @ weights + intercept
            small = np.exp(-abs(score))
            each = np.maximum(score, 0) + np.log1p(small) - y * score
            loss += float((each * known).sum(dtype=np.float64))
            error = (np.where(score >= 0, 1, small) / (1 + small) - y) * known
            gradient[:-1] += x.T @ error
            gradient[-1] += error.sum(axis=0, dtype=np.float64)
        return loss, gradient


def _minimised(function: Any, start: Float64s, iterations: int = _ITERATIONS) -> Float64s:
    """Where a function of an array has its least value, by L-BFGS from `start`."""

    def flat(values: Float64s) -> tuple[float, Float64s]:
        loss, gradient = function(values.reshape(start.shape))
        return loss, gradient.reshape(-1)

    options = {"maxiter": iterations}
    found = minimize(flat, start.reshape(-1), jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x.reshape(start.shape))


def _principal_axes(x: Float32s) -> tuple[Float64s, Float64s]:
    """Eigenvalues and eigenvectors of the products of all features and a 1, (F + 1,) and square."""
    square = np.zeros((x.shape[1] + 1, x.shape[1] + 1))
    for start in range(0, len(x), _ROWS_AT_ONCE):
        block = x[start : start + _ROWS_AT_ONCE].astype(np.float64)
        block = np.column_stack([block, np.ones(len(block))])
        square += block.T @ block
    values, axes = np.linalg.eigh(square)
    return np.maximum(values, 0), axes


def _along(
    principal: tuple[Float64s, Float64s], variance: Float64s, loss: _LabelLoss, start: Float64s
) -> Float64s:
    """The minimum, found in coordinates in which all labels bend about as much in all directions.

    The second derivatives of a label are about its variance p (1 - p) times the products of the
    features, plus 1 / C: the axes are those of the products for every label. The least value is
    where it was, and most of the way to it takes a few steps; weak penalties end after 50.
    """
    values, axes = principal
    scale = 1 / np.sqrt(values[:, None] * variance + 1 / loss.strength)

    def turned(z: Float64s) -> tuple[float, Float64s]:
        value, gradient = loss(axes @ (scale * z))
        return value, scale * (axes.T @ gradient)

    return np.asarray(axes @ (scale * _minimised(turned, (axes.T @ start) / scale, _STEPS_OF_MANY)))


@dataclass(frozen=True)
class _Ridge:
    """Ridge regression of scikit-learn, a column at a time where targets are missing."""

    weights: Float64s
    intercept: Float64s

    @classmethod
    def fit(cls, x: Any, targets: Float32s, penalty: float) -> _Ridge:
        """The fit of x (n, F) to targets (n, T); a column without targets gets 0."""
        weights, intercept = np.zeros((x.shape[1], targets.shape[1])), np.zeros(targets.shape[1])
        known = ~np.isnan(targets)
        groups = (
            [np.arange(targets.shape[1])] if known.all() else np.arange(targets.shape[1])[:, None]
        )
        for columns in groups:
            rows = np.flatnonzero(known[:, columns[0]])
            if not len(rows):
                continue
            model = Ridge(alpha=penalty, solver="sparse_cg", tol=1e-5, max_iter=1000)
            model.fit(x[rows], targets[rows][:, columns].astype(np.float64))
            weights[:, columns] = np.atleast_2d(model.coef_).T
            intercept[columns] = model.intercept_
        return cls(weights, intercept)

    def outputs(self, features: Any) -> Float64s:
        """Values (n, T)."""
        values: Float64s = features @ self.weights + self.intercept
        return values
