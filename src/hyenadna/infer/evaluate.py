"""How well a model predicts held-out bases, beside yardsticks that know no network."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from hyenadna.alphabet import BASES, IGNORED, Ids, N
from hyenadna.data.batches import BATCH_TOKENS, EvalBatch, evaluation_batches
from hyenadna.data.windows import Regions
from hyenadna.errors import InputError
from hyenadna.genome.compression import adaptive_bits, mixture_bits
from hyenadna.genome.fasta import SOFT_MASK, GenomeReader
from hyenadna.genome.markov import MarkovModel
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.likelihood import target_nats
from hyenadna.model.parallel.ranks import ALONE, Ranks
from hyenadna.training_config import SoftMasked

COMPRESSION_ORDERS: Final = (2, 4, 8, 11, 12, 16)
MOST_COMPRESSED: Final = 10_000_000
"""Bases that the compression yardstick reads at most: it takes about 100 bytes of memory a base."""
_BLOCK: Final = 4_000_000

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ContextBin:
    """Mean over all predictions made with `first` to `last` bases of context."""

    first: int
    last: int
    bits_per_base: float
    bases: int


@dataclass(frozen=True)
class Evaluation:
    """Figures of one model on one part of one genome."""

    genome: str
    bases: int
    """Bases A C G T that counted, each once."""
    loss: float
    """Nats per base, all V classes competing."""
    length: int
    """Bases of a window."""
    context: int
    """Least context of a counted base, except near the start of a region."""
    by_context: tuple[ContextBin, ...]
    markov: dict[int, float] = field(default_factory=dict)
    """Bits per base on the same bases of interpolated Markov models, by order."""
    markov_own: dict[int, float] = field(default_factory=dict)
    """The same of models that learned from this genome alone, where there are several."""
    compression: dict[str, float] = field(default_factory=dict)
    """Bits per base of adaptive order-k compression of the same regions."""

    @property
    def bits_per_base(self) -> float:
        """The loss in bits; 2 is what a fair four-sided die costs."""
        return self.loss / math.log(2)

    @property
    def perplexity(self) -> float:
        """exp(loss): 4 is chance."""
        return math.exp(min(self.loss, 700.0))

    @property
    def best_markov(self) -> tuple[str, float] | None:
        """Name and bits per base of the best Markov model."""
        named = {f"order {k}": bits for k, bits in self.markov.items()}
        named |= {f"order {k}, this genome alone": bits for k, bits in self.markov_own.items()}
        return min(named.items(), key=lambda item: item[1]) if named else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self) | {
            "bits_per_base": self.bits_per_base,
            "perplexity": self.perplexity,
        }


@torch.inference_mode()
def evaluate(
    model: HyenaDNA,
    genome: GenomeReader,
    regions: Regions,
    *,
    length: int | None = None,
    context: int | None = None,
    soft_masked: SoftMasked = "keep",
    batch_tokens: int = BATCH_TOKENS,
    precision: torch.dtype | None = None,
    progress: Progress | None = None,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """Loss of the model on every base A C G T of the regions, but the first of each.

    `length`: bases of a window, the model's maximum less 2 when left out. `context`: windows
    overlap so that each counted base has at least so many before it, half a window when left out.
    `soft_masked`: whether lower-case bases count. `by_context` counts every prediction of every
    window, whatever its context. `ranks`: the processes that evaluate together, each its part of
    the batches, which are as small as the smallest `batch_tokens` of any; all get the result.

    Raises InputError when there is nothing to evaluate or an option is out of range.
    """
    length, context = require_window(model, length, context)
    device = model.head_weight.device
    was_training = model.training
    model.eval()
    nats = np.zeros(length)
    seen = np.zeros(length, dtype=np.int64)
    total, bases, done = 0.0, 0, 0
    batches = evaluation_batches(
        genome,
        regions,
        length=length,
        context=context,
        batch_size=max(1, ranks.least(batch_tokens) // length),
        soft_masked=soft_masked,
    )
    try:
        for number, batch in enumerate(batches):
            done += sum(w.stop - w.start - 1 - w.score_from for w in batch.windows)
            if number % ranks.count != ranks.rank:
                continue
            every = _every_target(batch).to(device)
            with torch.autocast(device.type, dtype=precision, enabled=precision is not None):
                each = target_nats(model, batch.inputs.to(device), every).cpu().double()
            counted = batch.targets != IGNORED
            total += float(each[counted].sum())
            bases += int(counted.sum())
            nats += each.sum(0).numpy()
            seen += (every != IGNORED).sum(0).cpu().numpy()
            if progress:
                progress(done, regions.bases)
    finally:
        model.train(was_training)
    if ranks.together:
        sums = ranks.total([total, bases, *nats.tolist(), *seen.tolist()], device)
        total, bases = sums[0], int(sums[1])
        nats, seen = np.array(sums[2 : length + 2]), np.array(sums[length + 2 :], dtype=np.int64)
    if not bases:
        raise InputError(
            f"{genome.path}: no base to evaluate in {regions.bases} bases; check the split"
        )
    return Evaluation(genome.name, bases, total / bases, length, context, _context_bins(nats, seen))


def with_yardsticks(
    evaluation: Evaluation,
    genome: GenomeReader,
    regions: Regions,
    markov: MarkovModel | None,
    *,
    markov_own: MarkovModel | None = None,
    compression: bool = True,
    soft_masked: SoftMasked = "keep",
) -> Evaluation:
    """The evaluation with the Markov and the compression figures on the same bases filled in."""

    def bits(model: MarkovModel | None) -> dict[int, float]:
        return markov_bits(model, genome, regions, soft_masked=soft_masked) if model else {}

    packed = compression_bits(genome, regions, soft_masked=soft_masked) if compression else {}
    return dataclasses.replace(
        evaluation, markov=bits(markov), markov_own=bits(markov_own), compression=packed
    )


def fit_markov(
    sources: Sequence[tuple[GenomeReader, Regions]], *, order: int = 12, both_strands: bool = True
) -> MarkovModel:
    """Interpolated Markov models of all orders up to `order`, learned from the regions."""
    sequences = (ids for genome, regions in sources for ids, _ in _sequences(genome, regions))
    return MarkovModel.fit(sequences, order=order, both_strands=both_strands)


def markov_bits(
    markov: MarkovModel,
    genome: GenomeReader,
    regions: Regions,
    *,
    soft_masked: SoftMasked = "keep",
) -> dict[int, float]:
    """Bits per base by order over the bases that `evaluate` counts."""
    totals, bases = np.zeros(markov.order + 1), 0
    for ids, counted in _sequences(genome, regions, soft_masked):
        for start in range(0, len(ids), _BLOCK):
            front = max(0, start - markov.order)
            block = slice(front, start + _BLOCK)
            log2 = markov.all_orders(ids[block])
            log2[:, ~counted[block]] = np.nan
            log2 = log2[:, max(start - front, 1) :]  # without context, or a region's first base
            totals -= np.nansum(log2, axis=1, dtype=np.float64)
            bases += int(np.isfinite(log2[0]).sum())
    return {k: float(bits) / bases for k, bits in enumerate(totals)} if bases else {}


def compression_bits(
    genome: GenomeReader, regions: Regions, *, soft_masked: SoftMasked = "keep"
) -> dict[str, float]:
    """Bits per base of adaptive coders that start empty and read the regions one after the other.

    Keys: `order k`, and `mixture` of many orders. At most 10 million bases are read.
    """
    gap = (np.full(1, N, dtype=np.uint8), np.zeros(1, dtype=bool))
    pieces, size = [], 0
    for ids, counted in _sequences(genome, regions, soft_masked):
        room = MOST_COMPRESSED - size
        pieces += [(ids[:room], counted[:room]), gap]
        size += len(pieces[-2][0])
        if size >= MOST_COMPRESSED:
            break
    ids, counted = (np.concatenate(column) for column in zip(*pieces, strict=True))
    each = {f"order {k}": adaptive_bits(ids, k) for k in COMPRESSION_ORDERS}
    each["mixture"] = mixture_bits(ids)
    return {name: float(np.nanmean(bits[counted])) for name, bits in each.items()}


def require_window(
    model: HyenaDNA, length: int | None = None, context: int | None = None
) -> tuple[int, int]:
    """Length and context of the windows, with their defaults. Raises InputError out of range."""
    longest = model.config.max_seq_len
    length = max(longest - 2, 1) if length is None else length
    if not 1 <= length <= longest:
        raise InputError(f"window length is {length}; this model reads 1 to {longest:,} bases")
    context = length // 2 if context is None else context
    if not 0 <= context < length:
        raise InputError(f"context is {context}; it must be in 0 .. {length - 1}")
    return length, context


def _every_target(batch: EvalBatch) -> torch.Tensor:
    """Targets of all positions that are bases, counted in this window or not: (B, L)."""
    following = torch.cat([batch.inputs[:, 1:], batch.targets[:, -1:]], dim=1)
    return following.where(torch.isin(following, torch.tensor(BASES)), IGNORED)


def _context_bins(nats: np.ndarray, seen: np.ndarray) -> tuple[ContextBin, ...]:
    """Bins of doubling width over the number of bases seen: 1, 2-3, 4-7, …"""
    bins = []
    first = 1
    while first <= len(nats):
        last = 2 * first - 1
        if len(nats) < last + first:  # less than half a bin would be left over
            last = len(nats)
        here = slice(first - 1, last)
        count = int(seen[here].sum())
        if count:
            bits = float(nats[here].sum()) / count / math.log(2)
            bins.append(ContextBin(first, last, bits, count))
        first = last + 1
    return tuple(bins)


def _sequences(
    genome: GenomeReader, regions: Regions, soft_masked: SoftMasked = "keep"
) -> Iterator[tuple[Ids, npt.NDArray[np.bool_]]]:
    """Token ids of each region, and which of them count as far as their case goes."""
    for interval in regions.intervals:
        cased = genome.cased_tokens(interval.contig, interval.start, interval.stop)
        upper = cased < SOFT_MASK
        yield cased & np.uint8(SOFT_MASK - 1), upper | (soft_masked == "keep")
