"""Embeddings of sequences: hidden states of a layer, pooled over a sequence, a bin or a base."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hyenadna.alphabet import PAD
from hyenadna.data.batches import BATCH_TOKENS
from hyenadna.data.labelled_batches import padded
from hyenadna.data.records import Record
from hyenadna.errors import InputError
from hyenadna.infer.predict import batches
from hyenadna.infer.reading import Chunk, Reading
from hyenadna.model.backbone import HyenaDNA, require_layer
from hyenadna.model.prompting.prompted import PromptedModel

_SUMMED_AT_ONCE: Final = 8192
_AHEAD_BATCHES: Final = 16
_AHEAD_BATCHES_OF_BINS: Final = 2
"""Chunks of bins are of one length but for the last of a sequence: little is gained by more."""
_AHEAD_UNITS: Final = 4096
_AHEAD_BYTES: Final = 64 << 20

Progress = Callable[[int], None]
"""Told how many tokens more are read."""


@dataclass(frozen=True)
class Stretch:
    """The rows of some sequences, or of a part of a long one, in order."""

    embeddings: npt.NDArray[np.float32]
    """(rows, D)."""
    ended: tuple[Record, ...]
    """The sequences whose last rows these are."""
    within: int
    """Chunks of the sequence behind them whose rows are there too."""


class Mark(NamedTuple):
    """How far an input is done at the end of a stretch."""

    sequences: int = 0
    """Sequences whose rows are all done."""
    within: int = 0
    """Chunks of the one behind them that are done."""
    tokens: int = 0
    """Tokens that were read."""
    rows: int = 0


def marks(
    sequences: Iterable[Record], reading: Reading, batch_tokens: int, width: int
) -> Iterator[Mark]:
    """The end of each stretch that `embed` makes of these sequences, without reading them.

    width: D.
    """
    at = Mark()
    for units in _stretches(sequences, reading, batch_tokens, width, 0):
        chunks = [chunk for unit in units for chunk in unit.chunks]
        at = Mark(
            at.sequences + sum(unit.ends for unit in units),
            0 if units[-1].ends else units[-1].done,
            at.tokens + sum(chunk.stop - chunk.start for chunk in chunks),
            at.rows + (sum(_rows_of(c, reading) for c in chunks) if reading.bin else len(units)),
        )
        yield at


def embed(
    model: HyenaDNA | PromptedModel,
    sequences: Iterable[Record],
    reading: Reading,
    *,
    layer: int = -1,
    within: int = 0,
    batch_tokens: int = BATCH_TOKENS,
    precision: torch.dtype | None = None,
    progress: Progress | None = None,
) -> Iterator[Stretch]:
    """The rows of all sequences, in order, a stretch at a time.

    A row is the mean of the hidden states of its bases, or the state of the last one; see
    `hyenadna.infer.reading`. Every base counts, N as well; padding never does. A row is the same
    alone and in any batch, up to rounding; sums are kept in float64.

    model: or one behind a soft prompt: each chunk is then read behind its vectors, which are no
    rows. layer: see `HyenaDNA.layer_states`; behind a soft prompt -1 only. within: chunks of the
    first sequence that are done. A stretch depends on nothing before it: a run that goes on after
    one gives what an unbroken run gives, bit for bit. batch_tokens: chunks are put together up to
    so many tokens with their padding, similar lengths in a batch. precision: type of the matrix
    products. The model is in evaluation mode while rows come, and as before at the end.

    Raises InputError for a layer that is not there, and for chunks too long for the model.
    """
    base = model.model if isinstance(model, PromptedModel) else model
    require_layer(base.config, layer)
    if isinstance(model, PromptedModel) and layer != -1:
        raise InputError(
            f"layer is {layer}; behind a soft prompt the states are those after the final norm (-1)"
        )
    was_training = model.training
    model.eval()
    try:
        for units in _stretches(sequences, reading, batch_tokens, base.config.d_model, within):
            rows = _embed_units(model, units, reading, layer, batch_tokens, precision, progress)
            ended = tuple(unit.record for unit in units if unit.ends)
            yield Stretch(rows, ended, 0 if units[-1].ends else units[-1].done)
    finally:
        model.train(was_training)


@dataclass(frozen=True, slots=True)
class _Unit:
    """What gives whole rows: all chunks of a sequence that is one row, and else one chunk."""

    record: Record
    chunks: tuple[Chunk, ...]
    done: int
    """Chunks of the sequence that are done with this unit."""
    ends: bool
    """Whether it is the last of its sequence."""


def _units(record: Record, reading: Reading, skip: int) -> Iterator[_Unit]:
    if reading.bin is None:
        yield _Unit(record, tuple(reading.chunks(record.length)), 0, True)
        return
    count = reading.count(record.length)
    for number, chunk in enumerate(reading.chunks(record.length), start=1):
        if number > skip:
            yield _Unit(record, (chunk,), number, number == count)
    if not count:
        yield _Unit(record, (), 0, True)


def _stretches(
    sequences: Iterable[Record], reading: Reading, batch_tokens: int, width: int, within: int
) -> Iterator[list[_Unit]]:
    """Units in stretches of several batches, so that similar lengths can meet; rows are bounded."""
    stretch: list[_Unit] = []
    tokens = rows = 0
    ahead = _AHEAD_BATCHES if reading.bin is None else _AHEAD_BATCHES_OF_BINS
    for record in sequences:
        for unit in _units(record, reading, within):
            stretch.append(unit)
            tokens += sum(chunk.stop - chunk.start for chunk in unit.chunks)
            rows += sum(_rows_of(chunk, reading) for chunk in unit.chunks) if reading.bin else 1
            full = tokens >= ahead * batch_tokens or len(stretch) >= _AHEAD_UNITS
            if full or rows * width * 4 >= _AHEAD_BYTES:
                yield stretch
                stretch, tokens, rows = [], 0, 0
        within = 0
    if stretch:
        yield stretch


def _rows_of(chunk: Chunk, reading: Reading) -> int:
    return reading.rows(chunk.stop - chunk.fresh)


def _embed_units(
    model: HyenaDNA | PromptedModel,
    units: Sequence[_Unit],
    reading: Reading,
    layer: int,
    batch_tokens: int,
    precision: torch.dtype | None,
    progress: Progress | None,
) -> npt.NDArray[np.float32]:
    """The rows of the units, in order, (rows, D)."""
    work = [(number, chunk) for number, unit in enumerate(units) for chunk in unit.chunks]
    width = (model.model if isinstance(model, PromptedModel) else model).config.d_model
    whole = reading.bin is None
    ends = np.cumsum(
        [0, *(1 if whole else sum(_rows_of(c, reading) for c in u.chunks) for u in units)]
    )
    rows = np.zeros((int(ends[-1]), width), np.float64 if whole else np.float32)
    for batch in batches([chunk.stop - chunk.start for _, chunk in work], batch_tokens):
        chosen = [work[i] for i in batch]
        ids = [units[number].record.tokens(chunk.start, chunk.stop) for number, chunk in chosen]
        hidden = _states(model, padded(ids, PAD), layer, precision)
        for (number, chunk), states in zip(chosen, hidden, strict=True):
            counted = states[chunk.fresh - chunk.start : chunk.stop - chunk.start]
            if whole:
                rows[number] += _sum(counted[None])[0].cpu().numpy()
            else:
                means = bin_means(counted, reading.bin or 1)
                rows[ends[number] : ends[number + 1]] = means.cpu().numpy()
        if progress:
            progress(sum(map(len, ids)))
    if whole and reading.pool == "mean":
        rows /= np.array([[max(unit.record.length, 1)] for unit in units])
    return rows.astype(np.float32)


@torch.inference_mode()
def _states(
    model: HyenaDNA | PromptedModel, tokens: Tensor, layer: int, precision: torch.dtype | None
) -> Tensor:
    """Hidden states (B, L, D) of right-padded tokens (B, L)."""
    base = model.model if isinstance(model, PromptedModel) else model
    device = base.head_weight.device
    tokens = tokens.to(device)
    with torch.autocast(device.type, dtype=precision, enabled=precision is not None):
        if isinstance(model, PromptedModel):
            return model.states(tokens)
        return model.layer_states(tokens, layer)


def bin_means(states: Tensor, bin: int) -> Tensor:
    """Mean of each `bin` rows of (L, D), the last of what is left: float32 (ceil(L / bin), D).

    Summed in float64, a few thousand rows at a time: exact to float32 rounding for every length,
    and without a second tensor of the size of `states`.
    """
    if bin == 1:
        return states.float()
    length, width = states.shape
    means = states.new_empty((-(-length // bin), width), dtype=torch.float32)
    whole = length // bin
    step = max(1, _SUMMED_AT_ONCE // bin)
    for first in range(0, whole, step):
        last = min(first + step, whole)
        groups = states[first * bin : last * bin].unflatten(0, (-1, bin))
        means[first:last] = _sum(groups) / bin
    if whole < len(means):
        means[whole:] = _sum(states[whole * bin :][None]) / (length - whole * bin)
    return means


def _sum(groups: Tensor) -> Tensor:
    """(G, K, D) -> (G, D): sum over K, in float64."""
    total = groups.new_zeros((len(groups), groups.shape[2]), dtype=torch.float64)
    for start in range(0, groups.shape[1], _SUMMED_AT_ONCE):
        total += groups[:, start : start + _SUMMED_AT_ONCE].double().sum(1)
    return total
