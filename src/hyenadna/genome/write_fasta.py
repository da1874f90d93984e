"""FASTA of sequences that were made here."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from hyenadna.alphabet import Ids, decode


class Named(Protocol):
    """A sequence with a name."""

    @property
    def name(self) -> str:
        """Its name, without blanks."""

    @property
    def ids(self) -> Ids:
        """Its token ids, (L,)."""


def write_fasta(contigs: Iterable[Named], path: Path, *, width: int = 80) -> Path:
    """`path`, once the contigs stand there as FASTA, `width` letters a line.

    The file is written beside its place and renamed, so that a broken run leaves no half file.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("w", encoding="ascii", newline="\n") as out:
            for contig in contigs:
                text = decode(contig.ids)
                out.write(f">{contig.name}\n")
                out.writelines(text[i : i + width] + "\n" for i in range(0, len(text), width))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path
