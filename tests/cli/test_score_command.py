"""`hyenadna score`: a VCF in, all its records out, scored or with a note; one line for errors."""

from __future__ import annotations

import csv
import gzip
import json
import math

import numpy as np
import pyarrow.parquet
import pysam
import pysam.bcftools
import pytest
import torch

from hyenadna.alphabet import decode
from hyenadna.checkpoint.save import save
from hyenadna.checkpoint.task import SavedTask, save_task
from hyenadna.cli import score as command
from hyenadna.cli.app import run
from hyenadna.config import ModelConfig
from hyenadna.genome.variant_file import VariantFile
from hyenadna.infer.run_record import read_record
from hyenadna.infer.score_file import VcfRows
from hyenadna.infer.score_reading import read_scored, summarise
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.heads import TaskModel

CONFIG = ModelConfig(d_model=8, n_layer=1, max_seq_len=66, filter_order=8)
LETTERS = decode(np.random.default_rng(0).integers(7, 11, 900))
OTHER = {"A": "C", "C": "G", "G": "T", "T": "A"}
COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
HEAD = f'##fileformat=VCFv4.2\n##INFO=<ID=DP,Number=1,Type=Integer,Description="x">\n{COLUMNS}\n'


def at(pos, alt=None, ref=None, contig="chr1", info="DP=3"):
    """A line for the base at pos (from 1)."""
    ref = LETTERS[pos - 1] if ref is None else ref
    alt = OTHER[ref[0]] + ref[1:] if alt is None else alt
    return f"{contig}\t{pos}\trs{pos}\t{ref}\t{alt}\t.\tPASS\t{info}\n"


ROWS = [at(5), at(300, info="."), at(301), at(301, ref=LETTERS[300:303], alt=LETTERS[300]), at(880)]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a model and a genome, where the command runs."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save(HyenaDNA(CONFIG), tmp_path / "model")
    (tmp_path / "g.fa").write_text(f">chr1 the first\n{LETTERS}\n>MT\n{LETTERS[:100]}\n")
    (tmp_path / "v.vcf").write_text(HEAD + "".join(ROWS))
    return tmp_path


def words(source="v.vcf", out="s.vcf.gz", *more):
    return ["score", "model", source, "--genome", "g.fa", "-o", out, "--threads", "1", *more]


def scored(path):
    return list(read_scored(path))


def test_every_record_comes_out_as_it_was(place, capsys):
    assert run(words()) == 0
    printed = capsys.readouterr().out
    assert "5 records with 5 alternative alleles; 5 fit the genome (4 snv, 1 deletion)" in printed
    assert "5 records, 5 alleles scored in all" in printed and "a second" in printed
    with gzip.open(place / "s.vcf.gz", "rt") as stream:
        lines = [line for line in stream if not line.startswith("#")]
    for line, row in zip(lines, ROWS, strict=True):
        before, info = row.rstrip("\n").rsplit("\t", 1)
        kept = "" if info == "." else f"{info};"
        assert line.startswith(f"{before}\t{kept}HDNA_LLR=")
    with pysam.VariantFile("s.vcf.gz") as file:
        assert file.header.contigs["chr1"].length == 900
        found = list(file.fetch("chr1", 299, 301))  # by the index
        assert len(found) == 3 and len(file.header.info["HDNA_LLR"].description) > 20
        assert found[1].info["DP"] == 3
        mean = (found[0].info["HDNA_LLR_FWD"][0] + found[0].info["HDNA_LLR_REV"][0]) / 2
        assert found[0].info["HDNA_LLR"][0] == pytest.approx(mean, abs=1e-5)
        assert found[2].info.get("HDNA_LLR_ALLELE", (None,)) == (None,)  # unequal lengths
    said = pysam.bcftools.view("-H", "s.vcf.gz")
    assert said.count("\n") == 5
    assert {p.name for p in place.iterdir()} == {
        "model", "g.fa", "g.fa.fai", "v.vcf", "s.vcf.gz", "s.vcf.gz.tbi", "s.vcf.gz.run.json",
    }  # fmt: skip
    record = read_record(place / "s.vcf.gz")
    assert record.verb == "score" and record.figures["scored"] == 5
    assert record.settings["length"] == 64 and "chance" in record.caveats[0]


