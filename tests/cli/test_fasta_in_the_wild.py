"""FASTA files as users have them, through the command line: handled right, or one clear line."""

from __future__ import annotations

import gzip
import json
import stat
from pathlib import Path

import numpy as np
import pytest

from hyenadna.alphabet import decode
from hyenadna.cli.app import run

SMALL = [
    "--d-model", "8", "--n-layer", "1", "--max-seq-len", "34", "--threads", "1", "--steps", "2",
    "--tokens-per-step", "128",
]  # fmt: skip


def dna(length: int, seed: int = 0) -> str:
    return decode(np.random.default_rng(seed).integers(7, 11, length))


def lines(text: str, end: str = "\n", width: int = 60) -> str:
    return "".join(text[i : i + width] + end for i in range(0, len(text), width))


GOOD = f">one\n{lines(dna(6000))}>two\n{lines(dna(5000, 1))}"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HYENADNA_CACHE", str(tmp_path / "cache"))


def pretrain(fasta: Path, out: Path) -> int:
    return run(["pretrain", str(fasta), "--out", str(out), *SMALL])


def one_line(capsys) -> str:
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("hyenadna: ")
    return error


def test_a_read_only_folder_stays_as_it_is(tmp_path):
    folder = tmp_path / "genomes"
    folder.mkdir()
    fasta = folder / "g.fa"
    fasta.write_text(GOOD)
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert pretrain(fasta, tmp_path / "run") == 0
        assert [p.name for p in folder.iterdir()] == ["g.fa"]
    finally:
        folder.chmod(stat.S_IRWXU)


def test_an_index_is_made_beside_the_file_where_that_is_allowed(tmp_path):
    fasta = tmp_path / "g.fa"
    fasta.write_text(GOOD)
    assert pretrain(fasta, tmp_path / "run") == 0
    assert (tmp_path / "g.fa.fai").is_file()


@pytest.mark.parametrize(
    ("name", "content"),
    {
        "windows line ends": GOOD.replace("\n", "\r\n").encode(),
        "no final newline": GOOD.rstrip("\n").encode(),
        "blank lines": GOOD.replace(">two", "\n\n>two").encode() + b"\n\n",
        "lower case and ambiguity codes": GOOD.lower().replace("acgt", "RYKn").encode(),
        "one long line": f">one\n{dna(6000)}\n>two\n{dna(5000, 1)}\n".encode(),
        "gzip": gzip.compress(GOOD.encode()),
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_handled_right(tmp_path, name, content):
    fasta = tmp_path / ("g.fa.gz" if name == "gzip" else "g.fa")
    fasta.write_bytes(content)
    assert pretrain(fasta, tmp_path / "run") == 0
    genome = json.loads((tmp_path / "run" / "run.json").read_text())["genomes"][0]
    assert sum(genome["bases"].values()) == 11_000
    if name not in ("lower case and ambiguity codes",):
        plain = tmp_path / "plain.fa"
        plain.write_text(GOOD)
        assert pretrain(plain, tmp_path / "plain") == 0
        same = json.loads((tmp_path / "plain" / "run.json").read_text())["genomes"][0]
        assert genome["digest"] == same["digest"]


def test_an_empty_record_is_noted(tmp_path, capsys):
    fasta = tmp_path / "g.fa"
    fasta.write_text(">nothing\n" + GOOD)
    assert pretrain(fasta, tmp_path / "run") == 0
    assert "1 of the records are empty: nothing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD.replace("\n>two", "Z\n>two"), "one: letter 'Z' at position 6001 is not DNA"),
        (GOOD.replace(">two", ">one"), "one"),
        ("", "empty"),
        ("no fasta at all\n", "FASTA"),
        (">one\nACGT\n", "4 bases are too few"),
    ],
    ids=["bad letter", "duplicate names", "empty file", "not FASTA", "too short"],
)
def test_refused_in_one_line(tmp_path, capsys, content, message):
    fasta = tmp_path / "g.fa"
    fasta.write_text(content)
    assert pretrain(fasta, tmp_path / "run") == 2
    assert message in one_line(capsys)
    assert not (tmp_path / "run").exists()


