"""Records stay as they are; alleles applied, trimmed and checked against the genome."""

from __future__ import annotations

import gzip
import re

import numpy as np
import pysam
import pysam.bcftools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyenadna.alphabet import decode, encode
from hyenadna.errors import InputError
from hyenadna.genome.contig_names import contig_aliases
from hyenadna.genome.fasta import Genome
from hyenadna.genome.variant_file import VariantFile, contig_lines
from hyenadna.genome.variants import (
    Allele,
    AlleleReader,
    Note,
    applied,
    parse_record,
    trimmed,
)

dna = st.text("ACGT", min_size=1, max_size=12)


@given(st.text("ACGT", min_size=0, max_size=20), dna, dna, st.text("ACGT", max_size=20))
def test_trimming_keeps_the_haplotype(front, ref, alt, back):
    genome = encode(front + ref + back)
    allele = trimmed("a", len(front), encode(ref), encode(alt))
    assert decode(applied(genome, allele)) == front + alt + back
    if len(allele.ref) and len(allele.alt):
        assert allele.ref[0] != allele.alt[0] and allele.ref[-1] != allele.alt[-1]
    assert (allele.kind == "none") == (ref == alt)


@given(st.text("ACGT", max_size=6), dna, dna, st.text("ACGT", max_size=6))
def test_padding_makes_no_difference_where_the_allele_stays(front, ref, alt, back):
    bare = trimmed("a", len(front), encode(ref), encode(alt))
    padded = trimmed("a", 0, encode(front + ref + back), encode(front + alt + back))
    if len(ref) == len(alt) and ref != alt:  # an indel in a repeat may stand at several places
        assert (bare.start, decode(bare.ref), decode(bare.alt)) == (
            padded.start, decode(padded.ref), decode(padded.alt),
        )  # fmt: skip
    sequence = encode(front + ref + back)
    np.testing.assert_array_equal(applied(sequence, bare), applied(sequence, padded))


def test_known_alleles():
    def kind(ref, alt):
        allele = trimmed("a", 10, encode(ref), encode(alt))
        return allele.kind, allele.start, decode(allele.ref), decode(allele.alt)

    assert kind("A", "G") == ("snv", 10, "A", "G")
    assert kind("AC", "GC") == ("snv", 10, "A", "G")
    assert kind("ACT", "GCA") == ("mnv", 10, "ACT", "GCA")
    assert kind("A", "AGG") == ("insertion", 11, "", "GG")
    assert kind("CAA", "CA") == ("deletion", 11, "A", "")
    assert kind("ACG", "TT") == ("indel", 10, "ACG", "TT")
    assert kind("ac", "AC") == ("none", 10, "", "")
    with pytest.raises(InputError, match="not within the bases 5 to 6"):
        applied(encode("AC"), Allele("a", 3, encode("A"), encode("C")), offset=4)


@pytest.fixture
def genome(tmp_path):
    (tmp_path / "g.fa").write_text(">chr1 the first one\nACGTNRacgtAC\n>MT\nACGT\n>2\nAAAA\n")
    return Genome.open(tmp_path / "g.fa")


def alleles(genome, *columns):
    line = "\t".join([columns[0], str(columns[1]), ".", *columns[2:], ".", ".", "."])
    return AlleleReader(genome).alleles(parse_record(line, "x:1"))


def test_what_cannot_be_scored_says_why(genome):
    def note(*columns):
        return [x if isinstance(x, Note) else x.kind for x in alleles(genome, *columns)]

    assert note("chr1", 1, "A", "C,<DEL>,*,G]chr1:5],.G,.") == [
        "snv", Note.SYMBOLIC, Note.SPANNING_DELETION, Note.BREAKEND, Note.BREAKEND, Note.NO_ALT,
    ]  # fmt: skip
    assert note("chr1", 1, "A", ".") == [Note.NO_ALT]
    assert note("chr1", 1, "G", "C,<DEL>") == [Note.REF_MISMATCH, Note.SYMBOLIC]
    assert note("chr1", 1, "a", "c") == ["snv"] and note("chr1", 7, "A", "c") == ["snv"]
    assert note("chr1", 5, "N", "A") == note("chr1", 5, "A", "C") == [Note.NOT_ACGT]
    assert note("chr1", 6, "R", "A") == note("chr1", 4, "TN", "T") == [Note.NOT_ACGT]
    assert note("chr1", 1, "A", "N,!") == [Note.NOT_ACGT, Note.NOT_ACGT]
    assert note("chr1", 1, "!", "C") == [Note.NOT_ACGT]
    assert note("chr1", 12, "C", "A") == ["snv"] and note("1", 12, "C", "CA") == ["insertion"]
    for pos, ref in ((13, "A"), (12, "CA"), (0, "A")):
        assert note("chr1", pos, ref, "T") == [Note.PAST_THE_END]
    with pytest.raises(InputError, match="chr1:5: REF is empty"):
        AlleleReader(genome).allele("chr1", 4, "", "A")
    assert note("chrX", 1, "A", "C") == [Note.CONTIG_UNKNOWN]
    assert note("chrM", 1, "A", "C") == note("M", 1, "A", "C") == ["snv"]


