"""Batches of windows: the training stream, whose position can be saved, and evaluation batches.

Every sample of the stream is a pure function of the seed and of a few counters, through a hash of
64-bit numbers. So a saved position is a handful of integers, a resumed stream goes on exactly, and
nothing depends on the number of workers or ranks, or on the version of a random generator.

Windows are laid as told in `hyenadna.data.strata`: a pass sees each genome about once. Where the
length changes (sequence-length warm-up), a new pass begins.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch

from hyenadna.alphabet import BASES, COMPLEMENT, IGNORED, PAD, Ids, N
from hyenadna.data.strata import GOLDEN, Int64s, Strata, below, random_bits, shuffled
from hyenadna.data.windows import Regions, Window, tile
from hyenadna.errors import InputError
from hyenadna.genome.fasta import SOFT_MASK, GenomeReader
from hyenadna.genome.intervals import require_within
from hyenadna.training_config import NTargets, SoftMasked

_COUNTED_AT_ONCE: Final = 1 << 22
BATCH_TOKENS: Final = 32768
"""Tokens of a forward pass over several windows; a longer window makes a pass of its own."""
MAX_REDRAWS: Final = 200
"""Windows tried in place of one that is nearly all N."""

_Batch = tuple[torch.Tensor, torch.Tensor]

_STATE_VERSION: Final = 1
# What a random number is for: each use has its own.
_GENOME, _ORDER, _WITHIN, _STRAND, _REDRAW = range(5)


def _target_table(n_targets: NTargets, soft_masked: SoftMasked) -> Int64s:
    """Target of each cased token id, shape (256,)."""
    table = np.full(256, IGNORED, dtype=np.int64)
    for base in (*BASES, N) if n_targets == "count" else BASES:
        table[base] = base
        if soft_masked == "keep":
            table[base | SOFT_MASK] = base
    return table


def _require_choice(option: str, value: str, choices: object) -> None:
    allowed = get_args(choices)
    if value not in allowed:
        raise InputError(f"{option} is {value!r}; it must be {' or '.join(map(repr, allowed))}")


# Complement of cased ids: the case stays with its base.
_CASED_COMPLEMENT: Final[Ids] = np.concatenate([COMPLEMENT[:128], COMPLEMENT[:128] | SOFT_MASK])
_UNCASED: Final = (np.arange(256) & ~SOFT_MASK).astype(np.int64)


def _inputs_and_targets(rows: Ids, table: Int64s) -> _Batch:
    """Tensors (B, L), int64, of cased ids (B, L + 1)."""
    return torch.from_numpy(_UNCASED[rows[:, :-1]]), torch.from_numpy(table[rows[:, 1:]])


@dataclass(frozen=True)
class TrainingSource:
    """One genome to learn from: the bases, the regions, and how often it is drawn."""

    genome: GenomeReader
    regions: Regions
    weight: float | None = None
    """Relative chance of a sample to come from here; the bases in the regions when left out."""


class Draw(NamedTuple):
    """Where one row of a batch comes from."""

    genome: int
    """Index of the source."""
    contig: str
    start: int
    stop: int
    """Bases start .. stop - 1 (0-based): length + 1, or fewer where the region is shorter."""
    reverse: bool
    """Whether the row is the reverse complement of those bases."""


class TrainingStream:
    """Endless batches of random windows from one or more genomes; see the head of this file.

    `length`, `batch_size`: the shape of `batch()` where it is not told otherwise. `seed`: any whole
    number. `reverse_complement`: every other row, at random, is read from the other strand.
    `max_n_fraction`: a window with a greater part of N is replaced by another of the same genome.
    `soft_masked`: whether lower-case targets count ('keep') or not ('ignore'). `n_targets`: whether
    N is a target to predict ('count') or not ('ignore').

    Raises InputError for an option out of range, for no sources, for a source without a region of
    two bases or with a region that is not on the genome, and for weights that are not positive or
    given for some of the sources only.
    """

    def __init__(
        self,
        sources: Sequence[TrainingSource],
        *,
        length: int,
        batch_size: int,
        seed: int,
        reverse_complement: bool = True,
        max_n_fraction: float = 0.5,
        soft_masked: SoftMasked = "keep",
        n_targets: NTargets = "ignore",
    ) -> None:
        _require_choice("soft_masked", soft_masked, SoftMasked)
        _require_choice("n_targets", n_targets, NTargets)
        if not 0 <= max_n_fraction <= 1:
            raise InputError(f"max_n_fraction is {max_n_fraction}; it must be in 0 .. 1")
        self.sources = tuple(sources)
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self._reverse_complement = reverse_complement
        self._max_n_fraction = max_n_fraction
        self._soft_masked, self._n_targets = soft_masked, n_targets
        self._table = _target_table(n_targets, soft_masked)
        self._weights = _weights(self.sources)
        self._bounds = np.cumsum(self._weights / self._weights.sum())[:-1]
        self._strata: dict[int, list[Strata]] = {}
        self._samples = 0  # rows drawn since the start
        self._at_length = length  # length of the passes under way
        self._passes = [0] * len(self.sources)  # passes begun before the one under way
        self._positions = [0] * len(self.sources)  # strata visited in it
        self._require_shape(batch_size, length, 0, 1)

    @property
    def bases(self) -> int:
        """Bases in the regions of all sources."""
        return sum(source.regions.bases for source in self.sources)

    @property
    def samples(self) -> int:
        """Rows drawn so far, by all ranks together."""
        return self._samples

    def windows_per_pass(self, length: int | None = None) -> int:
        """Rows of this length that see every region of every source about once."""
        return sum(strata.total for strata in self._strata_at(length or self.length))

    def batch(
        self,
        batch_size: int | None = None,
        length: int | None = None,
        *,
        rank: int = 0,
        ranks: int = 1,
    ) -> _Batch:
        """The next batch: inputs and targets, int64, each (B, L); the position moves on.

        Inputs are token ids; a region shorter than the window is padded on the right with PAD.
        Targets are the next token, or -100 where it does not count: PAD always, N and lower case as
        the options say. With `ranks` > 1 the rows are rank, rank + ranks, … of the same batch, and
        the position moves on by the whole batch, so all ranks stay in step; a rank may get no row.

        Raises InputError for a shape or rank out of range, and for a genome with hardly a window
        that has few enough N.
        """
        size, length = self._shape(batch_size, length, rank, ranks)
        draws, advanced = self._place(size, length)
        rows, _ = self._read(draws[rank::ranks], length)
        self._load_position(advanced)
        return _inputs_and_targets(rows, self._table)

    def plan(self, batch_size: int | None = None, length: int | None = None) -> list[Draw]:
        """Where each row of the next batch will come from; the position stays.

        Raises InputError as `batch` does.
        """
        size, length = self._shape(batch_size, length, 0, 1)
        return self._read(self._place(size, length)[0], length)[1]

    def state(self) -> dict[str, Any]:
        """The position and what it belongs to, as plain values for JSON."""
        return {
            "version": _STATE_VERSION,
            "seed": self.seed,
            "options": self._options(),
            "sources": [
                {"name": source.genome.name, "fingerprint": _fingerprint(source), "weight": weight}
                for source, weight in zip(self.sources, self._weights.tolist(), strict=True)
            ],
            "position": self._position(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved position: the next batch is the one that would have come then.

        Raises InputError where the stream is not the one that was saved: another seed, option,
        genome, region or weight.
        """
        mine = self.state()
        for key in ("version", "seed"):
            _require_same(key, state.get(key), mine[key])
        for option, value in mine["options"].items():
            _require_same(option, state.get("options", {}).get(option), value)
        saved = state.get("sources", [])
        _require_same("number of genomes", len(saved), len(self.sources))
        for theirs, ours in zip(saved, mine["sources"], strict=True):
            for key, value in ours.items():
                label = "contigs and regions" if key == "fingerprint" else key
                _require_same(f"genome {ours['name']}: {label}", theirs.get(key), value)
        self._load_position(_valid_position(state.get("position"), len(self.sources)))

    def _options(self) -> dict[str, Any]:
        return {
            "reverse_complement": self._reverse_complement,
            "max_n_fraction": self._max_n_fraction,
            "soft_masked": self._soft_masked,
            "n_targets": self._n_targets,
        }

    def _position(self) -> dict[str, Any]:
        return {
            "samples": self._samples,
            "length": self._at_length,
            "passes": list(self._passes),
            "positions": list(self._positions),
        }

    def _load_position(self, position: Mapping[str, Any]) -> None:
        self._samples, self._at_length = position["samples"], position["length"]
        self._passes, self._positions = list(position["passes"]), list(position["positions"])

    def _shape(
        self, batch_size: int | None, length: int | None, rank: int, ranks: int
    ) -> tuple[int, int]:
        size = self.batch_size if batch_size is None else batch_size
        length = self.length if length is None else length
        self._require_shape(size, length, rank, ranks)
        return size, length

    def _require_shape(self, size: int, length: int, rank: int, ranks: int) -> None:
        if size < 1 or length < 1:
            raise InputError(f"batch of {size} x {length}: size and length must be at least 1")
        if not 0 <= rank < ranks:
            raise InputError(f"rank {rank} of {ranks} ranks; it must be 0 to {ranks - 1}")

    def _strata_at(self, length: int) -> list[Strata]:
        if length not in self._strata:
            self._strata[length] = [
                Strata(source.regions.intervals, length) for source in self.sources
            ]
        return self._strata[length]

    def _place(self, size: int, length: int) -> tuple[list[_Placed], dict[str, Any]]:
        """Where the rows of the next batch lie, and the position behind it."""
        position = self._position()
        if length != position["length"]:
            position["length"] = length
            for i, visited in enumerate(position["positions"]):
                position["passes"][i] += visited > 0
                position["positions"][i] = 0
        numbers = position["samples"] + np.arange(size)
        chosen = self._choose(numbers)
        placed: list[_Placed | None] = [None] * size
        for i, strata in enumerate(self._strata_at(length)):
            rows = np.flatnonzero(chosen == i)
            visits = position["positions"][i] + np.arange(len(rows))
            passes = position["passes"][i] + visits // strata.total
            windows = self._windows(i, strata, passes, visits % strata.total)
            for row, window in zip(rows.tolist(), windows, strict=True):
                placed[row] = window
            visits_done = position["positions"][i] + len(rows)
            position["passes"][i] += visits_done // strata.total
            position["positions"][i] = visits_done % strata.total
        position["samples"] += size
        return [window for window in placed if window], position

    def _choose(self, numbers: Int64s) -> Int64s:
        """Source of each sample by its number: golden-ratio steps, so that shares hold closely."""
        start = random_bits(self.seed, _GENOME)
        steps = start + numbers.astype(np.uint64) * np.uint64(GOLDEN)
        unit = (steps >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return np.searchsorted(self._bounds, unit, side="right")

    def _windows(
        self, source: int, strata: Strata, passes: Int64s, visits: Int64s
    ) -> Iterator[_Placed]:
        keys = (source, passes, visits)
        order = shuffled(visits, strata.total, self.seed, _ORDER, source, passes)
        region, start, stop = strata.place(order, random_bits(self.seed, _WITHIN, *keys))
        flip = (random_bits(self.seed, _STRAND, *keys) >> np.uint64(63)).astype(bool)
        reverse = flip if self._reverse_complement else np.zeros_like(flip)
        columns = (region, start, stop, reverse, passes, visits)
        for r, a, b, back, turn, visit in zip(*(c.tolist() for c in columns), strict=True):
            yield _Placed(Draw(source, strata.contigs[r], a, b, back), turn, visit)

    def _read(self, placed: list[_Placed], length: int) -> tuple[Ids, list[Draw]]:
        """Cased ids (B, length + 1) of the rows, and where they came from after redraws."""
        rows = np.full((len(placed), length + 1), PAD, dtype=np.uint8)
        draws = []
        for row, place in zip(rows, placed, strict=True):
            draw, ids = self._acceptable(place, length)
            row[: len(ids)] = _CASED_COMPLEMENT[ids[::-1]] if draw.reverse else ids
            draws.append(draw)
        return rows, draws

    def _acceptable(self, place: _Placed, length: int) -> tuple[Draw, Ids]:
        """The window and its cased ids, or another in its place where this is nearly all N."""
        draw = place.draw
        genome = self.sources[draw.genome].genome
        for attempt in range(MAX_REDRAWS + 1):
            if attempt:
                draw = self._redraw(place, length, attempt)
            ids = genome.cased_tokens(draw.contig, draw.start, draw.stop)
            unknown = np.count_nonzero((ids & np.uint8(~SOFT_MASK & 0xFF)) == N)
            if unknown <= self._max_n_fraction * len(ids):
                return draw, ids
        raise InputError(
            f"{genome.path}: {MAX_REDRAWS} windows of {length} bases in a row have more than "
            f"{self._max_n_fraction:.0%} N; raise max_n_fraction or leave the N out of the regions"
        )

    def _redraw(self, place: _Placed, length: int, attempt: int) -> Draw:
        source = place.draw.genome
        strata = self._strata_at(length)[source]
        keys = (source, place.turn, place.visit, attempt)
        stratum = below(random_bits(self.seed, _REDRAW, *keys), strata.total)
        region, start, stop = strata.place(stratum, random_bits(self.seed, _REDRAW, *keys, 1))
        contig = strata.contigs[int(region[0])]
        return place.draw._replace(contig=contig, start=int(start[0]), stop=int(stop[0]))


class _Placed(NamedTuple):
    """A draw before a look at the bases, and the counters that a redraw depends on."""

    draw: Draw
    turn: int
    visit: int


def _weights(sources: Sequence[TrainingSource]) -> npt.NDArray[np.float64]:
    if not sources:
        raise InputError("no genome to train on; give at least one")
    names = [source.genome.name for source in sources]
    for source in sources:
        for region in source.regions.intervals:
            require_within(region, source.genome.contigs, genome=str(source.genome.path))
        if not any(region.length >= 2 for region in source.regions.intervals):
            raise InputError(
                f"{source.genome.path}: no region of at least 2 bases to train on; check the split"
            )
    given = [source.weight for source in sources if source.weight is not None]
    if not given:
        return np.array([source.regions.bases for source in sources], dtype=np.float64)
    if len(given) < len(sources):
        raise InputError(
            f"{len(given)} of {len(sources)} genomes have a weight; give one for each or for none "
            f"(genomes: {', '.join(names)})"
        )
    for name, weight in zip(names, given, strict=True):
        if not (math.isfinite(weight) and weight > 0):
            raise InputError(f"genome {name}: weight is {weight}; it must be above 0")
    return np.array(given, dtype=np.float64)


def _fingerprint(source: TrainingSource) -> str:
    """Hash of contig names and lengths and of the regions; hashing the bases would be slow."""
    regions = [(i.contig, i.start, i.stop) for i in source.regions.intervals]
    text = json.dumps([list(source.genome.contigs.items()), regions])
    return hashlib.sha256(text.encode()).hexdigest()


def _require_same(what: str, saved: object, now: object) -> None:
    if saved != now:
        raise InputError(
            f"cannot go on from the saved data position: {what} was {saved!r} and is {now!r}; "
            "resume with the same data and options, or start a new run"
        )


def _valid_position(position: Any, sources: int) -> Mapping[str, Any]:
    try:
        counters = [*position["passes"], *position["positions"], position["samples"]]
        whole = all(isinstance(c, int) and c >= 0 for c in [*counters, position["length"]])
        if whole and len(position["passes"]) == len(position["positions"]) == sources:
            return dict(position)
    except (KeyError, TypeError):
        pass
    raise InputError(f"the saved data position is damaged: {str(position)[:80]!r}")


@dataclass(frozen=True)
class EvalBatch:
    """Rows of an evaluation, right-padded to one length."""

    inputs: torch.Tensor
    """Token ids, int64, (B, L)."""
    targets: torch.Tensor
    """Next tokens, int64, (B, L); -100 where a target does not count."""
    windows: tuple[Window, ...]
    """Where each row lies: input j of a row is base window.start + j."""


def evaluation_batches(
    genome: GenomeReader,
    regions: Regions,
    *,
    length: int,
    batch_size: int,
    context: int = 0,
    soft_masked: SoftMasked = "keep",
    n_targets: NTargets = "ignore",
    most_windows: int | None = None,
) -> Iterator[EvalBatch]:
    """Batches that score every base of the regions once, but the first of each region.

    `length`: inputs of a row, L. `context`: least number of bases that a target has before it in
    its row, 0 .. length - 1, except near the start of a region; more context means more rows. The
    last batch may have fewer rows. `soft_masked`, `n_targets`: as for the training stream.
    `most_windows`: take at most so many rows, spread evenly over all.

    Raises InputError for an option out of range, and for a region that is not on the genome.
    """
    _require_choice("soft_masked", soft_masked, SoftMasked)
    _require_choice("n_targets", n_targets, NTargets)
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1")
    if not 0 <= context < length:
        raise InputError(f"context is {context}; it must be in 0 .. length - 1 = {length - 1}")
    table = _target_table(n_targets, soft_masked)
    windows = tile(regions, length, stride=length - context)
    if most_windows is not None:
        windows = _evenly(list(windows), most_windows)
    while chosen := tuple(islice(windows, batch_size)):
        rows = np.full((len(chosen), length + 1), PAD, dtype=np.uint8)
        for row, window in zip(rows, chosen, strict=True):
            row[: window.stop - window.start] = genome.cased_tokens(
                window.contig, window.start, window.stop
            )
        inputs, targets = _inputs_and_targets(rows, table)
        for target, window in zip(targets, chosen, strict=True):
            target[: window.score_from] = IGNORED
        yield EvalBatch(inputs, targets, chosen)


def count_targets(
    genome: GenomeReader,
    regions: Regions,
    *,
    soft_masked: SoftMasked = "keep",
    n_targets: NTargets = "ignore",
    enough: int | None = None,
) -> int:
    """How many bases of the regions count as targets, but the first of each region.

    `enough`: stop counting there.
    """
    counts = _target_table(n_targets, soft_masked) != IGNORED
    found = 0
    for region in regions.intervals:
        for start in range(region.start + 1, region.stop, _COUNTED_AT_ONCE):
            stop = min(start + _COUNTED_AT_ONCE, region.stop)
            ids = genome.cased_tokens(region.contig, start, stop)
            found += int(np.count_nonzero(counts[ids]))
            if enough is not None and found >= enough:
                return found
    return found


def _evenly(windows: list[Window], most: int) -> Iterator[Window]:
    """At most so many of the windows, spread evenly, in order."""
    count = min(len(windows), most)
    return (windows[i * len(windows) // count] for i in range(count))
