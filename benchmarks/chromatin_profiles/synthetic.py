"""Synthetic labels of real sequence, in the files of the published coordinates.

What each label says is a function of the bases, the same on both strands, plus noise; the highest
scores are positive, from half a percent to a tenth of the rows. They stand in for measured marks so
that throughput, memory and metrics can be looked at: they say nothing about biology.

    DHS  GC and CpG of the core of 200 bases, and the best matches of three motifs in it
    TF   the best match of one motif of eight bases in the core
    HM   composition of 1,000 to 8,000 bases around the core
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hyenadna.alphabet import A
from hyenadna.genome.fasta import Genome

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

BIN: Final = 200
"""Bases of the core, and between two windows, as in DeepSEA."""
WINDOW: Final = 1000
WIDEST: Final = 8192
GROUPS: Final = {"DHS": 125, "TF": 690, "HM": 104}
_PARTS: Final = {"train": 0.7, "val": 0.1, "test": 0.2}
_MOTIF: Final = 8
_NOISE: Final = 0.5
"""In standard deviations of the score without it."""
_RAREST, _COMMONEST = 0.005, 0.1
_WIDTHS: Final = (1000, 2000, 4000, 8000)
_AT_ONCE: Final = 250


@dataclass(frozen=True)
class Marks:
    """Labels of the cores of a contig."""

    names: tuple[str, ...]
    """`cell|assay|treatment`, behind `y_`."""
    start: Rows
    """First base of each core, from 0, (n,)."""
    flags: npt.NDArray[np.bool_]
    """(n, 919)."""


def synthetic_marks(fasta: Path, contig: str, seed: int) -> Marks:
    """Labels of all cores of a contig whose window of 1,000 bases has no N."""
    random = np.random.default_rng(seed)
    genome = Genome.open(fasta)
    bases = genome.tokens(contig, 0, genome.contigs[contig]) - np.uint8(A)
    bins = len(bases) // BIN
    known = np.append(0, np.cumsum(bases < 4))
    start = BIN * np.arange(bins)
    first = start - (WINDOW - BIN) // 2
    inside = (first >= 0) & (first + WINDOW <= len(bases))
    start = start[inside & (_sums(known, first, WINDOW) == WINDOW)]
    motifs = _motif_scores(bases, start, random)
    scores = np.concatenate(
        [_dhs(bases, start, motifs, random), motifs, _hm(bases, start, random)], axis=1
    )
    spread = scores.std(0)
    scores += _NOISE * spread * random.standard_normal(scores.shape, dtype=np.float32)
    share = np.exp(random.uniform(np.log(_RAREST), np.log(_COMMONEST), scores.shape[1]))
    flags = np.empty(scores.shape, dtype=np.bool_)
    for label, rare in enumerate(share):
        flags[:, label] = scores[:, label] > np.quantile(scores[:, label], 1 - rare)
    return Marks(_names(), start, flags)


def _names() -> tuple[str, ...]:
    histones = [f"H3K{k}me{m}" for k in (4, 9, 27, 36) for m in (1, 2, 3)]
    assays = {
        "DHS": lambda i: "DNase",
        "TF": lambda i: f"motif{i:03d}",
        "HM": lambda i: histones[i % len(histones)],
    }
    return tuple(
        f"y_synthetic{i}|{assays[group](i)}|None" for group, n in GROUPS.items() for i in range(n)
    )


def _sums(running: Rows, first: Rows, width: int) -> Rows:
    """Sums over `width` places from `first` on, past the ends nothing, from running sums."""
    last = len(running) - 1
    return running[np.clip(first + width, 0, last)] - running[np.clip(first, 0, last)]


def _motif_scores(bases: npt.NDArray[np.uint8], start: Rows, random: Any) -> Floats:
    """Best match of each motif on either strand in each core, (n, 690)."""
    weights = random.random((GROUPS["TF"], _MOTIF, 4)).astype(np.float32) ** 3
    both = np.concatenate([weights, weights[:, ::-1, ::-1]]).reshape(-1, _MOTIF * 4).T
    found = np.empty((len(start), GROUPS["TF"]), dtype=np.float32)
    offsets = np.arange(BIN - _MOTIF + 1)[:, None] + np.arange(_MOTIF)
    for row in range(0, len(start), _AT_ONCE):
        cores = start[row : row + _AT_ONCE]
        words = bases[cores[:, None, None] + offsets]  # (cores, places, 8)
        hot = np.eye(4, dtype=np.float32)[words].reshape(-1, _MOTIF * 4)
        best = (hot @ both).reshape(len(cores), len(offsets), 2, -1).max(axis=(1, 2))
        found[row : row + _AT_ONCE] = best
    return found


def _composition(bases: npt.NDArray[np.uint8], start: Rows, width: int) -> Floats:
    """Standardised GC, CpG, AA or TT, CA or TG of `width` bases about each core, (n, 4)."""
    left, right = bases[:-1], bases[1:]
    pairs = [
        (bases == 1) | (bases == 2),
        (left == 1) & (right == 2),
        (left == right) & ((left == 0) | (left == 3)),
        ((left == 1) & (right == 0)) | ((left == 3) & (right == 2)),
    ]
    first = start + BIN // 2 - width // 2
    sums = [  # pairs that lie inside as a whole: the other strand has the same
        _sums(np.append(0, np.cumsum(each)), first, width - (len(bases) - len(each)))
        for each in pairs
    ]
    values = np.stack(sums, 1).astype(np.float32)
    return np.asarray((values - values.mean(0)) / values.std(0))


def _dhs(bases: npt.NDArray[np.uint8], start: Rows, motifs: Floats, random: Any) -> Floats:
    composition = _composition(bases, start, BIN)[:, :2]
    found = np.empty((len(start), GROUPS["DHS"]), dtype=np.float32)
    for label in range(GROUPS["DHS"]):
        chosen = motifs[:, random.integers(0, motifs.shape[1], 3)]
        matches = ((chosen - chosen.mean(0)) / chosen.std(0)).sum(1)
        found[:, label] = composition @ random.uniform(0.5, 1.5, 2) + matches
    return found


def _hm(bases: npt.NDArray[np.uint8], start: Rows, random: Any) -> Floats:
    each = {width: _composition(bases, start, width) for width in _WIDTHS}
    mixed = [
        each[_WIDTHS[label % len(_WIDTHS)]] @ random.standard_normal(4)
        for label in range(GROUPS["HM"])
    ]
    return np.stack(mixed, 1).astype(np.float32)


def write_tables(marks: Marks, number: int, folder: Path, rows: Mapping[str, int]) -> None:
    """The three tables of coordinates: parts one after another along the contig, with gaps between.

    number: Chr_No, from 0. rows: how many of train, val and test, evenly spaced; no window of one
    part, 8,192 bases wide, overlaps another part.
    """
    folder.mkdir(parents=True, exist_ok=True)
    order = np.argsort(marks.start)
    begin = 0
    gap = -(-WIDEST // BIN)
    for part, share in _PARTS.items():
        end = begin + int(share * len(order))
        mine = order[begin : end - gap]
        begin = end
        at = np.unique(np.linspace(0, len(mine) - 1, min(rows[part], len(mine))).round())
        _write_table(
            marks, mine[at.astype(int)], number, folder / f"{part}_hg19_coords_targets.csv"
        )


def _write_table(marks: Marks, rows: Rows, number: int, path: Path) -> None:
    words = np.array(["False", "True"])
    beside = path.with_name(f".{path.name}.part")
    with beside.open("w") as file:
        file.write(",".join(["Chr_No,Start,End", *marks.names]) + "\n")
        for row in rows.tolist():
            first = int(marks.start[row]) - (WINDOW - BIN) // 2
            flags = ",".join(words[marks.flags[row].astype(int)])
            file.write(f"{number},{first},{first + WINDOW},{flags}\n")
    beside.replace(path)
