"""Embeddings of a genome: the mean of the final hidden states over each stretch of bases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hyenadna.alphabet import PAD
from hyenadna.config import ModelConfig
from hyenadna.data.batches import BATCH_TOKENS
from hyenadna.errors import InputError
from hyenadna.genome.fasta import GenomeReader
from hyenadna.genome.intervals import Interval, unknown_contig
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.prompting.prompted import PromptedModel

_SUMMED_AT_ONCE: Final = 8192


@dataclass(frozen=True)
class Tiling:
    """Contigs cut into windows, which the model reads, and into bins, each of which is one row.

    Windows hold whole bins, so that the bins are those of the contig, wherever the windows end;
    only the last of a contig is shorter.
    """

    contigs: Mapping[str, int]
    """Lengths by name."""
    length: int
    """Bases of a window, a multiple of `bin`."""
    bin: int
    """Bases of a row."""

    @property
    def bases(self) -> int:
        """Bases in all contigs."""
        return sum(self.contigs.values())

    @property
    def rows(self) -> int:
        """Number of bins."""
        return sum(-(-bases // self.bin) for bases in self.contigs.values())

    @property
    def count(self) -> int:
        """Number of windows."""
        return sum(-(-bases // self.length) for bases in self.contigs.values())

    def windows(self) -> Iterator[Interval]:
        """The windows, contig by contig from front to end."""
        for contig, bases in self.contigs.items():
            for start in range(0, bases, self.length):
                yield Interval(contig, start, min(start + self.length, bases))

    def rows_of(self, window: Interval) -> int:
        """Number of bins in a window."""
        return -(-window.length // self.bin)


@dataclass(frozen=True)
class EmbeddedWindow:
    """The rows of one window."""

    window: Interval
    embeddings: npt.NDArray[np.float32]
    """One row for each bin of the window, (rows, D)."""


def tile_genome(
    config: ModelConfig,
    genome: GenomeReader,
    *,
    length: int | None = None,
    bin: int | None = None,
    contigs: Sequence[str] = (),
    soft_tokens: int = 0,
) -> Tiling:
    """Windows and bins over a genome for a model of this shape.

    length: bases of a window; the model's maximum less 2 when left out, and no more than that
    maximum. It is cut down to whole bins. bin: bases of a row, 1 .. length; the whole window when
    left out. contigs: names, all when left out; in the order of the genome. soft_tokens: vectors
    before each window, which leave it so much less room.

    Raises InputError for a length or bin out of range, an unknown contig, and where there is no
    base.
    """
    longest = config.max_seq_len - soft_tokens
    length = max(longest - 2, 1) if length is None else length
    if not 1 <= length <= longest:
        behind = f" behind {soft_tokens:,} soft tokens" if soft_tokens else ""
        raise InputError(f"--length is {length}; this model reads 1 to {longest:,} bases{behind}")
    bin = length if bin is None else bin
    if not 1 <= bin <= length:
        raise InputError(f"--bin is {bin}; it must be 1 to the length of a window, {length:,}")
    for contig in contigs:
        if contig not in genome.contigs:
            raise InputError(unknown_contig(contig, genome.contigs, str(genome.path)))
    chosen = {c: n for c, n in genome.contigs.items() if not contigs or c in contigs}
    if not any(chosen.values()):
        raise InputError(f"{genome.path}: no base to embed in {len(chosen)} contigs")
    return Tiling(chosen, length // bin * bin, bin)


def embed(
    model: HyenaDNA | PromptedModel,
    genome: GenomeReader,
    windows: Iterable[Interval],
    *,
    bin: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    precision: torch.dtype | None = None,
) -> Iterator[EmbeddedWindow]:
    """The rows of each window, in order: means of the hidden states after the final norm.

    model: or one behind a soft prompt: each window is then read behind its vectors, which are no
    rows. windows: each is read by itself, so its first bases have little context. bin: bases of a
    row, from the start of the window on (the last row has what is left); the whole window when
    left out. Every base counts, N as well; padding never does. batch_tokens: short windows are put
    together up to so many tokens. precision: type of the matrix products. The sums are kept in
    float64. The model is in evaluation mode while the rows come, and as before at the end.

    Raises InputError for a window that is not on the genome, empty, or too long for the model,
    and for a bin below 1.
    """
    if bin is not None and bin < 1:
        raise InputError(f"bin is {bin}; it must be at least 1")
    was_training = model.training
    model.eval()
    try:
        for batch in batches(windows, batch_tokens):
            yield from _embed_batch(model, genome, batch, bin, precision)
    finally:
        model.train(was_training)


def batches(
    windows: Iterable[Interval], batch_tokens: int = BATCH_TOKENS
) -> Iterator[list[Interval]]:
    """Windows that make one forward pass together, in order.

    At most `batch_tokens` tokens with the padding (or one longer window), and none less than half
    as long as the longest: padding costs time. A batch depends on no window before it, so that an
    interrupted run can go on from the end of any of them.
    """
    batch: list[Interval] = []
    for window in windows:
        lengths = [window.length, *(other.length for other in batch)]
        full = len(lengths) * max(lengths) > batch_tokens
        if batch and (full or 2 * min(lengths) < max(lengths)):
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


def last_boundary(
    tiling: Tiling, rows: int, batch_tokens: int = BATCH_TOKENS
) -> tuple[int, int, int]:
    """Windows, rows and bases up to the last end of a batch that `rows` finished rows reach."""
    done = (0, 0, 0)
    for batch in batches(tiling.windows(), batch_tokens):
        reached = (
            done[0] + len(batch),
            done[1] + sum(tiling.rows_of(window) for window in batch),
            done[2] + sum(window.length for window in batch),
        )
        if reached[1] > rows:
            break
        done = reached
    return done


@torch.inference_mode()
def _embed_batch(
    model: HyenaDNA | PromptedModel,
    genome: GenomeReader,
    batch: Sequence[Interval],
    bin: int | None,
    precision: torch.dtype | None,
) -> list[EmbeddedWindow]:
    longest = max(window.length for window in batch)
    tokens = np.full((len(batch), longest), PAD, dtype=np.uint8)
    for row, window in zip(tokens, batch, strict=True):
        row[: window.length] = genome.tokens(window.contig, window.start, window.stop)
    base, read = (
        (model.model, model.states) if isinstance(model, PromptedModel) else (model, model.embed)
    )
    device = base.head_weight.device
    with torch.autocast(device.type, dtype=precision, enabled=precision is not None):
        hidden = read(torch.from_numpy(tokens).to(device))
    return [
        EmbeddedWindow(window, bin_means(states[: window.length], bin or longest).cpu().numpy())
        for window, states in zip(batch, hidden, strict=True)
    ]


def bin_means(states: Tensor, bin: int) -> Tensor:
    """Mean of each `bin` rows of (L, D), the last of what is left: float32 (ceil(L / bin), D).

    Summed in float64, a few thousand rows at a time: exact to float32 rounding for every length,
    and without a second tensor of the size of `states`.
    """
    length, width = states.shape
    means = states.new_empty((-(-length // bin), width), dtype=torch.float32)
    whole = length // bin
    step = max(1, _SUMMED_AT_ONCE // bin)
    for first in range(0, whole, step):
        last = min(first + step, whole)
        means[first:last] = _means(states[first * bin : last * bin].unflatten(0, (-1, bin)))
    if whole < len(means):
        means[whole:] = _means(states[whole * bin :][None])
    return means


def _means(groups: Tensor) -> Tensor:
    """(G, K, D) -> (G, D): mean over K, in float64."""
    count = groups.shape[1]
    total = groups.new_zeros((len(groups), groups.shape[2]), dtype=torch.float64)
    for start in range(0, count, _SUMMED_AT_ONCE):
        total += groups[:, start : start + _SUMMED_AT_ONCE].double().sum(1)
    return total / count