def test_all_forms_of_output_say_the_same(place):
    text = HEAD + "".join(ROWS) + at(20, alt="<DEL>,C" if LETTERS[19] != "C" else "<DEL>,A")
    (place / "v.vcf").write_text(text + at(30, alt="."))
    want = None
    for end in ("vcf", "vcf.gz", "bcf", "tsv", "csv", "parquet"):
        assert run(words("v.vcf", f"s.{end}")) == 0
        found = scored(place / f"s.{end}")
        rows = [(a.chrom, a.pos, a.id, a.ref, a.alt, a.note) for a in found]
        values = np.array([[a.values.get(n, math.nan) for n in found[0].values] for a in found])
        if want is None:
            want = rows, values
        assert rows == want[0]
        np.testing.assert_allclose(values, want[1], rtol=1e-5, atol=1e-6)
    assert [row[5] for row in want[0]] == [""] * 5 + ["SYMBOLIC", "", "NO_ALT"]
    assert np.isfinite(want[1][:5, 0]).all() and np.isnan(want[1][5, 0])
    with (place / "s.tsv").open() as stream:
        first = next(csv.DictReader(stream, delimiter="\t"))
    assert list(first) == [
        "chrom", "pos", "id", "ref", "alt", "llr", "llr_forward", "llr_reverse", "llr_allele",
        "dist", "note",
    ]  # fmt: skip
    symbolic = (place / "s.csv").read_text().splitlines()[6]
    assert symbolic.endswith(",<DEL>,,,,,,SYMBOLIC")  # empty, as in tables of other commands
    table = pyarrow.parquet.read_table(place / "s.parquet")
    assert table["llr"].null_count == 2 and table["llr"].to_pylist()[5] is None
    assert summarise(place / "s.bcf").kinds == {"snv": 5, "deletion": 1}


def test_what_cannot_be_scored_has_a_note(place, capsys):
    rows = [
        at(10, alt="C,<DEL>,*,A]chr1:5],N", ref=LETTERS[9]),
        at(11, ref=OTHER[LETTERS[10]], alt="A"),
        at(12, contig="chrUn"),
        at(2000, ref="A", alt="C"),
        at(13, alt=LETTERS[12]),
        at(14, alt=LETTERS[13].lower() + "ACGT" * 20),
        at(1),
        at(7, contig="1"),
        at(7, contig="chrM"),
    ]
    (place / "v.vcf").write_text(HEAD + "".join(rows))
    assert run(words("v.vcf", "s.vcf")) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "1 is chr1, chrM is MT" in printed and "1 contig is not in the genome: chrUn" in printed
    lines = (place / "s.vcf").read_text().splitlines()
    notes = [line.partition("HDNA_NOTE=")[2] for line in lines if not line.startswith("#")]
    assert notes[0].endswith("SYMBOLIC,SPANNING_DELETION,BREAKEND,NOT_ACGT")
    assert notes[1:] == [
        "REF_MISMATCH", "CONTIG_UNKNOWN", "PAST_THE_END", "", "ALLELE_TOO_LONG", "ONE_STRAND", "",
        "",
    ]  # fmt: skip
    found = scored(place / "s.vcf")
    nothing = next(a for a in found if a.pos == 13)
    assert set(nothing.values.values()) == {0.0}
    assert any(line.startswith("##contig=<ID=chrM,length=100>") for line in lines)
    assert any(line == "##contig=<ID=chrUn>" for line in lines)
    assert pysam.bcftools.view("-H", "s.vcf").count("\n") == len(rows)


