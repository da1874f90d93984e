"""Batches of labelled sequences: shuffled, of similar lengths, padded on the right.

A batch is a function of the data, the seed and the epoch only. With a seed every row comes exactly
once an epoch. Rows are shuffled, sorted by length inside pools of about 50 batches, cut into
batches, and the batches are shuffled over the whole epoch: little padding, and no order of lengths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hyenadna.alphabet import IGNORED, PAD, Ids
from hyenadna.data.labelled_data import (
    LabelledData,
    TooLong,
    fit_length,
    other_strand,
    turned_classes,
)
from hyenadna.data.strata import random_bits
from hyenadna.errors import InputError

TOKENS: Final = 32768
"""Tokens of a batch, padding included; a longer sequence makes a batch of its own."""

_POOL_BATCHES: Final = 50
# What the random numbers of an epoch are for.
_ORDER, _BATCH_ORDER, _STRAND = range(3)

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LabelledBatch:
    """Some rows of the data, as tensors."""

    tokens: Tensor
    """(B, L), int64, PAD on the right."""
    lengths: Tensor
    """(B,), int64: tokens of each sequence without padding."""
    targets: Tensor
    """classes: int64 (B,); labels and values: float32 (B, T); tokens: int64 (B, L), IGNORED where
    there is padding or no label."""
    index: Tensor
    """(B,), int64: rows of the data."""


def labelled_batches(
    data: LabelledData,
    *,
    tokens: int = TOKENS,
    rows: int | None = None,
    seed: int | None = None,
    epoch: int = 0,
    length_bucketing: bool = True,
    reverse_complement: float = 0.0,
    max_length: int | None = None,
    too_long: TooLong = "refuse",
) -> Iterator[LabelledBatch]:
    """Batches with every row of the data once.

    tokens, rows: a batch holds at most so many, with its padding; at least one row. seed: of the
    shuffle; None: no shuffle (by length with bucketing, else in the order of the data). epoch: each
    has another order. length_bucketing: put similar lengths together. reverse_complement: chance of
    each row to be read on the other strand, 0 .. 1; without a seed 0 or 1. max_length, too_long: as
    in `fit_length`.

    Raises InputError for a value that is out of range, at the call.
    """
    if not 0 <= reverse_complement <= 1:
        raise InputError(f"reverse_complement is {reverse_complement}; it must be in 0 .. 1")
    if seed is None and reverse_complement not in (0, 1):
        raise InputError(
            f"reverse_complement is {reverse_complement} without a seed; it must then be 0 or 1"
        )
    data = fit_length(data, max_length, too_long)
    plan = plan_batches(
        data.lengths,
        tokens=tokens,
        rows=rows,
        seed=seed,
        epoch=epoch,
        length_bucketing=length_bucketing,
    )
    turned = _turned(len(data), reverse_complement, seed, epoch)
    return (make_batch(data, index, turned[index]) for index in plan)


def plan_batches(
    lengths: Int64s,
    *,
    tokens: int = TOKENS,
    rows: int | None = None,
    seed: int | None = None,
    epoch: int = 0,
    length_bucketing: bool = True,
) -> list[Int64s]:
    """The rows of each batch of an epoch; arguments as in `labelled_batches`.

    lengths: tokens of each sequence, (n,).

    Raises InputError for a budget below 1.
    """
    if tokens < 1 or (rows is not None and rows < 1):
        raise InputError(f"batches of {tokens} tokens and {rows} rows; each must be at least 1")
    n = len(lengths)
    if not n:
        return []
    order = np.arange(n, dtype=np.int64)
    if seed is not None:
        order = np.argsort(random_bits(seed, epoch, _ORDER, order), kind="stable")
    if length_bucketing:
        most = min(rows or n, max(1, int(tokens // max(float(np.mean(lengths)), 1.0))))
        pool = n if seed is None else most * _POOL_BATCHES
        order = np.concatenate(
            [_longest_first(order[at : at + pool], lengths) for at in range(0, n, pool)]
        )
    batches = _cut(order, lengths, tokens, rows or n)
    if seed is not None and length_bucketing:
        number = np.arange(len(batches), dtype=np.int64)
        shuffled = np.argsort(random_bits(seed, epoch, _BATCH_ORDER, number), kind="stable")
        batches = [batches[i] for i in shuffled.tolist()]
    return batches


def make_batch(
    data: LabelledData, index: Int64s, turned: npt.NDArray[np.bool_] | None = None
) -> LabelledBatch:
    """The batch of some rows; those of `turned`, (B,), are read on the other strand.

    Classes of bases turn with their bases, and those of one strand become those of the other.
    """
    picked = index.tolist()
    flips = [False] * len(picked) if turned is None else turned.tolist()
    sequences = [
        other_strand(data.sequences[i]) if flip else data.sequences[i]
        for i, flip in zip(picked, flips, strict=True)
    ]
    targets = data.targets
    if isinstance(targets, tuple):
        rows = [
            turned_classes(targets[i], data.task) if flip else targets[i]
            for i, flip in zip(picked, flips, strict=True)
        ]
        target = padded(rows, IGNORED)
    else:
        chosen = targets[index]
        held_small = chosen.dtype == np.bool_  # labels; a loss is of numbers
        target = torch.from_numpy(chosen.astype(np.float32) if held_small else chosen)
    return LabelledBatch(
        tokens=padded(sequences, PAD),
        lengths=torch.tensor([len(ids) for ids in sequences], dtype=torch.int64),
        targets=target,
        index=torch.from_numpy(index.copy()),
    )


def _turned(n: int, chance: float, seed: int | None, epoch: int) -> npt.NDArray[np.bool_]:
    """Which rows are read on the other strand in an epoch, (n,)."""
    if chance in (0, 1) or seed is None:
        return np.full(n, chance == 1)
    bits = random_bits(seed, epoch, _STRAND, np.arange(n, dtype=np.int64))
    return np.asarray((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53 < chance)


def _longest_first(order: Int64s, lengths: Int64s) -> Int64s:
    """Rows by falling length, those of one length in the order that they had."""
    return order[np.argsort(-lengths[order], kind="stable")]


def _cut(order: Int64s, lengths: Int64s, tokens: int, rows: int) -> list[Int64s]:
    """Rows in their order, in batches that are as large as they may be."""
    bounds, longest, first = [0], 0, 0
    for at, length in enumerate(lengths[order].tolist()):
        longest = max(longest, length)
        count = at - first + 1
        if count > 1 and (count > rows or count * longest > tokens):
            bounds.append(at)
            first, longest = at, length
    return np.split(order, bounds[1:])


def padded(rows: Sequence[Ids | Int64s], value: int) -> Tensor:
    """Rows (L,) of several lengths as one int64 tensor (B, L), filled up on the right."""
    padded = np.full((len(rows), max(len(row) for row in rows)), value, dtype=np.int64)
    for line, row in zip(padded, rows, strict=True):
        line[: len(row)] = row
    return torch.from_numpy(padded)
