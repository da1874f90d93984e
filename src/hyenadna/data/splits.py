"""Rows held out for validation or test: at random, by whole groups, or by similarity.

Rows whose sequences are the same, on either strand, stay on one side (unless they are in different
groups and the split is by group). Which rows are held out depends on the seed and on the sequences
(or the names of the groups), not on the order of the rows.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Final, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from hyenadna.data.labelled_data import LabelledData, other_strand
from hyenadna.data.similar import NearDuplicates, same_sequences
from hyenadna.errors import InputError

By = Literal["random", "group", "similarity"]
Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

VALUE_BINS: Final = 10
"""Quantiles of the values that a split keeps in proportion."""


def with_valid(
    data: LabelledData, *, seed: int, fraction: float = 0.1, by: By = "random"
) -> LabelledData:
    """The data with about `fraction` of its training rows in `valid`; as it is where it has some.

    See `hold_out`. Rows without a split count as training rows.

    Raises InputError as `hold_out` does.
    """
    if (data.splits == "valid").any():
        return data
    return hold_out(data, "valid", seed=seed, fraction=fraction, by=by)


def with_test(
    data: LabelledData, *, seed: int, fraction: float = 0.1, by: By = "random"
) -> LabelledData:
    """The data with about `fraction` of its training rows in `test`; as it is where it has some.

    Raises InputError as `hold_out` does.
    """
    if (data.splits == "test").any():
        return data
    return hold_out(data, "test", seed=seed, fraction=fraction, by=by)


def hold_out(
    data: LabelledData,
    split: Literal["valid", "test"],
    *,
    seed: int,
    fraction: float = 0.1,
    by: By = "random",
) -> LabelledData:
    """The data with about `fraction` of its training rows moved into `split`, and a note of it.

    by: `random` moves rows (with all their duplicates); `group` whole groups, chromosomes say;
    `similarity` whole families of near duplicates (`hyenadna.data.similar`). Classes, the rarest
    label of a row, or tenths of the mean value keep their share as far as that goes. Rows without a
    split become training rows. A note that begins with `warning:` says where the share is far from
    `fraction`, as groups and families are never parted.

    Raises InputError for a fraction that is not in (0, 1), for groups that are not known, where
    there is but one group or family, and where all that a group or family leaves is one class.
    """
    if not 0 < fraction < 1:
        raise InputError(f"fraction is {fraction}; it must be between 0 and 1")
    if by not in get_args(By):
        raise InputError(f"by is {by!r}; it is {', '.join(get_args(By))}")
    splits = np.where(data.splits == "", "train", data.splits).astype("<U5")
    rows = np.flatnonzero(splits == "train")
    if not len(rows):
        raise InputError(f"{data.name}: has no training rows to hold some out of")
    part = data.select(rows)
    unit, keys, complete = _units(part, by, seed)
    strata = _strata(part)
    taken = _take(unit, keys, strata, fraction, name=data.name, by=by)
    one_class = _require_classes(part, taken, split, by)
    splits[rows[taken]] = split
    largest = np.bincount(unit).max() / len(unit)
    note = f"{split}: {taken.sum()} of {len(rows)} training rows held out by {by}, seed {seed}" + (
        f" ({len(keys)} of them, the largest has {largest:.1%})" if by != "random" else ""
    )
    notes = [note, *one_class, *_warnings(split, taken, fraction, unit, by)]
    if not complete:
        notes.append(
            f"warning: {split}: families of similar sequences are so large, or sequences so long, "
            "that not all pairs were looked at; some near duplicates may be on both sides"
        )
    return dataclasses.replace(data, splits=splits, notes=(*data.notes, *notes))


def _require_classes(data: LabelledData, taken: Bools, split: str, by: str) -> list[str]:
    """A warning where the rows held out at random are of one class, though there are more.

    Raises InputError where they are of one class as they are whole groups or families: nothing can
    be chosen by, or measured on, one class, and another split can be had.
    """
    if data.task.kind != "classes":
        return []
    classes = np.asarray(data.targets)
    held, known = np.unique(classes[taken & (classes >= 0)]), np.unique(classes[classes >= 0])
    if len(held) >= 2 or len(known) < 2:
        return []
    names = ", ".join(data.task.names[int(i)] for i in held) or "none is known"
    what = (
        f"held out by {by}, the {int(taken.sum())} {split} rows are of one class ({names}) of "
        f"{len(known)}"
    )
    if by == "random":
        return [f"warning: {what}: there are too few rows of the others"]
    raise InputError(
        f"{data.name}: {what}; give another --split-by or --split-seed, or a split of your own"
    )


def _warnings(split: str, taken: Bools, fraction: float, unit: Int64s, by: str) -> list[str]:
    """A warning where what is held out is far from what was asked for."""
    wanted, got = fraction * len(taken), int(taken.sum())
    if abs(got - wanted) <= max(0.5 * wanted, 2.0):
        return []
    sizes = np.bincount(unit)
    what = {"random": "sequences", "group": "groups", "similarity": "families"}[by]
    return [
        f"warning: {split}: {got} rows are held out where {wanted:.0f} were asked for "
        f"({fraction:.0%} of {len(taken)}): there are {len(sizes)} {what}, the largest of "
        f"{sizes.max()} rows, which are never parted; another --split-by or a split of your own "
        "may come nearer"
    ]


def _units(data: LabelledData, by: By, seed: int) -> tuple[Int64s, list[bytes], bool]:
    """(number of what each row moves with, 0 .. U - 1; a random key for each unit; False where
    near duplicates may be in different units)."""
    if by == "group":
        if data.groups is None:
            raise InputError(
                f"{data.name}: groups are not known; name the column (group, chrom), or split by "
                "similarity"
            )
        names, unit = np.unique(np.array(data.groups), return_inverse=True)
        return unit.astype(np.int64), [_key(seed, str(name).encode()) for name in names], True
    same = same_sequences(data.sequences)
    _, first, unit = np.unique(same.strandless, return_index=True, return_inverse=True)
    distinct = [data.sequences[i] for i in first.tolist()]
    family, complete = np.arange(len(distinct)), True
    if by == "similarity":
        found = NearDuplicates(distinct).families()
        family, complete = np.unique(found.number, return_inverse=True)[1], found.complete
    keys: dict[int, bytes] = {}
    for ids, u in zip(distinct, family.tolist(), strict=True):
        key = _key(seed, min(ids.tobytes(), other_strand(ids).tobytes()))
        keys[u] = min(keys.get(u, key), key)
    return family[unit], [keys[u] for u in range(len(keys))], complete


def _key(seed: int, thing: bytes) -> bytes:
    # a hash, not a random generator: the same with every version of every library
    return hashlib.blake2b(thing, digest_size=16, key=str(seed).encode()).digest()


def _take(
    unit: Int64s,
    keys: list[bytes],
    strata: Int64s,
    fraction: float,
    *,
    name: str,
    by: By,
) -> npt.NDArray[np.bool_]:
    """Which rows are held out, (n,): units in random order, each that brings the strata nearer.

    Nearer: to `fraction` of each stratum, in the sum of the absolute differences. No stratum is
    held out as a whole.
    """
    if len(keys) < 2:
        what = {"random": "sequence", "group": "group", "similarity": "family of similar sequences"}
        raise InputError(
            f"{name}: the training rows are but one {what[by]}; nothing can be held out by {by}"
        )
    rest = np.bincount(strata).tolist()  # rows that stay
    left = [fraction * count for count in rest]  # rows that are still wanted
    content = _content(unit, strata)
    held = np.zeros(len(keys), dtype=bool)
    for u in sorted(range(len(keys)), key=keys.__getitem__):
        gain = sum(abs(left[s]) - abs(left[s] - count) for s, count in content[u])
        if gain > 0 and all(rest[s] > count for s, count in content[u]):
            held[u] = True
            for s, count in content[u]:
                left[s] -= count
                rest[s] -= count
    if not held.any():  # all units are larger than what is wanted
        whole = [any(rest[s] <= count for s, count in each) for each in content]
        sizes = np.bincount(unit).tolist()
        # of equals the first in random order, which is that of no rows
        held[min(range(len(keys)), key=lambda u: (whole[u], sizes[u], keys[u]))] = True
    return held[unit]


def _content(unit: Int64s, strata: Int64s) -> list[list[tuple[int, int]]]:
    """(stratum, rows) of each unit."""
    content: list[list[tuple[int, int]]] = [[] for _ in range(int(unit.max()) + 1)]
    pairs, counts = np.unique(np.stack([unit, strata], axis=1), axis=0, return_counts=True)
    for (u, s), count in zip(pairs.tolist(), counts.tolist(), strict=True):
        content[u].append((s, count))
    return content


def _strata(data: LabelledData) -> Int64s:
    """The stratum of each row, 0 .. S - 1."""
    if data.task.kind == "tokens":
        return np.zeros(len(data), dtype=np.int64)
    targets = cast(npt.NDArray[np.float32], data.targets)
    kinds = {"labels": _rarest_label, "values": _tenths}.get(data.task.kind)
    found = kinds(targets) if kinds else targets
    return np.unique(found, return_inverse=True)[1].astype(np.int64)


def _rarest_label(targets: npt.NDArray[np.float32]) -> Int64s:
    """The rarest label that each row has, -1 where it has none."""
    positive = targets == 1
    rare_first = np.argsort(positive.sum(0), kind="stable")
    ordered = positive[:, rare_first]
    return np.where(ordered.any(1), rare_first[ordered.argmax(1)], -1)


def _tenths(targets: npt.NDArray[np.float32]) -> Int64s:
    """The tenth that each row is in by its mean over the targets; -1 where none is known."""
    known = ~np.isnan(targets)
    count = np.maximum(known.sum(0), 1)
    filled = np.where(known, targets, 0.0).astype(np.float64)
    mean = filled.sum(0) / count
    spread = np.sqrt((np.where(known, filled - mean, 0.0) ** 2).sum(0) / count)
    scaled = np.where(known, (filled - mean) / np.where(spread > 0, spread, 1.0), 0.0)
    rows = known.any(1)
    score = scaled.sum(1) / np.maximum(known.sum(1), 1)
    bins = np.full(len(targets), -1, dtype=np.int64)
    if rows.any():
        edges = np.quantile(score[rows], np.arange(1, VALUE_BINS) / VALUE_BINS)
        bins[rows] = np.searchsorted(edges, score[rows], side="right")
    return bins
