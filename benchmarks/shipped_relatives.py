"""Made relatives of genomes: copies with substitutions, as species that parted long ago differ.

Ten mitochondrial genomes are too few to learn what they share: a model that reads them over and
over knows them by heart and fails on the next species. Copies that differ at random in up to a
fifth of their bases cannot be learned by heart; what is left to learn is where in a mitochondrion
a stretch lies, and how sure one can be of each base.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from hyenadna.alphabet import BASES, A, Ids
from hyenadna.genome.fasta import GenomeReader

COPIES: Final = 40
"""Of each genome; the first has no substitution."""
MOST_SUBSTITUTED: Final = 0.2
"""The share of substituted bases is drawn for each copy between 0 and this. Cattle and sheep, as
validation of a model that read neither, chose it over 0.35."""
TRANSITIONS: Final = 0.7
"""The share of substitutions that are A to G, G to A, C to T or T to C."""
SEED: Final = 2222


@dataclass(frozen=True)
class Relative:
    """A made genome."""

    name: str
    ids: Ids


def relatives(genome: GenomeReader, contigs: tuple[str, ...]) -> Iterator[Relative]:
    """The copies of each of these contigs, always the same ones."""
    rng = np.random.default_rng(SEED)
    for contig in contigs:
        ids = genome.tokens(contig, 0, genome.contigs[contig])
        for copy in range(COPIES):
            share = rng.uniform(0, MOST_SUBSTITUTED) if copy else 0.0
            yield Relative(f"{contig}.{copy}", substituted(ids, share, rng))


def substituted(ids: Ids, share: float, rng: np.random.Generator) -> Ids:
    """Token ids in which each base became another one with this probability; N stays."""
    code = ids.astype(np.int64) - A
    transition = rng.random(len(ids)) < TRANSITIONS
    # In the order A C G T, 2 apart is a transition, 1 or 3 apart (in binary) a transversion.
    change = np.where(transition, 2, 1 + 2 * rng.integers(0, 2, len(ids)))
    hit = np.isin(ids, BASES) & (rng.random(len(ids)) < share)
    return (A + np.where(hit, code ^ change, code)).astype(ids.dtype)