@pytest.mark.parametrize("form", ["crlf", "gzip", "no header", "no order", "format", "bom"])
def test_files_in_the_wild(place, form, capsys):
    assert run(words("v.vcf", "want.tsv")) == 0
    text = HEAD + "".join(ROWS)
    rows = ROWS
    if form == "crlf":
        text = text.replace("\n", "\r\n")
    elif form == "no header":
        text = "".join(ROWS)
    elif form == "no order":
        rows = [ROWS[3], ROWS[0], ROWS[4], ROWS[1], ROWS[2]]
        text = HEAD + "".join(rows)
    elif form == "bom":
        text = "\ufeff" + text
    elif form == "format":
        text = text.replace("\tINFO\n", "\tINFO\tFORMAT\tS\n")
        text = text.replace("DP=3\n", "DP=3\tGT\t0/1\n").replace("PASS\t.\n", "PASS\t.\tGT\t.\n")
    if form == "gzip":
        (place / "w.vcf.gz").write_bytes(gzip.compress(text.encode()))
    else:
        (place / "w.vcf.gz").write_bytes(text.encode())  # the name does not matter
    assert run(words("w.vcf.gz", "s.vcf.gz")) == 0
    found = {a.id + a.alt: a for a in scored(place / "s.vcf.gz")}
    for want in scored(place / "want.tsv"):
        got = found[want.id + want.alt]
        np.testing.assert_allclose(
            list(got.values.values()), list(want.values.values()), rtol=1e-4, atol=1e-5
        )
    order = [f"{line.split()[2]}" for line in rows]
    assert [a.id for a in scored(place / "s.vcf.gz")] == order
    assert (place / "s.vcf.gz.tbi").exists() == (form != "no order")
    assert ("has no index: its records are not in order" in _joined(capsys)) == (form == "no order")
    assert pysam.bcftools.view("-H", "s.vcf.gz").count("\n") == 5


def _joined(capsys):
    return " ".join(capsys.readouterr().out.split())


def test_what_a_header_does_not_declare(place, capfd):
    rows = [row.replace("PASS\tDP=3", "q10\tXX=3;FLAG")[:-1] + "\tGT:AD\t0/1:3,4\n" for row in ROWS]
    (place / "v.vcf").write_text("".join(rows))
    assert run(words("v.vcf", "s.bcf")) == 0
    assert capfd.readouterr().err == ""
    with pysam.VariantFile("s.bcf") as file:
        found = next(iter(file))
        assert found.info["XX"] == ("3",) and found.info["FLAG"] and list(found.filter) == ["q10"]
        assert found.samples[0]["GT"] == (0, 1) and "HDNA_LLR" in found.info


def test_no_records(place, capsys):
    (place / "v.vcf").write_text(HEAD)
    for out in ("s.vcf.gz", "s.bcf", "s.parquet", "s.tsv"):
        assert run(words("v.vcf", out)) == 0
        assert "holds no records; neither does the output" in _joined(capsys)
        assert scored(place / out) == []
    assert pysam.bcftools.view("-h", "s.vcf.gz").count("##contig") == 2


def test_regions(place, capsys):
    pysam.tabix_compress("v.vcf", "v.vcf.gz")
    pysam.tabix_index("v.vcf.gz", preset="vcf")
    assert run(words("v.vcf.gz", "s.tsv", "--region", "chr1:302-302", "--region", "1:5-5")) == 0
    assert [a.pos for a in scored(place / "s.tsv")] == [5, 301]  # the deletion reaches 302
    assert run(words("v.vcf.gz", "t.tsv", "--region", "chr1:1-5 chr1:800-900")) == 0
    assert [a.pos for a in scored(place / "t.tsv")] == [5, 880]
    capsys.readouterr()
    assert run(words("v.vcf.gz", "u.tsv", "--region", " ")) == 2
    assert "--region is empty" in capsys.readouterr().err
    assert run(words("v.vcf", "u.tsv", "--region", "chr1:1-5")) == 2
    assert "--region needs bgzip and an index" in capsys.readouterr().err


@pytest.mark.parametrize("end", ["tsv", "parquet", "vcf.gz", "bcf"])
def test_text_that_is_not_utf8(place, end, capsys):
    (place / "v.vcf").write_bytes((HEAD + ROWS[0] + ROWS[1]).encode().replace(b"rs3", b"\xe93"))
    code = run(words("v.vcf", f"s.{end}"))
    if end == "bcf":
        error = capsys.readouterr().err
        assert code == 2 and "record 2 holds text that is not UTF-8" in error
        assert "write .vcf.gz" in error and not list(place.glob("s.bcf*"))
        return
    assert code == 0
    said = "\udce9300" if end == "vcf.gz" else "?300"
    assert [a.id for a in scored(place / f"s.{end}")] == ["rs5", said]


