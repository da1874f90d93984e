"""What substitutions tell of yeast: TATA boxes, stop codons."""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from benchmarks.workbench.commands import hyenadna

GENOME: Final = "yeast_R64/Saccharomyces_cerevisiae.R64-1-1.fa.gz"
BOXES: Final = "yeast_R64_beds/tata_boxes_rhee2012.bed.gz"
ORFS: Final = "yeast_R64_beds/orfs.bed.gz"
PLACES, WINDOW, AFTER, INTO_ORF = 60, 60, 32, 300
BASES: Final = "TCAG"
AMINO_ACIDS: Final = "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG"
CODE: Final = {
    a + b + c: AMINO_ACIDS[16 * i + 4 * j + k]
    for i, a in enumerate(BASES)
    for j, b in enumerate(BASES)
    for k, c in enumerate(BASES)
}
"""The standard genetic code (NCBI table 1)."""


class Row(NamedTuple):
    """A substitution: its place in the interval, letters on the forward strand, score."""

    at: int
    ref: str
    alt: str
    score: float


def section(model: Path, data: Path, folder: Path) -> list[str]:
    """Lines of the page."""
    return [
        "## What substitutions tell",
        "",
        *boxes(model, data, folder),
        *stops(model, data, folder),
    ]


def boxes(model: Path, data: Path, folder: Path) -> list[str]:
    """Whether the bases of TATA boxes matter more than those around."""
    rows = list(bed(data / BOXES))
    chosen = rows[:: len(rows) // PLACES][:PLACES]
    inside: dict[str, list[float]] = defaultdict(list)
    around: dict[str, list[float]] = defaultdict(list)
    windows = []
    for contig, start, stop, strand in chosen:
        first = (start + stop) // 2 - WINDOW // 2
        windows.append((contig, first, first + WINDOW, strand))
    for (_, start, stop, _), window, found in zip(
        chosen, windows, mutated(model, data, folder, windows, "boxes"), strict=True
    ):
        for ref, at, mean in importance(found):
            place = inside if start - window[1] <= at < stop - window[1] else around
            place[ref].append(mean)
    text = ", ".join(
        f"{base} {np.mean(inside[base]):.2f} inside and {np.mean(around[base]):.2f} around"
        for base in "AT"
    )
    return [
        f"{len(chosen)} TATA boxes of yeast, evenly over the list, in {WINDOW} bases (`--after "
        f"{AFTER}`). Minus the mean score of a base's substitutions, letters of the forward "
        f"strand: {text}.",
        "",
    ]


def stops(model: Path, data: Path, folder: Path) -> list[str]:
    """Whether new stop codons score less than the same change of letter elsewhere."""
    rows = [r for r in bed(data / ORFS) if r[3] == "+" and r[2] - r[1] >= 2 * INTO_ORF]
    chosen = rows[:: len(rows) // PLACES][:PLACES]
    windows = [(c, start + INTO_ORF, start + INTO_ORF + WINDOW, "+") for c, start, _, _ in chosen]
    kinds: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for found in mutated(model, data, folder, windows, "orfs"):
        sequence = "".join(ref for ref, _, _ in importance(found))
        for row in found:
            codon = sequence[row.at // 3 * 3 : row.at // 3 * 3 + 3]
            changed = codon[: row.at % 3] + row.alt + codon[row.at % 3 + 1 :]
            before, after = CODE[codon], CODE[changed]
            if before == "*":
                continue
            kind = "stop" if after == "*" else "silent" if after == before else "other"
            kinds[kind].append((row.ref + row.alt, row.score))
    parts = []
    for kind in ("stop", "silent"):
        same = defaultdict(list)
        for name, rest in kinds.items():
            if name != kind:
                for change, score in rest:
                    same[change].append(score)
        off = np.array([s - np.mean(same[c]) for c, s in kinds[kind] if c in same])
        error = off.std(ddof=1) / len(off) ** 0.5
        parts.append(f"{kind} {off.mean():+.3f} ± {error:.3f} nats ({len(off):,})")
    return [
        f"{len(chosen)} stretches of {WINDOW} bases in frame within open reading frames. Score of "
        "a substitution less the mean of the same change of letter elsewhere in them (standard "
        f"error, number): {'; '.join(parts)}.",
        "",
    ]


def bed(path: Path) -> Iterator[tuple[str, int, int, str]]:
    """Rows with the genome's names of contigs, those on the chromosomes."""
    with gzip.open(path, "rt") as stream:
        for line in stream:
            contig, start, stop, _, _, strand, *_ = line.rstrip().split("\t")
            if contig not in ("chrM", "chrMito"):
                yield contig.removeprefix("chr"), int(start), int(stop), strand


def mutated(
    model: Path,
    data: Path,
    folder: Path,
    windows: list[tuple[str, int, int, str]],
    name: str,
) -> list[list[Row]]:
    """All substitutions of each window, by `hyenadna mutate`."""
    lines = [f"{c}\t{a}\t{b}\t{i}\t0\t+\n" for i, (c, a, b, _) in enumerate(windows)]
    (folder / f"{name}.bed").write_text("".join(lines))
    hyenadna(
        "mutate", model, f"{name}.bed", "--genome", data / GENOME, "-o", f"{name}.csv",
        "--after", AFTER, folder=folder,
    )  # fmt: skip
    found: list[list[Row]] = [[] for _ in windows]
    with (folder / f"{name}.csv").open() as stream:
        for row in csv.DictReader(stream):
            index = int(row["id"])
            at = int(row["position"]) - windows[index][1]
            found[index].append(Row(at, row["ref"], row["alt"], float(row["score"])))
    return found


def importance(rows: list[Row]) -> list[tuple[str, int, float]]:
    """Base, position and minus the mean score of its substitutions, in order."""
    by_place: dict[tuple[int, str], list[float]] = defaultdict(list)
    for row in rows:
        by_place[row.at, row.ref].append(row.score)
    return [(ref, at, -float(np.mean(scores))) for (at, ref), scores in sorted(by_place.items())]
