"""What a model makes of every base of a genome: its surprisal, and what it expected.

For each base and strand, in bits:

    surprisal       -log2 of the probability of the base that stands there. All V classes compete,
                    as in the loss; missing (NaN) where no A C G T stands
    entropy         of the predicted distribution over A C G T, scaled to a sum of 1; also at an N
    probability_A … that distribution itself

The reverse strand is read in its own direction, as its reverse complement, so that the context of a
base is what lies to its right. Its values stand at the same base of the genome, and its
probabilities are those of the letters of the forward strand. The first base of a strand has nothing
before it, so no values.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hyenadna.alphabet import BASES, PAD, A, Ids, T, reverse_complement_ids
from hyenadna.data.batches import BATCH_TOKENS
from hyenadna.genome.fasta import GenomeReader
from hyenadna.genome.intervals import Interval
from hyenadna.infer.track_windows import STRANDS, Strand, TrackPlan, TrackWindow
from hyenadna.model.backbone import HyenaDNA

Value = Literal["surprisal", "entropy", "probabilities"]
CHANNELS: Final[dict[Value, tuple[str, ...]]] = {
    "surprisal": ("surprisal",),
    "entropy": ("entropy",),
    "probabilities": ("probability_A", "probability_C", "probability_G", "probability_T"),
}
"""What each value is made of."""
_AT_ONCE: Final = 8192
"""Bases whose logits are held at a time."""
_MOST_WINDOWS: Final = 4096
"""Windows of a batch at most: those that are not read, all N, cost no tokens."""

Floats = npt.NDArray[np.float32]


class TrackedBases(NamedTuple):
    """Values of bases side by side on one strand."""

    contig: str
    start: int
    strand: Strand
    values: Floats
    """(channels, bases), in the order of the genome; NaN where there is none."""


@dataclass(frozen=True)
class TrackedBatch:
    """What one pass of the model gave."""

    windows: int
    """Windows that are done by it."""
    tracked: tuple[TrackedBases, ...]
    """One for each of them, in order. Bases between two regions of a window have values too."""


class _Reading(NamedTuple):
    """A window with its bases in the direction of its strand; without where it is not read."""

    window: TrackWindow
    ids: Ids | None

    @property
    def length(self) -> int:
        return self.window.length


def channels(values: Sequence[Value]) -> tuple[str, ...]:
    """Names of the channels of these values, in the order of the rows of `TrackedBases.values`."""
    return tuple(name for value in CHANNELS if value in values for name in CHANNELS[value])


def track(
    model: HyenaDNA,
    genome: GenomeReader,
    windows: Iterable[TrackWindow],
    *,
    values: Sequence[Value] = ("surprisal",),
    batch_tokens: int = BATCH_TOKENS,
    precision: torch.dtype | None = None,
) -> Iterator[TrackedBatch]:
    """Values of the bases of each window, a batch of windows at a time, in order.

    windows: of a `TrackPlan`; a batch depends on none before it, so that a run can go on behind any
    batch. values: which ones. batch_tokens: windows are put together up to so many tokens.
    precision: type of the matrix products. The model is in evaluation mode while the values come,
    and as before at the end. Where only surprisal is asked for, windows whose bases are all N are
    not read.

    Raises InputError for a window that is not on the genome or too long for the model.
    """
    was_training = model.training
    model.eval()
    try:
        for batch in _batches(_readings(genome, windows, values), batch_tokens):
            yield TrackedBatch(len(batch), tuple(_track_batch(model, batch, values, precision)))
    finally:
        model.train(was_training)


def track_interval(
    model: HyenaDNA,
    genome: GenomeReader,
    interval: Interval,
    *,
    values: Sequence[Value] = ("surprisal",),
    length: int | None = None,
    context: int | None = None,
    strands: tuple[Strand, ...] = STRANDS,
    batch_tokens: int = BATCH_TOKENS,
    precision: torch.dtype | None = None,
) -> dict[Strand, dict[str, Floats]]:
    """Values of each base of one interval by strand and channel, each (bases,).

    length: tokens of a window, the model's maximum less 2 when left out. context: least bases
    before a base, half a window when left out. Errors as for `track`; InputError for a length or
    context out of range, too.
    """
    from hyenadna.infer.evaluate import require_window

    length, context = require_window(model, length, context)
    genome.require_range(interval.contig, interval.start, interval.stop)
    regions = (interval,) if interval.length else ()
    plan = TrackPlan(genome.contigs, regions, length, context, strands)
    names = channels(values)
    shape = (len(names), interval.length)
    found = {strand: np.full(shape, np.nan, dtype=np.float32) for strand in strands}
    batches = track(
        model,
        genome,
        plan.windows(),
        values=values,
        batch_tokens=batch_tokens,
        precision=precision,
    )
    for batch in batches:
        for each in batch.tracked:
            at = each.start - interval.start
            found[each.strand][:, at : at + each.values.shape[1]] = each.values
    return {strand: dict(zip(names, rows, strict=True)) for strand, rows in found.items()}


def _readings(
    genome: GenomeReader, windows: Iterable[TrackWindow], values: Sequence[Value]
) -> Iterator[_Reading]:
    surprisal_only = set(values) == {"surprisal"}
    for window in windows:
        if not window.length:  # the one base of a strand that has nothing before it
            yield _Reading(window, None)
            continue
        ids = genome.tokens(window.contig, window.start, window.stop)
        valued = ids[window.first - window.start : window.last - window.start]
        if surprisal_only and not np.isin(valued, BASES).any():
            yield _Reading(window, None)
        else:
            yield _Reading(window, reverse_complement_ids(ids) if _is_back(window) else ids)


def _batches(readings: Iterable[_Reading], batch_tokens: int) -> Iterator[list[_Reading]]:
    """Windows that make one pass together, as `embed.batches` puts them; and those not read."""
    batch: list[_Reading] = []
    lengths: list[int] = []
    for reading in readings:
        if reading.ids is not None:
            tried = [*lengths, reading.length]
            full = len(tried) * max(tried) > batch_tokens
            if lengths and (full or 2 * min(tried) < max(tried)):
                yield batch
                batch, lengths = [], []
            lengths.append(reading.length)
        batch.append(reading)
        if len(batch) == _MOST_WINDOWS:
            yield batch
            batch, lengths = [], []
    if batch:
        yield batch


@torch.inference_mode()
def _track_batch(
    model: HyenaDNA,
    batch: Sequence[_Reading],
    values: Sequence[Value],
    precision: torch.dtype | None,
) -> Iterator[TrackedBases]:
    hidden = _hidden(model, [r.ids for r in batch if r.ids is not None], precision)
    for window, ids in batch:
        if ids is None:
            shape = (len(channels(values)), window.last - window.first)
            found = np.full(shape, np.nan, dtype=np.float32)
        else:
            found = _window_values(model, next(hidden), ids, window.last - window.first, values)
        if _is_back(window):
            found = _turned(found, values)
        yield TrackedBases(window.contig, window.first, window.strand, found)


def _hidden(
    model: HyenaDNA, rows: Sequence[Ids], precision: torch.dtype | None
) -> Iterator[Tensor]:
    """Hidden states (length, D) of each row of bases, all but the last read."""
    if not rows:
        return iter(())
    longest = max(len(ids) for ids in rows) - 1
    tokens = np.full((len(rows), longest), PAD, dtype=np.uint8)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids) - 1] = ids[:-1]
    device = model.head_weight.device
    with torch.autocast(device.type, dtype=precision, enabled=precision is not None):
        hidden = model.embed(torch.from_numpy(tokens).to(device))
    return iter(hidden)


def _window_values(
    model: HyenaDNA, hidden: Tensor, ids: Ids, count: int, values: Sequence[Value]
) -> Floats:
    """Values of the last `count` of the bases `ids`: (channels, count)."""
    out = np.full((len(channels(values)), count), np.nan, dtype=np.float32)
    targets = torch.from_numpy(ids.astype(np.int64)).to(hidden.device)
    begin = max(1, len(ids) - count)  # the first base has no prediction
    for start in range(begin, len(ids), _AT_ONCE):
        stop = min(start + _AT_ONCE, len(ids))
        at = start - (len(ids) - count)
        found = _values(model.logits(hidden[start - 1 : stop - 1]), targets[start:stop], values)
        out[:, at : at + stop - start] = found.float().cpu().numpy()
    return out


def _values(logits: Tensor, targets: Tensor, values: Sequence[Value]) -> Tensor:
    """(channels, L) from logits (L, V) and the bases (L,) that followed."""
    rows = []
    if "surprisal" in values:
        nats = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        known = (targets >= A) & (targets <= T)
        rows.append(torch.where(known, nats / math.log(2), math.nan)[None])
    if "entropy" in values or "probabilities" in values:
        log = logits[:, A : T + 1].log_softmax(-1)
        chances = log.exp()
        if "entropy" in values:
            rows.append(-(chances * log).sum(-1)[None] / math.log(2))
        if "probabilities" in values:
            rows.append(chances.T)
    return torch.cat(rows)


def _is_back(window: TrackWindow) -> bool:
    return window.strand == "reverse"


def _turned(found: Floats, values: Sequence[Value]) -> Floats:
    """Values of the reverse strand at the bases, and for the letters, of the forward one."""
    found = found[:, ::-1].copy()
    if "probabilities" in values:  # A C G T pair with T G C A
        found[-4:] = found[-4:][::-1].copy()
    return found