def test_background(place, capsys):
    assert run(words("v.vcf", "s.vcf.gz", "--background", "40", "--length", "40")) == 0
    assert (
        "background of 40 random variants for each class and length (snv, deletion 2)"
        in _joined(capsys)
    )
    found = scored(place / "s.vcf.gz")
    ranks = [a.values["llr_percentile"] for a in found]
    assert all(0 <= rank <= 100 for rank in ranks) and len(set(ranks)) > 1
    order = np.argsort([a.values["llr"] for a in found if a.kind == "snv"])
    snvs = np.array([a.values["llr_percentile"] for a in found if a.kind == "snv"])
    assert (np.diff(snvs[order]) >= 0).all()
    assert math.isnan(found[3].values["llr_allele_percentile"])
    figures = read_record(place / "s.vcf.gz").figures
    assert set(figures["background"]) == {"snv", "deletion 2"}
    assert run(words("v.vcf", "t.tsv", "--background", "40", "--length", "40")) == 0
    assert [a.values["llr_percentile"] for a in scored(place / "t.tsv")] == ranks
    assert run(words("v.vcf", "u.tsv", "--background", "40", "--length", "40", "--seed", "1")) == 0
    assert [a.values["llr_percentile"] for a in scored(place / "u.tsv")] != ranks


def test_background_of_a_file_without_sequence(place, capsys):
    (place / "v.vcf").write_text(HEAD + at(5, alt="<DEL>"))
    assert run(words("v.vcf", "s.tsv", "--background", "10")) == 0
    printed = _joined(capsys)
    assert "1 record with 1 alternative allele; 0 fit the genome" in printed
    assert "background of" not in printed
    (only,) = scored(place / "s.tsv")
    assert only.note == "SYMBOLIC" and math.isnan(only.values["llr_percentile"])


def test_chunks_are_bounded_in_letters(place, monkeypatch):
    long = [f"{row[:-1]}\tGT\t{'0/1' * 100}\n" for row in ROWS]
    (place / "v.vcf").write_text("".join([*long, *ROWS]))
    file = VariantFile.open(place / "v.vcf")
    monkeypatch.setattr(command, "_CHUNK_LETTERS", 600)

    def sizes(skip, samples):
        return [len(each) for each in command._chunks(file, range(skip, 1000), samples=samples)]

    assert sizes(0, True) == [2, 2, 6] and sizes(2, True) == [2, 6] and sizes(10, True) == []
    assert sizes(0, False) == [10]
    (chunk,) = command._chunks(file, range(1000), samples=False)
    assert all(not record.rest for record in chunk)


@pytest.mark.parametrize("out", ["s.vcf.gz", "s.parquet"])
def test_an_interrupted_run_goes_on(place, out, capsys, monkeypatch):
    monkeypatch.setattr(command, "_FIRST_CHUNK", 1)
    monkeypatch.setattr(command, "_CHUNK", 2)
    more = ("--background", "10", "--length", "40")
    assert run(words("v.vcf", out, *more)) == 0
    want = (place / out).read_bytes()
    for name in place.glob(f"{out}*"):
        name.unlink()
    kind = VcfRows if out.endswith("gz") else command_rows()
    append, calls = kind.append, []

    def interrupted(file, rows, inputs):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(rows)
        append(file, rows, inputs)

    monkeypatch.setattr(kind, "append", interrupted)
    assert run(words("v.vcf", out, *more)) == 130
    assert "stopped after 3 of 5 records; go on with --resume" in _joined(capsys)
    monkeypatch.setattr(kind, "append", append)
    assert run(words("v.vcf", out, *more)) == 2
    assert "go on with --resume, or remove it" in capsys.readouterr().err
    assert run(words("v.vcf", out, *more, "--resume", "--strands", "forward")) == 2
    assert "strands average, not forward" in capsys.readouterr().err
    assert run(words("v.vcf", out, *more, "--resume")) == 0
    printed = _joined(capsys)
    assert "resuming after record 3" in printed and "background of" not in printed
    assert (place / out).read_bytes() == want
    (place / "v.vcf").write_text(HEAD + "".join(ROWS[:3]))
    assert run(words("v.vcf", out, *more, "--resume")) == 2
    assert "exists" in capsys.readouterr().err


def command_rows():
    from hyenadna.infer.rows_file import RowsFile

    return RowsFile