def test_a_truncated_gzip(tmp_path, capsys):
    fasta = tmp_path / "g.fa.gz"
    whole = gzip.compress(GOOD.encode())
    fasta.write_bytes(whole[: len(whole) // 2])
    assert pretrain(fasta, tmp_path / "run") == 2
    assert "truncated" in one_line(capsys)
    assert not (tmp_path / "run").exists()
    left = [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    assert not left


def test_wrong_options_say_what_is_there(tmp_path, capsys):
    fasta = tmp_path / "g.fa"
    fasta.write_text(GOOD)
    cases = {
        (
            "--valid-contigs",
            "three",
        ): "contig 'three' is in none of the genomes; they have one, two",
        ("--preset", "huge"): "no preset 'huge'; there are tiny-1k",
        ("--weights", "1,2"): "--weights: 2 for 1 genomes",
        ("--length", "900"): "--length 900: the model reads at most 34",
        ("--device", "tpu9"): "--device tpu9",
        ("--stages", "16"): "cannot read '16'; write `double`, `none` or length:steps",
        ("--precision", "int8"): "int8",
        ("--bed", str(tmp_path / "none.bed")): "none.bed",
    }
    for words, message in cases.items():
        code = run(["pretrain", str(fasta), "--out", str(tmp_path / "run"), *SMALL, *words])
        assert code == 2, words
        assert message in one_line(capsys), words
        assert not (tmp_path / "run").exists(), words


def test_several_genomes_with_weights_and_held_out_contigs(tmp_path):
    for name, seed in (("a", 0), ("b", 2)):
        text = f">one\n{lines(dna(6000, seed))}>two\n{lines(dna(5000, seed + 1))}"
        (tmp_path / f"{name}.fa").write_text(text)
    fastas = [str(tmp_path / "a.fa"), str(tmp_path / "b.fa")]
    out = tmp_path / "run"
    words = ["--weights", "3,1", "--test-contigs", "a:two", "--out", str(out)]
    assert run(["pretrain", *fastas, *words, *SMALL]) == 0
    a, b = json.loads((out / "run.json").read_text())["genomes"]
    assert a["bases"] == {"train": 6000, "valid": 0, "test": 5000} and a["weight"] == 3
    assert b["split"].startswith("default") and b["bases"]["test"] > 0
    assert run(["evaluate", str(out), "--markov", "2", "--no-compression", "--threads", "1"]) == 0
    rows = json.loads((out / "evaluation" / "evaluation.json").read_text())["genomes"]
    assert [(r["genome"], r["part"]) for r in rows] == [("a", "test"), ("b", "test")]
    assert sorted(p.name for p in (out / "splits").iterdir()) == ["0.a.bed", "1.b.bed"]


def test_a_genome_that_is_only_learned_from_is_not_measured(tmp_path, capsys):
    parts = {"a": "one\t0\t6000\ttrain\ntwo\t0\t5000\ttest\n", "b": "one\t0\t6000\ttrain\n"}
    words = []
    for name, rows in parts.items():
        (tmp_path / f"{name}.fa").write_text(GOOD)
        (tmp_path / f"{name}.bed").write_text(rows)
        words += [str(tmp_path / f"{name}.fa"), "--bed", str(tmp_path / f"{name}.bed")]
    out = tmp_path / "run"
    assert run(["pretrain", *words, "--out", str(out), *SMALL]) == 0
    quick = ["--markov", "1", "--no-compression", "--threads", "1"]
    assert run(["evaluate", str(out), *quick]) == 0
    assert "b.fa: no valid part" in " ".join(capsys.readouterr().out.split())
    (row,) = json.loads((out / "evaluation" / "evaluation.json").read_text())["genomes"]
    assert (row["genome"], row["part"]) == ("a", "test")
    assert run(["evaluate", str(out), "--part", "valid", *quick]) == 2
    assert "none of the 2 genomes has a valid part" in one_line(capsys)


def test_brackets_and_colons_in_names_are_only_letters(tmp_path, capsys):
    fasta = tmp_path / "g[bold].fa"
    fasta.write_text(GOOD.replace("one", "one[/red]:x:"))
    out = tmp_path / "o[/a]:x:"
    assert pretrain(fasta, out) == 0
    assert f"run in {out}" in capsys.readouterr().out
    assert run(["evaluate", str(out), "--markov", "1", "--no-compression"]) == 0
    assert "g[bold], test" in capsys.readouterr().out
    words = ["--out", str(tmp_path / "new"), "--valid-contigs", ":x:"]
    assert run(["pretrain", str(fasta), *words, *SMALL]) == 2
    assert "contig ':x:' is in none" in one_line(capsys)


def test_a_valid_part_that_begins_with_n(tmp_path):
    fasta = tmp_path / "g.fa"
    fasta.write_text(f">one\n{lines(dna(6000))}>two\n{lines('N' * 3000 + dna(3000, 1))}")
    words = ["--valid-contigs", "two", "--evaluate-bases", "500", "--out", str(tmp_path / "run")]
    assert run(["pretrain", str(fasta), *SMALL, *words]) == 0
    entries = [json.loads(x) for x in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert all(e["valid"] is not None for e in entries if "valid" in e)


@pytest.mark.parametrize(
    ("two", "words", "message"),
    [
        ("N" * 3000, ["--valid-contigs", "two"], "the valid part has no base that counts"),
        (
            dna(3000).lower(),
            ["--valid-contigs", "one", "--soft-masked", "ignore"],
            "nothing to learn",
        ),
    ],
)
def test_a_part_without_a_target_is_refused_at_the_start(tmp_path, capsys, two, words, message):
    fasta = tmp_path / "g.fa"
    fasta.write_text(f">one\n{lines(dna(6000))}>two\n{lines(two)}")
    assert run(["pretrain", str(fasta), *SMALL, *words, "--out", str(tmp_path / "run")]) == 2
    assert message in one_line(capsys)
    assert not (tmp_path / "run").exists()


def test_evaluation_keeps_the_split_of_the_run(tmp_path, capsys):
    fasta = tmp_path / "g.fa"
    fasta.write_text(GOOD)
    out = tmp_path / "run"
    words = ["--test-contigs", "two", "--out", str(out)]
    assert run(["pretrain", str(fasta), *SMALL, *words]) == 0
    quick = ["--markov", "1", "--no-compression", "--threads", "1"]
    copied = tmp_path / "elsewhere.fa"
    copied.write_text(GOOD)
    for genomes in ([], [str(fasta)], [str(copied)]):
        assert run(["evaluate", str(out), *genomes, *quick]) == 0
        (row,) = json.loads((out / "evaluation" / "evaluation.json").read_text())["genomes"]
        assert row["bases"] == 4999
    fasta.write_text(GOOD.replace("A", "C", 1))
    capsys.readouterr()
    assert run(["evaluate", str(out), *quick]) == 2
    assert "not the genome that the run was started with" in one_line(capsys)


def test_soft_masked_bases_can_be_left_out_of_an_evaluation(tmp_path):
    fasta = tmp_path / "g.fa"
    half = dna(3000, 1)
    fasta.write_text(f">one\n{lines(dna(6000))}>two\n{lines(half + half.lower())}")
    out = tmp_path / "run"
    assert run(["pretrain", str(fasta), *SMALL, "--test-contigs", "two", "--out", str(out)]) == 0
    for soft_masked, bases in (("keep", 5999), ("ignore", 2999)):
        words = ["--markov", "1", "--soft-masked", soft_masked, "--threads", "1"]
        assert run(["evaluate", str(out), *words]) == 0
        (row,) = json.loads((out / "evaluation" / "evaluation.json").read_text())["genomes"]
        assert row["bases"] == bases


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--length", "900"], "window length is 900"),
        (["--context", "99"], "context is 99"),
        (["--part", "valid"], "no valid part"),
        (["--markov", "40"], "--markov is 40"),
        (["--threads", "0"], "--threads is 0"),
        (["--device", "meta"], "only cpu and cuda"),
    ],
)
def test_bad_options_of_evaluate(tmp_path, capsys, words, message):
    fasta = tmp_path / "g.fa"
    fasta.write_text(GOOD)
    out = tmp_path / "run"
    assert run(["pretrain", str(fasta), *SMALL, "--test-contigs", "two", "--out", str(out)]) == 0
    capsys.readouterr()
    assert run(["evaluate", str(out), *words]) == 2
    assert message in one_line(capsys)


def test_a_model_configuration_from_a_file(tmp_path, capsys):
    fasta = tmp_path / "g.fa"
    fasta.write_text(GOOD)
    config = tmp_path / "model.json"
    config.write_text('{"hyena_order": 3, "emb_dim": 7}')
    out = tmp_path / "run"
    arguments = ["pretrain", str(fasta), *SMALL, "--model-config", str(config)]
    assert run([*arguments, "--out", str(out)]) == 0
    written = json.loads((out / "last" / "config.json").read_text())
    assert written["hyena_order"] == 3 and written["emb_dim"] == 7 and written["d_model"] == 8
    for text, message in (("{", "cannot be read"), ('{"depth": 3}', "no field 'depth'")):
        config.write_text(text)
        assert run([*arguments, "--out", str(tmp_path / "x")]) == 2
        assert message in one_line(capsys)
    words = ["--init", str(out), "--d-model", "8", "--out", str(tmp_path / "x")]
    assert run(["pretrain", str(fasta), *words]) == 2
    assert "--d-model and --init exclude each other" in one_line(capsys)
    words = ["--num-heads", "2", "--out", str(tmp_path / "x")]
    assert run(["pretrain", str(fasta), *words]) == 2
    assert "give --mixer attention" in one_line(capsys)


def test_one_bed_for_several_genomes(tmp_path, capsys):
    bed = tmp_path / "s.bed"
    rows = []
    for name, seed in (("a", 0), ("b", 2)):
        (tmp_path / f"{name}.fa").write_text(f">chr_{name}\n{lines(dna(6000, seed))}")
        rows += [f"chr_{name}\t0\t4000\ttrain\n", f"chr_{name}\t4000\t6000\ttest\n"]
    bed.write_text("".join(rows))
    fastas = [str(tmp_path / "a.fa"), str(tmp_path / "b.fa")]
    words = ["--bed", str(bed), *SMALL]
    assert run(["pretrain", *fastas, *words, "--out", str(tmp_path / "run")]) == 0
    genomes = json.loads((tmp_path / "run" / "run.json").read_text())["genomes"]
    assert [g["bases"]["test"] for g in genomes] == [2000, 2000]
    bed.write_text("".join(rows) + "chr_c\t0\t10\ttrain\n")
    assert run(["pretrain", *fastas, *words, "--out", str(tmp_path / "x")]) == 2
    assert "s.bed:5: contig 'chr_c' is in none of the genomes" in one_line(capsys)
