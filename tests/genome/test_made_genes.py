"""Genes that never were: what they say of themselves is what their letters say."""

from __future__ import annotations

import numpy as np
import pytest

from hyenadna.alphabet import reverse_complement
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
