"""Random genes: what they say of themselves is what their letters say."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from hyenadna.alphabet import reverse_complement
from hyenadna.genome.fasta import Genome
from hyenadna.genome.made_genes import _PER_THOUSAND, AMINO_ACID, CODONS, make_genes


def test_the_code_is_the_standard_one():
    assert len(CODONS) == len(set(CODONS)) == len(_PER_THOUSAND) == 64
    known = {"ATG": "M", "TGG": "W", "TAA": "*", "TAG": "*", "TGA": "*", "GGC": "G", "AAA": "K"}
    assert {codon: AMINO_ACID[codon] for codon in known} == known
    assert sorted(AMINO_ACID.values()).count("*") == 3
    share = dict(zip(CODONS, _PER_THOUSAND, strict=True))
    assert sum(_PER_THOUSAND) == pytest.approx(1000, abs=30)
    assert share["CTG"] > 10 * share["CTA"] and not share["TGA"]


def test_genes_read_from_start_to_stop_on_their_strand():
    contig = make_genes(12, codons=30, seed=3)
    assert {gene.strand for gene in contig.genes} == {"+", "-"}
    last = 0
    for gene in contig.genes:
        assert gene.start >= last
        last = gene.stop
        text = contig.letters[gene.start : gene.stop]
        read = text if gene.strand == "+" else reverse_complement(text)
        codons = [read[i : i + 3] for i in range(0, len(read), 3)]
        assert tuple(codons) == gene.codons and len(codons) == 30
        protein = "".join(AMINO_ACID[codon] for codon in codons)
        assert protein.startswith("M") and protein.index("*") == 29
    assert make_genes(12, codons=30, seed=3) == contig != make_genes(12, codons=30, seed=4)


def test_variants_do_what_they_say():
    contig = make_genes(3, codons=20, seed=0)
    found = list(contig.variants())
    assert len(found) == 3 * 18 * 9
    assert [v.position for v in found] == sorted(v.position for v in found)
    for variant in found:
        assert contig.letters[variant.position] == variant.ref != variant.alt
        changed = list(contig.letters)
        changed[variant.position] = variant.alt
        gene = next(g for g in contig.genes if g.start <= variant.position < g.stop)
        text = "".join(changed)[gene.start : gene.stop]
        read = text if gene.strand == "+" else reverse_complement(text)
        protein = "".join(AMINO_ACID[read[i : i + 3]] for i in range(0, len(read), 3))
        before = "".join(AMINO_ACID[codon] for codon in gene.codons)
        if variant.effect == "synonymous":
            assert protein == before
        else:
            assert protein != before
            assert (variant.effect == "stop") == (protein.index("*") < 19)


def test_codons_come_in_their_proportions():
    contig = make_genes(40, codons=500, seed=1)
    inner = [codon for gene in contig.genes for codon in gene.codons[1:-1]]
    counts = np.array([inner.count(codon) for codon in CODONS])
    share = np.array(_PER_THOUSAND) / sum(_PER_THOUSAND)
    assert np.abs(counts / len(inner) - share).max() < 0.006


def test_the_proportions_are_those_of_long_reading_frames_of_e_coli(shared):
    genome = Genome.open(shared / "data" / "ecoli_K12_MG1655" / "NC_000913.fa.gz")
    (contig, length), = genome.contigs.items()  # fmt: skip
    letters = genome.letters(contig, 0, length).decode()
    counts = dict.fromkeys(CODONS, 0)
    for strand in (letters, reverse_complement(letters)):
        for frame in range(3):
            codons = [strand[i : i + 3] for i in range(frame, length - 2, 3)]
            stops = [i for i, codon in enumerate(codons) if AMINO_ACID[codon] == "*"]
            for before, after in pairwise(stops):
                if after - before > 400:  # chance makes none so long
                    for codon in codons[before + 101 : after]:  # behind any start
                        counts[codon] += 1
    found = np.array([counts[codon] for codon in CODONS], dtype=float)
    assert found.sum() > 200_000
    share = np.array(_PER_THOUSAND) / sum(_PER_THOUSAND)
    assert np.abs(found / found.sum() - share).max() < 0.007
    assert np.corrcoef(found, share)[0, 1] > 0.97
