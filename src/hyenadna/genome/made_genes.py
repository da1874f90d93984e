"""Random genes of bacterial codons, with all substitutions and their effects on the proteins.

An example without anybody's data, for a model that knows bacteria: open reading frames of codons in
about the proportions that *Escherichia coli* uses, behind a ribosome binding site, each on either
strand, with letters drawn at random between.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from hyenadna.alphabet import Ids, encode, reverse_complement

_BASES: Final = "TCAG"
_AMINO_ACIDS: Final = "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG"
CODONS: Final = tuple(a + b + c for a in _BASES for b in _BASES for c in _BASES)
AMINO_ACID: Final = dict(zip(CODONS, _AMINO_ACIDS, strict=True))
"""The standard genetic code; `*` ends a protein."""
_PER_THOUSAND: Final = (
    22, 17, 14, 14, 8, 9, 7, 9, 16, 12, 0, 0, 5, 6, 0, 15,
    11, 11, 4, 53, 7, 6, 8, 23, 13, 10, 15, 29, 21, 22, 4, 5,
    30, 25, 4, 28, 9, 23, 7, 14, 18, 22, 34, 10, 9, 16, 2, 1,
    18, 15, 11, 26, 15, 26, 20, 34, 32, 19, 39, 18, 25, 30, 8, 11,
)  # fmt: skip
"""About how often *E. coli* uses each codon, in the order of CODONS, without stops. A test holds it
against the long open reading frames of its genome."""


@dataclass(frozen=True)
class MadeGene:
    """A gene on a made contig; positions are 0-based and half-open, on the contig's own strand."""

    start: int
    stop: int
    strand: str
    codons: tuple[str, ...]
    """From ATG to the stop codon, as they are read."""


@dataclass(frozen=True)
class MadeVariant:
    """A substitution inside a gene: the letters on the contig, and what becomes of the protein."""

    position: int
    ref: str
    alt: str
    effect: str
    """`synonymous`, `missense` or `stop`."""


@dataclass(frozen=True)
class MadeContig:
    """A contig of genes that follow each other."""

    letters: str
    genes: tuple[MadeGene, ...]
    name: str = "made"

    @property
    def ids(self) -> Ids:
        """Its token ids, (L,)."""
        return encode(self.letters)

    def variants(self) -> Iterator[MadeVariant]:
        """Every substitution of a base of the codons between the first and the last, in order."""
        found = [variant for gene in self.genes for variant in _variants(gene)]
        yield from sorted(found, key=lambda v: (v.position, v.alt))


def make_genes(count: int, *, codons: int = 200, between: int = 60, seed: int = 0) -> MadeContig:
    """A contig of `count` genes of so many codons, start and stop included.

    between: random bases before each, and behind the last. seed: of all that is drawn.
    """
    rng = np.random.default_rng(seed)
    share = np.array(_PER_THOUSAND, dtype=np.float64)
    letters, genes = "", []
    for _ in range(count):
        drawn = [CODONS[i] for i in rng.choice(64, size=codons - 2, p=share / share.sum())]
        chosen = ("ATG", *drawn, "TAA")
        text = "AGGAGG" + "".join(rng.choice(list("ACGT"), size=7)) + "".join(chosen)
        strand = "+-"[int(rng.integers(2))]
        letters += "".join(rng.choice(list("ACGT"), size=between))
        start = len(letters) + (len(text) - 3 * codons if strand == "+" else 0)
        letters += text if strand == "+" else reverse_complement(text)
        genes.append(MadeGene(start, start + 3 * codons, strand, chosen))
    return MadeContig(letters + "".join(rng.choice(list("ACGT"), size=between)), tuple(genes))


def _variants(gene: MadeGene) -> Iterator[MadeVariant]:
    for number, codon in enumerate(gene.codons[1:-1], start=1):
        for place, ref in enumerate(codon):
            for alt in "ACGT":
                if alt == ref:
                    continue
                changed = codon[:place] + alt + codon[place + 1 :]
                read = 3 * number + place
                if gene.strand == "+":
                    yield MadeVariant(gene.start + read, ref, alt, _effect(codon, changed))
                else:
                    position = gene.stop - 1 - read
                    pair = reverse_complement(ref), reverse_complement(alt)
                    yield MadeVariant(position, *pair, _effect(codon, changed))


def _effect(codon: str, changed: str) -> str:
    if AMINO_ACID[changed] == AMINO_ACID[codon]:
        return "synonymous"
    return "stop" if AMINO_ACID[changed] == "*" else "missense"