def test_names_of_contigs(genome):
    reader = AlleleReader(genome)
    assert [reader.names[n] for n in ("1", "chrM", "2", "9")] == ["chr1", "MT", "2", None]
    assert reader.names.renamed == {"1": "chr1", "chrM": "MT"}
    assert reader.names.unknown == ["9"]
    assert contig_aliases("chrM") == ["M", "MT", "chrMT"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1\t2\t.\tA\tC", "at least 8 columns, CHROM to INFO; this has 5"),
        ("1 2 . A C . . .", "split at tabs"),
        ("1\tx\t.\tA\tC\t.\t.\t.", "v.vcf:7: POS is 'x', not a whole number"),
        ("1\t-5\t.\tA\tC\t.\t.\t.", "POS is '-5'"),
        ("1\t5\t.\t\tC\t.\t.\t.", "REF is empty"),
        (f"1\t{'x' * 300}\t.\tA\tC\t.\t.\t.", f"POS is '{'x' * 40}…', not"),
        ("1\tx\0y\t.\tA\tC\t.\t.\t.", "v.vcf:7: holds NUL bytes: this is no VCF"),
    ],
)
def test_bad_lines(line, message):
    with pytest.raises(InputError, match=message):
        parse_record(line, "v.vcf:7")


HEAD = "##fileformat=VCFv4.2\n##contig=<ID=chr1,length=12>\n"
COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tS 1\n"
ROWS = [
    "chr1\t1\trs1;x\tA\tC,<DEL>\t1.50\tPASS\tDP=3;H=a,4\tGT\t0/1",
    "chr1\t3\t.\tGT\tG\t.\t.\t.\tGT:AD\t0|1:3,4",
    "chr1\t8\t.\tC\tT\t.\t.\tX=a b,%3B\tGT\t.",
]


def written(path, packing, text):
    if packing == "gzip":
        path.write_bytes(gzip.compress(text.encode()))
    elif packing == "bgzip":
        (path.with_name("plain")).write_text(text, newline="")
        pysam.tabix_compress(str(path.with_name("plain")), str(path), force=True)
        if "chr1" in text:
            pysam.tabix_index(str(path), preset="vcf", force=True)
    else:
        path.write_text(text, newline="")
    return path


