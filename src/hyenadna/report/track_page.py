"""The pictures and tables of a track run: along the genome, histograms, strands, the ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from hyenadna.errors import InputError
from hyenadna.infer.run_record import RunRecord
from hyenadna.infer.track_read import pieces
from hyenadna.report.page import Block, details, heading, paragraph, picture, pictures, records
from hyenadna.report.plots import BLUE, GREY, INK, ORANGE, new_axes

_POINTS: Final = 400
"""Points of a line along a contig, at most."""
_CELLS: Final = 5000
"""Stretches whose means are kept of the whole run, about."""
_CONTIGS: Final = 6
"""Contigs that are drawn: those with most values."""
_EDGES: Final = np.linspace(0, 8, 161)
_PAIRS: Final = 50_000
"""Bases in the picture of both strands, about."""
_COLOURS: Final = {"average": BLUE, "forward": BLUE, "reverse": ORANGE}

Floats = npt.NDArray[np.float32]
_Cells = dict[int, tuple[float, int]]
"""Sum and number of the values of each stretch by its number on the contig."""


def blocks(out: Path, record: RunRecord) -> list[Block]:
    """What a report shows of a track run: pictures from its files, tables from its record.

    The tracks of surprisal are drawn, or the first track where there are none. Tracks that cannot
    be read back (bedGraph, or a bigWig without pyBigWig) have tables only, and a line that says so.
    """
    files = list(record.figures["files"])
    names = [name for name in files if name.startswith("surprisal.")] or files[:1]
    try:
        seen = _gather(out, record, names)
    except InputError as error:
        return [*_tables(record), paragraph(f"No pictures: {error}.", soft=True)]
    if not seen.lines:
        return [*_tables(record), paragraph("No base has a value.")]
    drawn = [_along(contig, lines, seen.width) for contig, lines in seen.longest()]
    others = [_histogram(seen.counts)]
    if len(names) == 2:
        others.append(_both_strands(seen.pairs, names))
    return [
        heading("Along the genome"), pictures(drawn),
        heading("Single bases"), pictures(others),
        *_tables(record),
    ]  # fmt: skip


@dataclass
class _Seen:
    """What is kept of the values of a run, however long the genome is."""

    width: int
    """Bases of a stretch."""
    lines: dict[str, dict[str, _Cells]] = field(default_factory=dict)
    """By contig and track."""
    counts: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    """Histogram of each track."""
    pairs: list[Floats] = field(default_factory=list)
    """Values of two tracks at the same bases, each (2, bases)."""

    def longest(self) -> list[tuple[str, dict[str, _Cells]]]:
        """The contigs with most values, in the order of the genome."""
        size = {c: max(map(len, lines.values())) for c, lines in self.lines.items()}
        most = sorted(size, key=lambda contig: -size[contig])[:_CONTIGS]
        return [(contig, self.lines[contig]) for contig in self.lines if contig in most]


def _gather(out: Path, record: RunRecord, names: Sequence[str]) -> _Seen:
    """One pass over the files."""
    bases = int(record.figures["bases"])
    seen = _Seen(max(1, bases // _CELLS))
    every = max(1, bases // _PAIRS)
    for contig, start, span, values in pieces(out, record, list(names)):
        for name, row in values.items():
            known = np.flatnonzero(~np.isnan(row))
            if not len(known):
                continue
            cells = seen.lines.setdefault(contig, {}).setdefault(name, {})
            _add(cells, (start + span * known) // seen.width, row[known])
            ends = np.clip(row[known], _EDGES[0], _EDGES[-1])
            counts = np.histogram(ends, _EDGES)[0]
            seen.counts[name] = seen.counts.get(name, np.zeros_like(counts)) + counts
        if len(values) == 2:
            first = -(start // span) % every  # the same bases, in whatever pieces they come
            seen.pairs.append(np.stack([values[name][first::every] for name in names]))
    return seen


def _add(cells: _Cells, at: npt.NDArray[np.int64], values: Floats) -> None:
    """Add values to the stretches with these numbers, which are sorted."""
    firsts = np.flatnonzero(np.concatenate([[True], at[1:] != at[:-1]]))
    sums = np.add.reduceat(values.astype(np.float64), firsts)
    counts = np.diff(np.append(firsts, len(at)))
    for cell, more, number in zip(at[firsts].tolist(), sums.tolist(), counts.tolist(), strict=True):
        total, count = cells.get(cell, (0.0, 0))
        cells[cell] = total + more, count + number


def _along(contig: str, lines: Mapping[str, _Cells], width: int) -> Block:
    """Means along one contig; where there are no values, the line is open."""
    ends = [cell for cells in lines.values() for cell in (min(cells), max(cells))]
    group = -(-(max(ends) - min(ends) + 1) // _POINTS)
    long = max(ends) * width > 2_000_000
    figure, axes = new_axes(contig, f"position, {'Mb' if long else 'kb'}", _label(lines))
    for name, cells in lines.items():
        merged: _Cells = {}
        for cell, (more, number) in cells.items():
            total, count = merged.get(cell // group, (0.0, 0))
            merged[cell // group] = total + more, count + number
        at = np.arange(min(merged), max(merged) + 1)
        means = [merged[c][0] / merged[c][1] if c in merged else np.nan for c in at.tolist()]
        middle = (at + 0.5) * group * width / (1e6 if long else 1e3)
        axes.plot(middle, means, color=_colour(name), linewidth=1.2, label=_strand(name))
    if _is_surprisal(lines):
        axes.axhline(2, color=INK, linewidth=0.8, linestyle=":")
        axes.set_ylim(top=max(2.05, axes.get_ylim()[1]))
    if len(lines) > 1:
        axes.legend(frameon=False)
    guess = "; dotted: 2 bits, a guess among four letters" if _is_surprisal(lines) else ""
    return picture(figure, f"{contig}: means of {group * width:,} bases{guess}.")


def _histogram(counts: Mapping[str, npt.NDArray[np.int64]]) -> Block:
    figure, axes = new_axes("How often each value", _label(counts), "share of bases, %")
    for name, each in counts.items():
        axes.stairs(
            100 * each / max(1, int(each.sum())), _EDGES, color=_colour(name), linewidth=1.4,
            label=_strand(name),
        )  # fmt: skip
    last = max((int(np.flatnonzero(each)[-1]) for each in counts.values() if each.any()), default=0)
    axes.set_xlim(0, _EDGES[min(last + 2, len(_EDGES) - 1)])
    if len(counts) > 1:
        axes.legend(frameon=False)
    return picture(
        figure, f"Bases by value, in steps of {_EDGES[1]:.2f}; the last holds all above."
    )


def _both_strands(pairs: Sequence[Floats], names: Sequence[str]) -> Block:
    one, other = np.concatenate(pairs, axis=1)
    both = ~(np.isnan(one) | np.isnan(other))
    one, other = one[both], other[both]
    related = float(np.corrcoef(one, other)[0, 1]) if len(one) > 2 else float("nan")
    top = float(np.quantile(np.concatenate([one, other]), 0.999)) if len(one) else 4.0
    figure, axes = new_axes("Both strands at the same base", *map(_strand, names))
    counts, _, _ = np.histogram2d(one, other, bins=60, range=[[0, top]] * 2)
    shade = np.where(counts > 0, np.log1p(counts), np.nan).T  # a picture: 3,600 shapes are slow
    axes.imshow(shade, cmap="Blues", origin="lower", extent=(0, top, 0, top), vmin=0)
    axes.grid(visible=False)
    axes.plot([0, top], [0, top], color=GREY, linewidth=0.8, linestyle=":")
    return picture(
        figure,
        f"{_label(names)}: {len(one):,} bases, the darker the more; correlation {related:.2f}. The "
        "strands see other context: left of the base, and right of it.",
    )


def _tables(record: RunRecord) -> list[Block]:
    figures = record.figures
    found = [heading("Values"), records(figures["tracks"], caption="Per base.")]
    kinds = [row for row in figures["kinds"] if row["bases"]]
    if kinds:
        found.append(records(kinds, caption=f"{figures['tracks'][0]['track']} by kind of base."))
    for key, text in (("lowest", "Lowest"), ("highest", "Highest")):
        if figures[key]:
            title = f"{text} means of stretches of 200 bases"
            found.append(details(title, [records(figures[key])]))
    return found


def _strand(name: str) -> str:
    return {"average": "mean of both strands"}.get(name.split(".")[1], name.split(".")[1])


def _colour(name: str) -> str:
    return _COLOURS[name.split(".")[1]]


def _is_surprisal(names: Mapping[str, object] | Sequence[str]) -> bool:
    return next(iter(names)).startswith("surprisal")


def _label(names: Mapping[str, object] | Sequence[str]) -> str:
    channel = next(iter(names)).split(".")[0]
    return channel.replace("_", " ") + ("" if channel.startswith("prob") else ", bits")
