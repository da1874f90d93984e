"""What scores of variants know: CpG, allele frequency, the other strand."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from benchmarks.workbench.commands import hyenadna
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from hyenadna.genome.fasta import Genome
from hyenadna.genome.variant_file import VariantFile

FOLDER: Final = "human_hg19_chr22_6Mb"
BACKGROUND: Final = 500
COMMON: Final = 0.01


class Snv(NamedTuple):
    """A single-nucleotide variant with its scores."""

    frequency: float
    llr: float
    forward: float
    reverse: float
    dist: float
    percentile: float
    cpg: bool
    """Whether it is C>T or G>A at a CpG."""


def section(model: Path, data: Path, folder: Path) -> list[str]:
    """Lines of the page: the 1000 Genomes variants of the shared chromosome 22."""
    genome = data / FOLDER / "chr22_1-22000000.fa.gz"
    vcf = data / FOLDER / "1000g_ada2_gab4.vcf.gz"
    out = folder / "scored.vcf.gz"
    words = ["score", model, vcf, "--genome", genome, "-o", out, "--background", BACKGROUND]
    said = hyenadna(*words, folder=folder).strip().splitlines()[-1].replace(f"{folder}/", "")
    snvs = read(out, genome)
    cpg = np.array([v.cpg for v in snvs])
    top = np.array([v.percentile > 95 for v in snvs])
    columns = {name: np.array([getattr(v, name) for v in snvs]) for name in Snv._fields}
    af, common = columns["frequency"], columns["frequency"] >= COMMON
    rest = ~cpg
    lines = [
        "## What scores of variants know",
        "",
        f"`hyenadna score MODEL {vcf.name} --genome {genome.name} -o scored.vcf.gz --background "
        f"{BACKGROUND}`: {said}",
        "",
        f"Of its {len(snvs):,} SNVs:",
        "",
        f"- {top.mean():.0%} stand above the 95th percentile of random SNVs, and "
        f"{cpg[top].mean():.0%} of those are C>T or G>A at a CpG; of all such transitions "
        f"({cpg.sum()}) {top[cpg].mean():.0%} stand there.",
    ]
    for name in ("llr", "dist"):
        values = columns[name]
        rho, p = spearmanr(af, values)
        other, q = spearmanr(af[rest], values[rest])
        lines.append(
            f"- {name.upper()} and allele frequency: Spearman {rho:.3f} (p {p:.1g}), without CpG "
            f"transitions {other:.3f} (p {q:.1g}); common (from {COMMON:.0%}) against rare: AUROC "
            f"{roc_auc_score(common, values):.2f} ({common.sum()} common)."
        )
    strands = np.corrcoef(columns["forward"], columns["reverse"])[0, 1]
    return [*lines, f"- LLR of the two strands: correlation {strands:.2f}.", ""]


def read(scored: Path, genome: Path) -> list[Snv]:
    """The SNVs of a scored VCF that have an allele frequency."""
    reader, found = Genome.open(genome), []
    for record in VariantFile.open(scored).records():
        contig, _, _, ref, alt, *_ = record.columns
        info = dict(x.split("=", 1) for x in record.columns[7].split(";") if "=" in x)
        if len(ref) != 1 or len(alt) != 1 or "HDNA_LLR" not in info or "AF" not in info:
            continue
        start = record.start
        before, after = (reader.letters(contig, i, i + 1).upper() for i in (start - 1, start + 1))
        cpg = (ref, alt, after) == ("C", "T", b"G") or (ref, alt, before) == ("G", "A", b"C")
        names = ("AF", "HDNA_LLR", "HDNA_LLR_FWD", "HDNA_LLR_REV", "HDNA_DIST", "HDNA_LLR_PCT")
        af, llr, forward, backward, distance, percentile = (float(info[name]) for name in names)
        found.append(Snv(af, llr, forward, backward, distance, percentile, cpg))
    return found
