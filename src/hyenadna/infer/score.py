"""Scores of variants: how likely a causal model finds an allele, beside what the genome has there.

The genome is read on both strands, in windows: bases before the variant (the context), the allele,
and `after` bases behind it. A score compares the two alleles with all else alike:

    LLR = log P(alt, after | before) - log P(ref, after | before)        in nats

Windows start on a grid, so that neighbouring variants share one. Its reference is read once, and
each alternative allele is a branch of it, read behind (`hyenadna.model.decoding.trunk`): the cost
of a variant is that of its allele and of the `after` bases. Why, and why these lengths:
docs/decisions/variant-scores.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hyenadna.alphabet import PAD, A, Ids, T, reverse_complement_ids
from hyenadna.config import ModelConfig
from hyenadna.errors import InputError
from hyenadna.genome.fasta import GenomeReader
from hyenadna.genome.variants import Allele, Note, Stretches
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.decoding.shared_reading import read_whole
from hyenadna.model.decoding.trunk import Trunk, TrunkReader

Strands = Literal["average", "forward", "reverse"]
Method = Literal["shared", "whole"]

LONGEST_WINDOW: Final = 8192
"""Bases of a window, where nothing is asked for and the model reads more."""
AFTER: Final = 128
"""Bases behind the allele that are counted, where nothing is asked for."""
CHUNK: Final = 2048
"""Variants that are sorted and scored together."""
_ROW_TOKENS: Final = {"cpu": 1 << 12}
_ROW_TOKENS_ELSEWHERE: Final = 1 << 16
_LENGTHS: Final = 8
"""Windows are cut behind the last variant, to one of so many lengths, whose spectra are kept."""


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Where windows start, and what is read in them; made by `plan_windows`."""

    length: int
    """Bases of a window."""
    context: int
    """Bases before a variant, at least, where the contig has them."""
    after: int
    """Bases behind an allele that count."""
    allele: int
    """Longest allele in a window of the grid; a longer one has a window of its own."""
    limit: int
    """Tokens that the model reads."""

    @property
    def step(self) -> int:
        """From one window of the grid to the next."""
        return self.length - self.context - self.after - self.allele

    def start(self, at: int, longest: int) -> int | None:
        """First base of the window of a variant at `at`, both counted on the strand from 0.

        A function of the position and of the longer allele, and of nothing else. None where the
        model cannot read context, allele and what is behind.
        """
        if longest <= self.allele:
            return max(0, at // self.step * self.step - self.context)
        if self.context + longest + self.after > self.limit:
            return None
        return max(0, at - self.context)


class Score(NamedTuple):
    """What a model makes of one alternative allele; nan where there is no value."""

    llr: float = math.nan
    """log P(alt, after | before) - log P(ref, after | before), nats; mean of the strands."""
    llr_forward: float = math.nan
    """The same on the strand of the file."""
    llr_reverse: float = math.nan
    """The same on the other strand, whose context is to the right."""
    llr_allele: float = math.nan
    """The part of the alleles' own bases; only of alleles of one length."""
    dist: float = math.nan
    """Euclidean distance between the mean hidden states over the bases behind; mean of strands."""
    note: Note | None = None
    """Why there is no value, or not that of both strands."""


NO_CHANGE: Final = Score(0.0, 0.0, 0.0, 0.0, 0.0)


def plan_windows(
    config: ModelConfig,
    *,
    length: int | None = None,
    context: int | None = None,
    after: int | None = None,
) -> Windows:
    """Windows for a model of this shape.

    length: the model's maximum less 2, at most 8,192, when left out. context: half of that. after:
    128, at most a quarter of the length. Raises InputError for what does not fit together.
    """
    limit = config.max_seq_len
    length = min(LONGEST_WINDOW, max(limit - 2, 1)) if length is None else length
    if not 8 <= length <= limit:
        raise InputError(f"--length is {length}; this model reads windows of 8 to {limit:,} bases")
    context = length // 2 if context is None else context
    after = min(AFTER, max(1, length // 4)) if after is None else after
    allele = max(1, length // 16)
    windows = Windows(length=length, context=context, after=after, allele=allele, limit=limit)
    if context < 1 or after < 1 or windows.step < 1:
        raise InputError(
            f"--context {context} and --after {after} must be at least 1 and together leave some "
            f"of --length {length} for alleles of {allele} and for the variants that share a "
            f"window: at most {length - allele - 1} of them"
        )
    return windows


def score(
    model: HyenaDNA,
    genome: GenomeReader,
    variants: Iterable[Allele | Note],
    *,
    windows: Windows | None = None,
    strands: Strands = "average",
    method: Method = "shared",
    precision: torch.dtype | None = None,
) -> Iterator[Score]:
    """The score of each variant, in order.

    variants: alleles of this genome, or why there is none (which becomes the note), as
    `hyenadna.genome.variants.AlleleReader` gives them. windows: see `plan_windows`. method: `whole`
    passes each haplotype through the model by itself, the slow twin. precision: type of the matrix
    products. A score depends on the variant and these settings, and on no other variant, beyond
    rounding. The model is in evaluation mode while the scores come, and as before at the end.

    Raises InputError where the genome cannot be read, and for a variant that is not on it.
    """
    scorer = Scorer(
        model, genome, windows=windows, strands=strands, method=method, precision=precision
    )
    was_training = model.training
    model.eval()
    try:
        rest = iter(variants)
        while chunk := list(islice(rest, CHUNK)):
            yield from scorer.scores(chunk)
    finally:
        model.train(was_training)


class _Reading(NamedTuple):
    """One allele on one strand; positions count on the strand."""

    variant: int
    """Its number in the chunk."""
    reverse: bool
    contig: str
    start: int
    """First base of the window."""
    at: int
    """Where the allele begins in the window: bases before it."""
    ref: int
    """Length of the reference allele."""
    alt: Ids
    after: int
    """Bases behind the allele: fewer at the end of a contig."""

    @property
    def reach(self) -> int:
        """Tokens of the window that are needed."""
        return self.at + max(self.ref, len(self.alt)) + self.after


class Scorer:
    """Scores variants of one genome with one model in evaluation mode, chunk by chunk.

    Arguments as for `score`.
    """

    def __init__(
        self,
        model: HyenaDNA,
        genome: GenomeReader,
        *,
        windows: Windows | None = None,
        strands: Strands = "average",
        method: Method = "shared",
        precision: torch.dtype | None = None,
    ) -> None:
        self.model, self.contigs = model, genome.contigs
        self.windows = windows or plan_windows(model.config)
        self.method, self.precision = method, precision
        self.reverses = {"average": (False, True), "forward": (False,), "reverse": (True,)}[strands]
        self.device = model.head_weight.device
        self._stretches = Stretches(genome)
        self._reader = TrunkReader(model) if method == "shared" else None

    @torch.inference_mode()
    def scores(
        self,
        variants: Sequence[Allele | Note],
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Score]:
        """The score of each variant, in order. progress: told (done, total) now and then."""
        found = np.full((len(variants), 2, 3), np.nan)  # strand; llr, of the allele, distance
        notes: dict[int, Note] = {}
        readings: list[_Reading] = []
        for index, variant in enumerate(variants):
            if isinstance(variant, Note):
                notes[index] = variant
            elif variant.kind != "none":
                readings += self._readings(index, variant, notes)
        readings.sort(key=_cell)
        done = 0
        for _, each in groupby(readings, key=_cell):
            cell = list(each)
            values = self._of_cell(cell)
            for reading, row in zip(cell, values, strict=True):
                found[reading.variant, int(reading.reverse)] = row
            done += len(cell)
            if progress:
                progress(done, len(readings))
        return [
            self._score(variant, rows, notes.get(index))
            for index, (variant, rows) in enumerate(zip(variants, found, strict=True))
        ]

    def _readings(self, index: int, allele: Allele, notes: dict[int, Note]) -> Iterator[_Reading]:
        """One for each strand on which the allele has a base before it."""
        whole = self.contigs.get(allele.contig, -1)
        if not 0 <= allele.start <= allele.stop <= whole:
            raise InputError(
                f"variant at {allele.contig}:{allele.start + 1} is not on the genome; read it with "
                "AlleleReader, which gives a note instead"
            )
        longest = max(len(allele.ref), len(allele.alt))
        without = 0
        for reverse in self.reverses:
            at = whole - allele.stop if reverse else allele.start
            start = self.windows.start(at, longest)
            if start is None:
                notes[index] = Note.ALLELE_TOO_LONG
                return
            if at == 0:
                without += 1
                continue
            behind = whole - at - len(allele.ref)
            yield _Reading(
                index,
                reverse,
                allele.contig,
                start,
                at - start,
                len(allele.ref),
                reverse_complement_ids(allele.alt) if reverse else allele.alt,
                min(self.windows.after, behind),
            )
        if without:
            notes[index] = Note.NO_CONTEXT if without == len(self.reverses) else Note.ONE_STRAND

    def _score(
        self, variant: Allele | Note, rows: npt.NDArray[np.float64], note: Note | None
    ) -> Score:
        """The score of the values (strand; llr, of the allele, distance) of one variant."""
        if isinstance(variant, Allele) and variant.kind == "none":
            asked = [0.0 if r in self.reverses else math.nan for r in (False, True)]
            return NO_CHANGE._replace(llr_forward=asked[0], llr_reverse=asked[1])
        there = rows[~np.isnan(rows[:, 0])]
        if not len(there):
            return Score(note=note)
        llr, of_allele = there[:, :2].mean(0).tolist()
        distances = there[~np.isnan(there[:, 2]), 2]
        dist = float(distances.mean()) if len(distances) else math.nan
        if isinstance(variant, Allele) and len(variant.ref) != len(variant.alt):
            of_allele = math.nan
        return Score(llr, float(rows[0, 0]), float(rows[1, 0]), of_allele, dist, note)

    def _of_cell(self, cell: Sequence[_Reading]) -> npt.NDArray[np.float64]:
        """Values (R, 3) of all alleles of one window: llr, of the allele, distance."""
        window = self._window(cell)
        with torch.autocast(
            self.device.type, dtype=self.precision, enabled=self.precision is not None
        ):
            if self._reader is None:
                return np.array([self._whole(window, reading) for reading in cell])
            tokens = torch.from_numpy(window.astype(np.int64)).to(self.device)
            trunk = self._reader.read(tokens)
            reference = _Reference(trunk, window)
            out = np.empty((len(cell), 3))
            for chosen in _batches([len(r.alt) + r.after for r in cell], self._row_tokens):
                out[chosen] = self._branches(reference, [cell[i] for i in chosen])
        return out

    def _window(self, cell: Sequence[_Reading]) -> Ids:
        """Token ids of a window up to where they are needed, or a little more; padded there."""
        one, reach = cell[0], max(reading.reach for reading in cell)
        grid = max(1, self.windows.length // _LENGTHS)
        length = min(-(-reach // grid) * grid, self.windows.limit)
        whole = self.contigs[one.contig]
        stop = min(one.start + length, whole)
        if one.reverse:
            tokens = self._stretches.tokens(one.contig, whole - stop, whole - one.start)
            tokens = reverse_complement_ids(tokens)
        else:
            tokens = self._stretches.tokens(one.contig, one.start, stop)
        out = np.full(length, PAD, dtype=np.uint8)
        out[: len(tokens)] = tokens
        return out

    @property
    def _row_tokens(self) -> int:
        return _ROW_TOKENS.get(self.device.type, _ROW_TOKENS_ELSEWHERE)

    def _branches(
        self, reference: _Reference, readings: Sequence[_Reading]
    ) -> npt.NDArray[np.float64]:
        """Values (B, 3) of alleles that are read in one batch."""
        assert self._reader is not None
        longest = max(1, *(len(r.alt) + r.after for r in readings))
        tokens = np.full((len(readings), longest), PAD, dtype=np.int64)
        for row, r in zip(tokens, readings, strict=True):
            behind = r.at + r.ref
            row[: len(r.alt)] = r.alt
            row[len(r.alt) : len(r.alt) + r.after] = reference.window[behind : behind + r.after]
        at, ref, alt, after = _lengths(readings)
        place = torch.from_numpy(at).to(self.device)
        ends = self._reader.ends(reference.trunk, place, torch.from_numpy(tokens).to(self.device))
        column = np.arange(longest)
        own = column < alt[:, None]
        behind_it = ~own & (column < (alt + after)[:, None]) & _counted(tokens)
        nats = ends.nats.cpu().double().numpy()
        alt_own, alt_after = (np.where(mask, nats, 0).sum(1) for mask in (own, behind_it))
        of_allele = reference.nats(at, at + ref) - alt_own
        llr = of_allele + reference.nats(at + ref, at + ref + after) - alt_after
        return np.stack([llr, of_allele, self._distances(reference, readings, ends.hidden)], 1)

    def _distances(
        self, reference: _Reference, readings: Sequence[_Reading], hidden: Tensor
    ) -> npt.NDArray[np.float64]:
        """Distance (B,) between the mean states of both haplotypes over the bases behind."""
        at, ref, alt, after = (torch.from_numpy(x).to(self.device) for x in _lengths(readings))
        if not int(after.max()):
            return np.full(len(readings), np.nan)
        column = torch.arange(int(after.max()), device=self.device)
        inside = column < after[:, None]
        rows = torch.arange(len(readings), device=self.device)[:, None]
        states = reference.trunk.hidden
        mine = hidden[rows, (alt[:, None] + column).clamp_(max=hidden.shape[1] - 1)]
        there = states[((at + ref)[:, None] + column).clamp_(max=len(states) - 1)]
        moved = torch.where(inside[..., None], (mine - there).float(), 0).sum(1)
        return (moved.norm(dim=1) / after).cpu().double().numpy()  # 0 / 0 is nan: no base behind

    def _whole(self, window: Ids, r: _Reading) -> tuple[float, float, float]:
        """The same values by a pass over each haplotype."""
        front, behind = window[: r.at], window[r.at + r.ref : r.at + r.ref + r.after]
        ref = window[r.at : r.at + r.ref]
        ends = [np.concatenate([own, behind]) for own in (ref, r.alt)]
        own, after = [0.0, 0.0], [0.0, 0.0]
        states: list[Tensor] = []
        for side, (count, end) in enumerate(zip((r.ref, len(r.alt)), ends, strict=True)):
            if not len(end):  # a deletion, or an insertion, at the end of the contig
                continue
            (read,) = read_whole(self.model, front, [end])
            nats = read.nats.cpu().double().numpy() * _counted(end)
            own[side], after[side] = float(nats[:count].sum()), float(nats[count:].sum())
            states.append(read.hidden[count:].float())
        dist = math.nan
        if r.after:
            dist = float((states[1] - states[0]).mean(0).norm())
        of_allele = own[0] - own[1]
        return of_allele + after[0] - after[1], of_allele, dist


class _Reference:
    """A window of the genome that has been read."""

    def __init__(self, trunk: Trunk, window: Ids) -> None:
        self.trunk, self.window = trunk, window
        counted = np.where(_counted(window), trunk.nats.cpu().double().numpy(), 0)
        counted[0] = 0  # has no prediction
        self._sums = np.concatenate([[0.0], counted.cumsum()])

    def nats(
        self, start: npt.NDArray[np.int64], stop: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """Of the bases start .. stop - 1, those that count together."""
        out: npt.NDArray[np.float64] = self._sums[stop] - self._sums[start]
        return out


def _counted(tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Which tokens are A, C, G or T."""
    out: npt.NDArray[np.bool_] = (tokens >= A) & (tokens <= T)
    return out


def _lengths(readings: Sequence[_Reading]) -> tuple[npt.NDArray[np.int64], ...]:
    """Of each: bases before, of ref, of alt, and behind."""
    rows = [(r.at, r.ref, len(r.alt), r.after) for r in readings]
    return tuple(np.array(rows, dtype=np.int64).T.copy())


def _cell(reading: _Reading) -> tuple[bool, str, int]:
    return reading.reverse, reading.contig, reading.start


def _batches(lengths: Sequence[int], row_tokens: int) -> Iterator[list[int]]:
    """Numbers of the ends that make a pass together: of similar lengths, so little is padding."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        full = (len(batch) + 1) * lengths[i] > row_tokens
        if batch and (full or 4 * lengths[i] > 5 * lengths[batch[0]]):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