@pytest.mark.parametrize("packing", ["plain", "gzip", "bgzip"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_text_is_not_touched(tmp_path, packing, end):
    text = (HEAD + COLUMNS + "\n".join(ROWS) + "\n").replace("\n", end)
    file = VariantFile.open(written(tmp_path / "v.vcf", packing, text))
    assert file.packing == packing and not file.warnings
    assert ["\t".join(r.columns) + r.rest for r in file.records()] == ROWS
    assert file.header.text == HEAD + COLUMNS
    assert file.header.declared("contig") == ["chr1"]


def test_regions(tmp_path):
    path = written(tmp_path / "v.vcf.gz", "bgzip", HEAD + COLUMNS + "\n".join(ROWS) + "\n")

    def starts(*regions, path=path):
        return [r.start + 1 for r in VariantFile.open(path, regions=regions).records()]

    assert starts("chr1:1-3") == starts("1:1-3") == [1, 3]
    assert starts("chr1:4-4") == [3]  # GT reaches to 4
    assert starts("chr1:8-9", "chr1:1-1") == [1, 8]
    assert starts("chr1:3-3", "chr1:4-8", "chr1:4-4") == [3, 8]
    assert starts("chr1") == [1, 3, 8] and starts("chr1:5-7") == []
    for region, message in (
        ("chr2", "has no contig 'chr2'; it has chr1"),
        ("chr1:9-3", "--region: interval 'chr1:9-3'.* behind"),
        ("chr1:7", "--region 'chr1:7': write contig or contig:first-last"),
        ("1:5-", "--region '1:5-': write contig or contig:first-last"),
        ("chr1:3000000000-3000000001", "at most 2,147,483,647"),
    ):
        with pytest.raises(InputError, match=message):
            starts(region)
    path.with_name("v.vcf.gz.tbi").unlink()
    with pytest.raises(InputError, match=r"needs an index; make it: tabix -p vcf"):
        starts("chr1")
    for name in ("v 1.vcf.gz", "v 1.vcf"):  # what is advised must not overwrite the file itself
        plain = written(tmp_path / name, "gzip", HEAD + COLUMNS + ROWS[0])
        made = re.escape(f"'{tmp_path / 'v 1.sorted.vcf.gz'}'")
        advice = f"gzip that is not bgzip; bcftools sort '{re.escape(str(plain))}' -O z -o {made}"
        with pytest.raises(InputError, match=advice):
            starts("chr1", path=plain)


def test_text_that_is_not_utf8(tmp_path):
    row = b"chr1\t1\tcaf\xe9\tA\tC\t.\t.\tX=\xc3\xa9\n"  # Latin-1, then UTF-8
    head = (HEAD + COLUMNS.replace("\tFORMAT\tS 1", "")).encode()
    (tmp_path / "plain").write_bytes(head + row)
    path = tmp_path / "v.vcf.gz"
    pysam.tabix_compress(str(tmp_path / "plain"), str(path))
    pysam.tabix_index(str(path), preset="vcf")
    for regions in ((), ("chr1",)):
        (record,) = VariantFile.open(path, regions=regions).records()
        assert "\t".join(record.columns).encode("utf-8", "surrogateescape") + b"\n" == row
        assert record.columns[7] == "X=é"


def test_bcf(tmp_path):
    text = (HEAD + '##INFO=<ID=DP,Number=1,Type=Integer,Description="d">\n' + COLUMNS).replace(
        "\tFORMAT\tS 1", ""
    ) + "chr1\t1\trs1\tA\tC,<DEL>\t1.5\t.\tDP=3\n"
    written(tmp_path / "v.vcf", "plain", text)
    pysam.bcftools.view(
        "-O", "b", "-o", str(tmp_path / "v.bcf"), str(tmp_path / "v.vcf"), catch_stdout=False
    )
    file = VariantFile.open(tmp_path / "v.bcf")
    assert file.packing == "bcf" and file.header.declared("INFO") == ["DP"]
    (record,) = file.records()
    assert record.columns == ["chr1", "1", "rs1", "A", "C,<DEL>", "1.5", ".", "DP=3"]
    with pytest.raises(InputError, match="bcftools index"):
        VariantFile.open(tmp_path / "v.bcf", regions=["chr1"])
    pysam.bcftools.index(str(tmp_path / "v.bcf"))
    assert len(list(VariantFile.open(tmp_path / "v.bcf", regions=["chr1:1-2"]).records())) == 1


def test_headers(tmp_path):
    bare = VariantFile.open(written(tmp_path / "a.vcf", "plain", "\n".join(ROWS) + "\n"))
    assert bare.header.lines == () and bare.header.columns.endswith("INFO\tFORMAT\tSAMPLE1")
    assert len(list(bare.records())) == 3
    assert contig_lines(bare.header, {"chr1": 12, "x": None}) == [
        "##contig=<ID=chr1,length=12>", "##contig=<ID=x>",
    ]  # fmt: skip
    old = '##INFO=<ID=S,Number=1,Type=Float,Description="old, ID=T">'
    file = VariantFile.open(written(tmp_path / "b.vcf", "plain", HEAD + old + "\n" + COLUMNS))
    new = '##INFO=<ID=S,Number=A,Type=Float,Description="new">'
    assert file.header.with_lines([new]).lines == (*HEAD.splitlines(), new)
    assert list(file.records()) == []
    assert bare.header.with_lines([new]).lines == ("##fileformat=VCFv4.2", new)


def test_damaged_files(tmp_path):
    text = HEAD + COLUMNS + "\n".join(ROWS * 2000) + "\n"
    packed = gzip.compress(text.encode())
    (tmp_path / "cut.vcf.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "empty.vcf").write_bytes(b"")
    (tmp_path / "wrong.vcf").write_text(">chr1\nACGT\n")
    (tmp_path / "columns.vcf").write_text(HEAD + "#CHROM\tPOS\n")
    for name, message in (
        ("cut.vcf.gz", "truncated or damaged"),
        ("empty.vcf", "is empty"),
        ("none.vcf", "no such file"),
        ("wrong.vcf", "wrong.vcf:1: a record has at least 8 columns"),
        ("columns.vcf", "columns.vcf:3: the line of column names"),
    ):
        with pytest.raises(InputError, match=message):
            list(VariantFile.open(tmp_path / name).records())
    path = written(tmp_path / "v.vcf.gz", "bgzip", HEAD + COLUMNS + ROWS[0] + "\n")
    path.write_bytes(path.read_bytes()[:-28])
    assert "may be truncated" in VariantFile.open(path).warnings[0]
