"""The pictures and tables of a run of `hyenadna score`, drawn from its output."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from hyenadna.genome.variants import KINDS, NOTE_TEXTS, Note
from hyenadna.infer.run_record import RunRecord
from hyenadna.infer.score_reading import ScoredAllele, Summary, read_scored, summarise
from hyenadna.report.page import (
    Block,
    Cell,
    details,
    heading,
    paragraph,
    picture,
    pictures,
    records,
    table,
)
from hyenadna.report.plots import BLUE, GREY, INK, ORANGE, new_axes

EXTREMES: Final = 15
"""Variants in each table of the most extreme."""
_BINS: Final = 50
_DOTS: Final = 4000
_SHOWN_LETTERS: Final = 12
Group = tuple[str, tuple[str, ...], str]


def blocks(out: Path, record: RunRecord) -> list[Block]:
    """Distributions, strands, percentiles, the most extreme variants, and notes.

    Reads the output twice and holds at most 100,000 alleles. Raises InputError where it is not
    what `hyenadna score` has written.
    """
    found = summarise(out)
    if not found.scored:
        return [
            heading("Scores"),
            paragraph("No allele has a score; the notes below say why."),
            *_notes(found),
        ]
    return [
        heading("Scores"),
        paragraph(
            "LLR is the log-likelihood of the alternative allele and the bases behind it, less "
            "that of the reference, in nats: below 0 the model finds the allele less likely than "
            "what the genome has. An allele that adds or takes bases is also charged or credited "
            "for their number, so classes are not to be compared with each other."
        ),
        pictures(_pictures(found)),
        *_classes(found),
        *_extremes(out, found),
        *_notes(found),
    ]


def _pictures(found: Summary) -> list[Block]:
    scores = (("llr", "LLR, nats"), ("dist", "DIST"))
    drawn = [_of_group(found, *score, group) for score in scores for group in _groups(found)]
    out = [each for each in drawn if each is not None]
    for each in (_strands(found), _ranks(found)):
        out += [each] if each is not None else []
    return out


def _compared(found: Summary) -> tuple[tuple[str, ...], str]:
    """Classes that can be drawn together, and how to call their alleles.

    Those of one length where there are some: by length alone, indels are far from them, and from
    each other.
    """
    if found.kinds["snv"] + found.kinds["mnv"]:
        return ("snv", "mnv"), "alleles of one length (snv, mnv)"
    return KINDS, "alleles of all classes"


def _groups(found: Summary) -> list[Group]:
    """Name, classes and colour of what is drawn apart."""
    groups = [
        ("snv, mnv", ("snv", "mnv"), BLUE),
        ("insertion, deletion, indel", ("insertion", "deletion", "indel"), ORANGE),
    ]
    return [group for group in groups if any(found.kinds[kind] for kind in group[1])]


def _of_group(found: Summary, name: str, label: str, group: Group) -> Block | None:
    """Shares of alleles by score; what is beyond the middle 99 % is gathered in the outer bars."""
    title, kinds, colour = group
    own = found.values(name, kinds)
    if not len(own):
        return None
    figure, axes = new_axes(f"{label.partition(',')[0]}: {title}", label, "share of alleles, %")
    low, high = np.quantile(own, [0.005, 0.995])
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    counts, _ = np.histogram(own.clip(edges[0], edges[-1]), edges)
    axes.stairs(100 * counts / len(own), edges, fill=True, color=colour, alpha=0.6)
    if name == "llr":
        axes.axvline(0, color=INK, linewidth=0.8)
    return picture(
        figure, f"{label} of {len(own):,} alleles ({title}); median {np.median(own):.3f}."
    )


def _strands(found: Summary) -> Block | None:
    """The two strands against each other; None where only one was read."""
    kinds, about = _compared(found)
    pairs = [
        (a.values["llr_forward"], a.values["llr_reverse"]) for a in found.sample if a.kind in kinds
    ]
    array = np.array([pair for pair in pairs if not math.isnan(sum(pair))]).reshape(-1, 2)
    if len(array) < 2:
        return None
    figure, axes = new_axes("The two strands", "LLR forward, nats", "LLR reverse, nats")
    low, high = np.quantile(array, [0.002, 0.998])
    shown = array[:: -(-len(array) // _DOTS)].clip(low, high)
    axes.plot(shown[:, 0], shown[:, 1], ".", color=BLUE, markersize=3, alpha=0.5)
    axes.plot([low, high], [low, high], color=GREY, linewidth=0.8)
    said = ""
    if array.std(0).min() > 0:
        said = f", correlation {np.corrcoef(array.T)[0, 1]:.2f}"
    return picture(
        figure,
        f"LLR on both strands, {len(shown):,} of {len(array):,} {about}{said}. Both estimate how "
        "likely the same stretch is; far from the line they disagree.",
    )


def _ranks(found: Summary) -> Block | None:
    """Percentiles of LLR; None without a background."""
    kinds, about = _compared(found)
    ranks = found.values("llr_percentile", kinds)
    if not len(ranks):
        return None
    figure, axes = new_axes("Percentiles of LLR", "percentile among random variants", "alleles")
    axes.hist(ranks, list(range(0, 105, 5)), color=BLUE, alpha=0.6)
    axes.axhline(len(ranks) / 20, color=INK, linewidth=0.8, linestyle="--")
    return picture(
        figure,
        f"Where {len(ranks):,} {about} stand among random variants of their class and length: "
        "flat, at the dashed line, if they were random themselves. "
        f"{(ranks < 5).mean():.1%} are below the 5th percentile.",
    )


def _classes(found: Summary) -> list[Block]:
    rows: list[dict[str, Cell]] = []
    for kind in KINDS:
        own = found.values("llr", [kind])
        if not len(own):
            continue
        low, middle, high = np.quantile(own, [0.05, 0.5, 0.95]).tolist()
        distance = found.values("dist", [kind])
        rows.append(
            {
                "class": kind,
                "alleles": found.kinds[kind],
                "LLR, 5 %": low,
                "median": middle,
                "95 %": high,
                "median DIST": float(np.median(distance)) if len(distance) else None,
            }
        )
    return [records(rows, caption="Scored alleles by class")]


def _extremes(out: Path, found: Summary) -> list[Block]:
    """The lowest and highest LLR among alleles of one length, or of all where there are none."""
    equal = bool(found.kinds["snv"] + found.kinds["mnv"])
    scored = (
        a
        for a in read_scored(out)
        if not math.isnan(a.values.get("llr", math.nan)) and (a.kind in ("snv", "mnv") or not equal)
    )
    lowest, highest = _both_ends(scored)
    about = "alleles of one length" if equal else "alleles"
    return [
        heading("The most extreme variants"),
        _listed(lowest, f"Lowest LLR, {about}: least likely beside the reference"),
        details(
            "Highest LLR: more likely than the reference",
            [_listed(highest, f"Highest LLR, {about}")],
        ),
    ]


def _both_ends(
    scored: Iterable[ScoredAllele],
) -> tuple[list[ScoredAllele], list[ScoredAllele]]:
    """The lowest and the highest by LLR, in one pass, holding no more than these."""
    low: list[tuple[float, int, ScoredAllele]] = []
    high: list[tuple[float, int, ScoredAllele]] = []
    for number, allele in enumerate(scored):
        llr = allele.values["llr"]
        for heap, key in ((low, -llr), (high, llr)):
            if len(heap) < EXTREMES:
                heapq.heappush(heap, (key, -number, allele))
            elif key > heap[0][0]:
                heapq.heapreplace(heap, (key, -number, allele))
    return [a for *_, a in sorted(low, reverse=True)], [a for *_, a in sorted(high, reverse=True)]


def _listed(alleles: Sequence[ScoredAllele], caption: str) -> Block:
    ranked = any(not math.isnan(a.values.get("llr_percentile", math.nan)) for a in alleles)
    columns = ["variant", "id", "LLR", "forward", "reverse", "DIST"]
    rows: list[list[Cell]] = []
    for a in alleles:
        name = f"{a.chrom}:{a.pos:,} {_short(a.ref)}>{_short(a.alt)}"
        numbers = [a.values[c] for c in ("llr", "llr_forward", "llr_reverse", "dist")]
        rank: list[Cell] = [a.values.get("llr_percentile", math.nan)] if ranked else []
        rows.append([name, "" if a.id == "." else a.id, *numbers, *rank])
    return table([*columns, *(["percentile"] if ranked else [])], rows, caption=caption)


def _short(letters: str) -> str:
    if len(letters) <= _SHOWN_LETTERS:
        return letters
    return f"{letters[:_SHOWN_LETTERS]}… ({len(letters):,})"


def _notes(found: Summary) -> list[Block]:
    if not found.notes:
        return []
    rows: list[list[Cell]] = [
        [name, count, NOTE_TEXTS[Note(name)] if name in list(Note) else ""]
        for name, count in found.notes.most_common()
    ]
    return [heading("Notes"), table(["note", "alleles", "meaning"], rows)]
