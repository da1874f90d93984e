"""A linear model of one class per base: logistic regression on the words around each base.

Features of a base: the bases at -6 .. +6 from it, and how often each word of three bases starts
within 60 or 150 bases of it, on either side, apart by phase (the offset modulo 3), which is what
tells a coding frame. At most 60,000 bases of the train part are fitted; the reach and then the
penalty are chosen on as many of the valid part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from hyenadna.alphabet import IGNORED, Ids
from hyenadna.data.labelled_data import LabelledData
from hyenadna.errors import InputError
from hyenadna.train.baseline_choice import valid_score
from hyenadna.train.baseline_kmers import (
    Logistic,
    as_bases,
    logistic_path,
    require_two_classes,
    word_codes,
)

Float32s = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]

_NEAR: Final = 6
REACHES: Final = (60, 150)
_WORDS: Final = 64
_STRENGTHS: Final = (1e-4, 1e-3, 1e-2, 1e-1)
_TO_CHOOSE_REACH: Final = 1e-2
_BASES_TO_FIT: Final = 60_000
_PIECE: Final = 1 << 14


def context_features(ids: Ids, at: Int64s, reach: int = REACHES[0]) -> Float32s:
    """Features of the bases at the places `at` (0-based, sorted) of a sequence: (places, F).

    F = 4 * 13 letters + 3 phases * 64 words. reach: bases on either side whose words are counted.
    """
    bases = as_bases(ids)
    pad = np.full(reach + 2, 255, dtype=np.uint8)
    padded = np.concatenate([pad, bases, pad])
    out = np.zeros((len(at), 4 * (2 * _NEAR + 1) + 3 * _WORDS), dtype=np.float32)
    middle = at + len(pad)
    for j, offset in enumerate(range(-_NEAR, _NEAR + 1)):
        letter = padded[middle + offset]
        here = np.flatnonzero(letter < 4)
        out[here, 4 * j + letter[here]] = 1
    out[:, 4 * (2 * _NEAR + 1) :] = _phased_words(padded, middle, reach)
    return out


def _phased_words(padded: npt.NDArray[np.uint8], middle: Int64s, reach: int) -> Float32s:
    """Counts of words of three by phase within the reach, over a third of the reach: (n, 192)."""
    code, real = word_codes(padded, 3)
    place = np.arange(len(code))
    out = np.zeros((len(middle), 3, _WORDS), dtype=np.float32)
    first, last = middle - reach, np.minimum(middle + reach, len(code) - 1)
    for residue in range(3):
        # How often each word has started before each place, at places of this residue.
        started = np.zeros((len(code) + 1, _WORDS), dtype=np.int32)
        mine = place[real & (place % 3 == residue)]
        started[mine + 1, code[mine]] = 1
        np.cumsum(started, axis=0, out=started)
        counts = started[last + 1] - started[first]
        phase = (residue - middle) % 3
        out[np.arange(len(middle)), phase] = counts * (3 / reach)
    return out.reshape(len(middle), 3 * _WORDS)


def _pieces(sequence: Ids, reach: int) -> Iterator[tuple[int, int, Ids, int]]:
    """(first, last + 1, stretch with its surroundings, offset of first in it), piece by piece."""
    for start in range(0, len(sequence), _PIECE):
        stop = min(start + _PIECE, len(sequence))
        left = max(start - reach - 2, 0)
        yield start, stop, sequence[left : stop + reach + 2], start - left


@dataclass(frozen=True)
class ContextModel:
    """Logistic regression on the surroundings of each base; made by `fit_context`."""

    linear: Logistic
    mean: Float32s
    scale: Float32s
    reach: int
    chosen: str
    name: str = "kmer"

    def predict(self, sequences: Sequence[Ids]) -> Float32s:
        """Probabilities (bases of all sequences, C), float32, one sequence after another."""
        parts = []
        for sequence in sequences:
            for start, stop, around, offset in _pieces(sequence, self.reach):
                places = np.arange(offset, offset + stop - start)
                features = context_features(around, places, self.reach)
                parts.append(self.linear.outputs((features - self.mean) / self.scale))
        if not parts:
            raise InputError("k-mer baseline: no sequences to predict")
        return np.concatenate(parts).astype(np.float32)


def fit_context(train: LabelledData, valid: LabelledData, seed: int) -> ContextModel:
    """The model of the train part, its reach and its penalty chosen on the valid part.

    Raises InputError where the train part has a single class.
    """
    require_two_classes(train)
    sets = [_Samples.draw(train, valid, reach, seed) for reach in REACHES]
    quick = [each.best((_TO_CHOOSE_REACH,)) for each in sets]
    samples = sets[max(range(len(sets)), key=lambda i: quick[i][0])]
    _, strength, model = samples.best(_STRENGTHS)
    chosen = f"words within {samples.reach} bases, C {strength:g}"
    return ContextModel(model, samples.mean, samples.scale, samples.reach, chosen)


@dataclass(frozen=True, eq=False)
class _Samples:
    """Features and classes of bases of the train and the valid part, standardised by the train."""

    x: Float32s
    y: Int64s
    held_x: Float32s
    held_y: Int64s
    mean: Float32s
    scale: Float32s
    reach: int
    seed: int
    valid: LabelledData

    @classmethod
    def draw(cls, train: LabelledData, valid: LabelledData, reach: int, seed: int) -> _Samples:
        """The same bases for every reach."""
        x, y = _sampled(train, np.random.default_rng(seed), reach)
        held_x, held_y = _sampled(valid, np.random.default_rng(seed + 1), reach)
        mean, scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-3)
        x, held_x = (x - mean) / scale, (held_x - mean) / scale
        return cls(x, y, held_x, held_y, mean, scale, reach, seed, valid)

    def best(self, strengths: Sequence[float]) -> tuple[tuple[float, float], float, Logistic]:
        """(score on the valid part, strength, model) of the best of some strengths."""
        classes = self.valid.task.outputs
        fits = [
            (self._score(model), strength, model)
            for strength, model in logistic_path(self.x, self.y, classes, strengths, self.seed)
        ]
        return max(fits, key=lambda fit: fit[0])

    def _score(self, model: Logistic) -> tuple[float, float]:
        outputs = model.outputs(self.held_x)
        return valid_score("tokens", self.held_y, outputs, where=self.valid.name)


def _sampled(data: LabelledData, rng: np.random.Generator, reach: int) -> tuple[Float32s, Int64s]:
    """Features and classes of known bases: all, or as many as are fitted, drawn evenly."""
    known = [np.flatnonzero(row != IGNORED) for row in data.targets]
    total = sum(map(len, known))
    if not total:
        raise InputError(f"{data.name}: no base of the valid part has a class; cannot choose")
    if total > _BASES_TO_FIT:
        taken = np.sort(rng.permutation(total)[:_BASES_TO_FIT])
    else:
        taken = np.arange(total)
    features, classes = [], []
    begin = 0
    for i, places in enumerate(known):
        first, last = np.searchsorted(taken, [begin, begin + len(places)])
        mine = places[taken[first:last] - begin]
        begin += len(places)
        if not len(mine):
            continue
        sequence = data.sequences[i]
        for start, stop, around, offset in _pieces(sequence, reach):
            inside = mine[(mine >= start) & (mine < stop)]
            features.append(context_features(around, inside - start + offset, reach))
        classes.append(data.targets[i][mine])
    return np.concatenate(features), np.concatenate(classes)
