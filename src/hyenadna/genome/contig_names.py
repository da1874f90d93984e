"""Contigs that a file and a genome call by two names: `chr1` and `1`."""

from __future__ import annotations

from collections.abc import Collection


def twin_name(contig: str) -> str:
    """The name with `chr` before it, or without."""
    return contig.removeprefix("chr") if contig.startswith("chr") else f"chr{contig}"


def matched_names(contigs: Collection[str], genome: Collection[str]) -> dict[str, str]:
    """Name in the genome of each of these contigs that the genome has.

    contigs: all that a file names. The same name; where there is none, its twin, unless the file
    names that too. Contigs that the genome has not are left out.
    """
    names: dict[str, str] = {}
    for contig in contigs:
        twin = twin_name(contig)
        if contig in genome:
            names[contig] = contig
        elif twin in genome and twin not in contigs:
            names[contig] = twin
    return names
