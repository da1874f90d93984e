"""Annotation files cut to the region of a browser page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hyenadna.data.annotation import is_annotation
from hyenadna.data.text_files import open_text, suffix_of
from hyenadna.genome.contig_names import matched_names
from hyenadna.genome.fasta import GenomeReader
from hyenadna.genome.intervals import Interval
from hyenadna.report.browser_page import Annotated, page_name

_OWNER: Final = re.compile(r'(?:transcript_id\s+"|Parent=)(?P<name>[^";,]+)|ID=(?P<id>[^;]+)')
_FORMATS: Final = {".gtf": "gtf", ".gff": "gff3", ".gff3": "gff3", ".gff2": "gff"}


def annotated(file: Path, region: Interval, genome: GenomeReader) -> Annotated:
    """The rows of a GFF, GTF or BED file for a region, with the genome's contig name.

    Rows of a transcript that reaches into the region are all kept, so that it is drawn whole. The
    file has been read by `read_kinds`, so its rows are known to be right. Raises InputError where
    it cannot be read.
    """
    bed = not is_annotation(file)
    rows: list[tuple[str, int, int, list[str]]] = []
    spans: dict[str, tuple[int, int]] = {}
    for number, columns in enumerate(_rows(file)):
        at = _place(columns, bed=bed)
        if at is None or _name(columns[0], genome) != region.contig:
            continue
        found = None if bed else _OWNER.search(columns[8])
        owner = (found["name"] or found["id"]) if found else f"row {number}"
        rows.append((owner, *at, columns))
        start, stop = spans.get(owner, at)
        spans[owner] = min(start, at[0]), max(stop, at[1])
    kept = [
        columns
        for owner, _, _, columns in rows
        if spans[owner][0] < region.stop and spans[owner][1] > region.start
    ]
    lines = ("\t".join([page_name(region.contig), *columns[1:]]) for columns in kept)
    kind = "bed" if bed else _FORMATS[suffix_of(file)]
    return Annotated(file.name, kind, tuple(lines))


def _place(columns: list[str], *, bed: bool) -> tuple[int, int] | None:
    """First base from 0 and the one behind the last; None for a line that is no row."""
    start, stop = (1, 2) if bed else (3, 4)
    if not (columns[start].strip().isdigit() and columns[stop].strip().isdigit()):
        return None
    return int(columns[start]) - (not bed), int(columns[stop])


def _name(contig: str, genome: GenomeReader) -> str | None:
    return matched_names({contig}, genome.contigs).get(contig)


def _rows(file: Path) -> Iterator[list[str]]:
    least = 9 if is_annotation(file) else 3
    with open_text(file) as text:
        for line in text:
            if line.startswith("##FASTA"):
                break
            if not line.strip() or line.startswith(("#", "track", "browser", ">")):
                continue
            columns = line.rstrip("\r\n").split("\t" if "\t" in line else None)
            if len(columns) >= least:
                yield columns