def test_chunks_and_threads_make_no_difference(place, monkeypatch):
    assert run(words("v.vcf", "a.tsv")) == 0
    threads = torch.get_num_threads()
    monkeypatch.setattr(command, "_FIRST_CHUNK", 1)
    monkeypatch.setattr(command, "_CHUNK", 3)
    try:
        assert run([*words("v.vcf", "b.tsv")[:-1], "2"]) == 0
    finally:
        torch.set_num_threads(threads)
    a, b = (np.array([list(x.values.values()) for x in scored(place / f"{n}.tsv")]) for n in "ab")
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_shared_and_whole_agree(place):
    assert run(words("v.vcf", "a.tsv")) == 0
    assert run(words("v.vcf", "b.tsv", "--method", "whole")) == 0
    a, b = (np.array([list(x.values.values()) for x in scored(place / f"{n}.tsv")]) for n in "ab")
    np.testing.assert_allclose(a, b, atol=2e-5)
    assert np.nanmax(np.abs(a)) > 1e-3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (HEAD + "chr1\t5\t.\tA\n", "v.vcf:4: a record has at least 8 columns"),
        (HEAD + "".join(ROWS) + "chr1\tx\t.\tA\tC\t.\t.\t.\n", "v.vcf:9: POS is 'x'"),
        (HEAD + at(5, contig="7") + at(6, contig="8"), "none of 2 records fits the genome: its"),
        (HEAD + at(5, ref=OTHER[LETTERS[4]], alt="N"), "another assembly?"),
        (HEAD + at(5000, ref="A", alt="T"), "past the ends of contigs"),
        (">chr1\nACGT\n", "at least 8 columns"),
    ],
)
def test_broken_files_are_refused_before_anything_slow(place, capsys, text, message):
    (place / "v.vcf").write_text(text)
    assert run(words("v.vcf", "s.vcf.gz")) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(place.glob("s.vcf.gz*"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["-o", "s.txt"], "scores are written as .vcf.gz, .vcf, .bcf, .csv, .tsv, .parquet"),
        (["--length", "100"], "--length is 100; this model reads windows of 8 to 66"),
        (["--after", "0"], "must be at least 1"),
        (["--background", "-1"], "--background is -1"),
        (["--genome", "no.fa"], "no.fa"),
    ],
)
def test_bad_options(place, capsys, more, message):
    given = dict(zip(more[::2], more[1::2], strict=True))
    plain = ["score", "model", "v.vcf"]
    wanted = {"--genome": "g.fa", "-o": "s.vcf.gz", **given}
    assert run([*plain, *(word for pair in wanted.items() for word in pair)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_fine_tuned_model_is_refused(place, capsys):
    task = SavedTask(kind="classes", names=("a", "b"), pooling="mean")
    save_task(TaskModel(HyenaDNA(CONFIG), task), place / "tuned")
    assert run(["score", "tuned", *words()[2:]]) == 2
    error = capsys.readouterr().err
    assert "tuned: is a fine-tuned model" in error and "the model it came from" in error
    assert error.count("\n") == 1 and not list(place.glob("s.vcf.gz*"))


def test_scoring_twice_replaces_the_fields(place):
    assert run(words()) == 0
    assert run(words("s.vcf.gz", "t.vcf.gz", "--length", "40")) == 0
    text = gzip.decompress((place / "t.vcf.gz").read_bytes()).decode()
    assert text.count("##INFO=<ID=HDNA_LLR,") == 1 and text.count(";HDNA_LLR=") == 4
    assert "nan" not in text


def test_ten_thousand_contigs(place):
    records = "".join(f">contig{i} of many\n{LETTERS[:60]}\n" for i in range(10_000))
    (place / "g.fa").write_text(records)
    rows = [at(30, contig=f"contig{i}") for i in (0, 9_999, 5_000)]
    (place / "v.vcf").write_text(HEAD + "".join(rows))
    assert run(words("v.vcf", "s.vcf.gz")) == 0
    found = scored(place / "s.vcf.gz")
    assert len({tuple(a.values.values()) for a in found}) == 1
    assert json.loads((place / "s.vcf.gz.run.json").read_text())["figures"]["scored"] == 3
