"""The genomes that the shipped models read: files, splits, and what their cards say of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Source:
    """A genome. Where nothing says how it is split, a tenth is held out by the default rule."""

    name: str
    files: tuple[str, ...]
    """FASTA below the data folder, joined in this order."""
    what: str
    origin: str
    bed: str = ""
    """The split as BED."""
    valid: tuple[str, ...] = ()
    """Contigs for validation, where contigs for test are named."""
    test: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    relatives_of: str = ""
    """The source of which copies with substitutions are made, to train on."""
    contigs: tuple[str, ...] = ()
    """Those that are copied."""

    @property
    def fasta(self) -> str:
        """The name of its file once it is prepared."""
        return f"{self.name}.fa" if self.relatives_of else f"{self.name}.fa.gz"


HUMAN_BED: Final = """\
22\t16050000\t21450000\ttrain
22\t21450000\t22000000\tvalid
chr2\t10000\t2333275\ttrain
9\t10000\t1000000\ttest
"""
"""Chromosome 9 is never trained on. 22 is of GRCh37, the others of GRCh38."""

_ALL: Final = (
    Source(
        "human",
        (
            "human_hg19_chr22_6Mb/chr22_1-22000000.fa.gz",
            "human_hg38_chr2_2.3Mb/chr2_1-2333275.fa.gz",
            "human_hg38_chr9_1Mb/chr9_1-1000000.fa.gz",
        ),
        (
            "*Homo sapiens*: GRCh37 chr22:16.05-22.0 Mb and GRCh38 chr2:0-2.33 Mb; GRCh38 "
            "chr9:0-1 Mb is held out"
        ),
        "Genome Reference Consortium, by way of public repositories",
        bed=HUMAN_BED,
    ),
    Source(
        "yeast",
        ("yeast_R64/Saccharomyces_cerevisiae.R64-1-1.fa.gz",),
        (
            "*Saccharomyces cerevisiae* S288C R64-1-1; chromosomes IV and XV are held out, "
            "VI is for validation, the mitochondrion is left out"
        ),
        "Ensembl",
        valid=("VI",),
        test=("IV", "XV"),
        leave_out=("Mito",),
    ),
    Source(
        "ecoli",
        ("ecoli_K12_MG1655/NC_000913.fa.gz",),
        "*Escherichia coli* K-12 MG1655, NC_000913.2; a tenth is held out",
        "INSDC",
    ),
    Source(
        "Bacillus",
        ("bacteria_4/Bacillus.fa.gz",),
        "*Bacillus subtilis* BEST7003, ASM52304v1; a tenth is held out",
        "Ensembl Bacteria",
    ),
    Source(
        "Caul",
        ("bacteria_4/Caul.fa.gz",),
        "*Caulobacter vibrioides*, ASM690v1; a tenth is held out",
        "Ensembl Bacteria",
    ),
    Source(
        "Staph",
        ("bacteria_4/Staph.fa.gz",),
        "*Staphylococcus aureus*, ASM59796v1; a tenth is held out",
        "Ensembl Bacteria",
    ),
    Source(
        "Myco",
        ("bacteria_4/Myco.fa.gz",),
        "*Mycoplasma genitalium* G37, ASM2732v1; a tenth is held out",
        "Ensembl Bacteria",
    ),
    Source(
        "mitochondria",
        ("mammal_mitochondria/mt.fa.gz",),
        (
            "ten mitochondrial genomes of mammals; mouse and rat are held out, cattle is "
            "for validation"
        ),
        "INSDC",
        valid=("cattle",),
        test=("mouse", "rat"),
    ),
    Source(
        "relatives",
        (),
        (
            "made relatives of the mitochondria of the train part: copies in which up to a fifth "
            "of the bases is substituted, never measured on"
        ),
        "Made by `benchmarks/shipped_relatives.py`",
        relatives_of="mitochondria",
        contigs=("human", "orangutan", "chimpanzee", "cat", "sheep", "wolf"),
    ),
)
SOURCES: Final[Mapping[str, Source]] = {source.name: source for source in _ALL}
"""By name, in the order of training."""
