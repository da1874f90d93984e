"""Features are cut where the annotation says, on their own strand, with their gene's name."""

from __future__ import annotations

import pytest

from hyenadna.alphabet import decode, encode, reverse_complement
from hyenadna.data.feature_sequences import COLUMNS, open_features
from hyenadna.errors import InputError
from hyenadna.genome.fasta import Genome

TEXT = "ACGTTGCAACCGGTTAACGT" * 3
GFF = """##gff-version 3
chr1\tx\tregion\t1\t60\t.\t+\t.\tID=chr1;Is_circular=true
chr1\tx\tgene\t3\t12\t.\t+\t.\tID=gene:g1;gene_id=g1;Name=abcD;biotype=protein_coding
chr1\tx\ttranscript\t3\t12\t.\t+\t.\tID=t1;Parent=gene:g1;transcript_id=t1
chr1\tx\texon\t3\t5\t.\t+\t.\tParent=t1;exon_id=e1
chr1\tx\texon\t9\t12\t.\t+\t.\tParent=t1
chr1\tx\ttRNA_gene\t20\t29\t.\t-\t.\tID=gene:g2;gene_id=g2;biotype=tRNA
chr1\tx\tgene\t56\t64\t.\t-\t.\tID=gene:g3;Name=wrap
other\tx\tgene\t1\t5\t.\t+\t.\tID=gene:g4
"""
GTF = (
    "chr1\tx\texon\t3\t5\t.\t-\t.\t"
    'gene_id "G"; gene_name "nice"; transcript_id "T"; gene_biotype "lnc";\n'
)


@pytest.fixture
def genome(tmp_path):
    (tmp_path / "g.fa").write_text(f">1 with a blank\n{TEXT}\n>2\nACGT\n")
    return Genome.open(tmp_path / "g.fa")


def rows(tmp_path, genome, text, types, **options):
    (tmp_path / "a.gff3").write_text(text)
    file = open_features(tmp_path / "a.gff3", genome, types, **options)
    said = [dict(zip(COLUMNS, row.cells, strict=True)) for row in file]
    texts = [(row.id, decode(row.ids)) for row in file]
    return file, [(*text, each) for text, each in zip(texts, said, strict=True)]


def test_genes_on_both_strands_and_over_the_end_of_a_circle(tmp_path, genome):
    file, found = rows(tmp_path, genome, GFF, ["gene", "tRNA_gene"])
    assert [id for id, _, _ in found] == ["g1", "g2", "gene:g3"]
    assert found[0][1] == TEXT[2:12]
    assert found[1][1] == reverse_complement(TEXT[19:29])
    assert found[2][1] == reverse_complement(TEXT[55:] + TEXT[:4])
    assert found[0][2] == {
        "type": "gene", "biotype": "protein_coding", "gene": "g1", "gene_name": "abcD",
        "contig": "1", "start": "2", "stop": "12", "strand": "+",
    }  # fmt: skip
    assert found[2][2]["gene"] == "gene:g3" and found[2][2]["gene_name"] == "wrap"
    assert any("other" in note for note in file.notes)  # contigs that the genome has not


def test_windows_go_round_a_circle(tmp_path, genome):
    _, found = rows(tmp_path, genome, GFF, ["gene"], window=20)
    twice = TEXT + TEXT
    assert found[0][1] == twice[57:77]  # around base 7: begins before the first
    assert found[1][1] == reverse_complement(twice[50:70])  # around base 60, on -
    with pytest.raises(InputError, match="the window of 61 bases goes round 1 more than once"):
        rows(tmp_path, genome, GFF, ["gene"], window=61)


def test_exons_have_what_their_gene_says(tmp_path, genome):
    _, found = rows(tmp_path, genome, GFF, ["exon"])
    assert [id for id, _, _ in found] == ["e1", "chr1:9-12"]
    assert [text for _, text, _ in found] == [TEXT[2:5], TEXT[8:12]]
    for _, _, said in found:
        assert (said["gene"], said["gene_name"]) == ("g1", "abcD")
        assert said["biotype"] == "protein_coding"


def test_gtf_and_windows(tmp_path, genome):
    _, found = rows(tmp_path, genome, GTF, ["exon"], window=7)
    ((id, text, said),) = found
    assert id == "T" and text == reverse_complement(TEXT[0:7])
    assert (said["gene"], said["gene_name"], said["biotype"]) == ("G", "nice", "lnc")
    with pytest.raises(InputError, match="leaves 1, which has 60 bases"):
        rows(tmp_path, genome, GTF, ["exon"], window=20)
    _, found = rows(tmp_path, genome, GTF, ["exon"], window=20, outside="pad")
    assert encode(found[0][1]).tolist().count(11) == 6


@pytest.mark.parametrize(
    ("text", "types", "message"),
    [
        (GFF, ["gen"], r"no feature of type 'gen'; it has exon \(2\), gene \(3\)"),
        (GFF, [], r"say which \(--feature\); it has exon"),
        (GFF.replace("chr1", "9"), ["gene"], "its contigs are 9, other, but"),
        (GFF.replace("Is_circular", "no"), ["gene"], "a.gff3:8: .* runs past the end of"),
        ("chr1\tx\tgene\t9\t3\t.\t+\t.\tID=a\n", ["gene"], "a.gff3:1: start '9' and end '3'"),
        ("", ["gene"], "it has none"),
    ],
)
def test_wrong_annotations(tmp_path, genome, text, types, message):
    with pytest.raises(InputError, match=message):
        rows(tmp_path, genome, text, types)
