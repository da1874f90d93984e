"""`hyenadna mutate`: all substitutions, in the order of the input, whole or not at all."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pyarrow import parquet

from hyenadna.alphabet import decode, encode, reverse_complement_ids
from hyenadna.checkpoint.load import load
from hyenadna.checkpoint.save import save
from hyenadna.checkpoint.task import load_task, save_task
from hyenadna.cli.app import run
from hyenadna.config import ModelConfig
from hyenadna.data.labelled_data import Task
from hyenadna.infer.mutate import mutate
from hyenadna.infer.mutate_task import mutate_task
from hyenadna.infer.predict import predict
from hyenadna.infer.rows_file import RowsFile
from hyenadna.infer.run_record import read_record
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.heads import TaskModel

SHAPE = ModelConfig(d_model=8, n_layer=1, max_seq_len=64, filter_order=8)
TEXTS = {"a": "ACGTNacgttgcatgcat", "b": "GATTACA" * 6, "c": "NN"}


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with models, sequences and a genome, where the command runs."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    network = HyenaDNA(SHAPE)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    save(network, tmp_path / "model")
    task_model = TaskModel(network, Task("classes", ("no", "yes", "maybe")), strands="average")
    torch.nn.init.normal_(task_model.head.weight)
    save_task(task_model, tmp_path / "tuned")
    (tmp_path / "s.fa").write_text("".join(f">{n} x\n{t}\n" for n, t in TEXTS.items()))
    with (tmp_path / "s.csv").open("w", newline="") as text:
        csv.writer(text).writerows([["name", "sequence"], *TEXTS.items()])
    genome = decode(np.random.default_rng(0).integers(7, 11, 900))
    (tmp_path / "g.fa").write_text(f">chr1\n{genome}\n>chr2\n{genome[:50]}\n")
    (tmp_path / "i.bed").write_text("chr1\t100\t130\tone\t0\t-\nchr1\t880\t900\ttwo\t0\t+\n")
    return tmp_path


def mutated(*words: str) -> int:
    return run(["mutate", *words, "--threads", "1"])


def read(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as text:
        return list(csv.DictReader(text, delimiter="\t" if path.endswith(".tsv") else ","))


def scores(rows: list[dict[str, str]], column: str = "score") -> list[float]:
    return [float(row[column] or "nan") for row in rows]


def test_sequences_in_every_form(place, capsys):
    assert mutated("model", "s.fa", "-o", "m.csv") == 0
    printed = capsys.readouterr().out.replace("\n", " ")
    assert "3 sequences, 62 bp, the longest 42: 177 substitutions" in printed
    assert "note: 3 positions are not A, C, G or T" in printed and "a second: m.csv" in printed
    rows = read("m.csv")
    assert list(rows[0]) == ["id", "position", "ref", "alt", "score", "score_allele"]
    assert len(rows) == 3 * 59 + 4 * 3
    network = load("model")
    for name, text in TEXTS.items():
        own = [row for row in rows if row["id"] == name]
        found = mutate(network, encode(text), after=16)  # a quarter of what the model reads
        at = [(int(row["position"]), "ACGT".index(row["alt"])) for row in own]
        assert [row["ref"] for row in own] == [text[p].upper() for p, _ in at]
        for column, values in (("score", found.score), ("score_allele", found.allele)):
            want = [values[each] for each in at]
            np.testing.assert_allclose(scores(own, column), want, atol=1e-5, equal_nan=True)
    assert mutated("model", "s.csv", "-o", "m.parquet") == 0
    table = parquet.read_table("m.parquet").to_pydict()
    assert table["id"] == [row["id"] for row in rows]
    assert table["ref"] == [row["ref"] for row in rows]
    got = [float("nan") if value is None else value for value in table["score"]]
    np.testing.assert_array_equal(got, np.float32(scores(rows)))
    assert mutated("model", "s.csv", "-o", "m.tsv", "--strands", "forward", "--after", "all") == 0
    found = mutate(network, encode(TEXTS["b"]), after=None, strands="forward")
    got = scores([row for row in read("m.tsv") if row["id"] == "b"])
    np.testing.assert_allclose(got, found.score[~np.isnan(found.score)], atol=1e-5)
    record = read_record(place / "m.tsv")
    assert record.settings["after"] == "all" and record.settings["strands"] == "forward"
    assert record.figures["substitutions"] == 177 and record.caveats


def test_intervals_have_their_flanks(place):
    genome = (place / "g.fa").read_text().split("\n")[1]
    words = ("--genome", "g.fa", "--after", "4", "--context", "10")
    assert mutated("model", "i.bed", "-o", "i.csv", *words) == 0
    rows = read("i.csv")
    assert list(rows[0])[:3] == ["id", "contig", "position"] and len(rows) == 3 * 50
    assert [row["ref"] for row in rows] == [genome[int(row["position"])] for row in rows]
    network = load("model")
    # on a grid of 16 positions, each behind 10 bases more
    whole = mutate(network, encode(genome), after=4, context=10)
    for row in rows:
        want = whole.score[int(row["position"]), "ACGT".index(row["alt"])]
        assert float(row["score"]) == pytest.approx(want, abs=1e-5)
    # whatever the interval
    assert mutated("model", "-o", "r.csv", "--region", "chr1:111-115", *words) == 0
    region = read("r.csv")
    assert {row["id"] for row in region} == {"chr1:111-115"}
    inside = [row for row in rows if 110 <= int(row["position"]) < 115]
    np.testing.assert_allclose(scores(region), scores(inside), atol=1e-5)
    # forward is the direction of the interval
    assert mutated("model", "i.bed", "-o", "f.csv", "--strands", "forward", *words) == 0
    one = mutate(network, encode(genome), after=4, context=10, strands="reverse")
    row = read("f.csv")[0]
    want = one.score[100, "ACGT".index(row["alt"])]
    assert float(row["score"]) == pytest.approx(want, abs=1e-5)


def test_a_fine_tuned_model(place, capsys):
    assert mutated("tuned", "s.fa", "-o", "t.csv", "--output", "yes") == 0
    rows = [row for row in read("t.csv") if row["id"] == "b"]
    assert list(rows[0]) == ["id", "position", "ref", "alt", "score", "output"]
    found = mutate_task(load_task("tuned"), encode(TEXTS["b"]), output="yes")
    known = ~np.isnan(found.score)
    np.testing.assert_allclose(scores(rows), found.score[known], atol=1e-5)
    np.testing.assert_allclose(scores(rows, "output"), found.output[known], atol=1e-5)
    assert read_record(place / "t.csv").settings["output"] == "yes"
    capsys.readouterr()
    for words, said in (
        ([], "'no', 'yes', 'maybe'; choose one with --output"),
        (["--output", "x"], "no output 'x'"),
        (["--output", "yes", "--strands", "forward"], "--strands is for likelihoods"),
    ):
        assert mutated("tuned", "s.fa", "-o", "v.csv", *words) == 2
        assert said in capsys.readouterr().err.replace("\n", " ")


def test_a_fine_tuned_model_and_intervals(place, monkeypatch):
    """Rows are places of the contig, on its forward strand, whichever strand is read."""
    monkeypatch.setattr("hyenadna.infer.mutate.PIECE", 7)  # a stretch in several parts
    words = ("--output", "yes", "--genome", "g.fa")
    assert mutated("tuned", "i.bed", "-o", "u.csv", *words) == 0
    rows, task_model = read("u.csv"), load_task("tuned")
    genome = encode((place / "g.fa").read_text().split("\n")[1])
    assert list(rows[0]) == ["id", "contig", "position", "ref", "alt", "score", "output"]
    assert [int(row["position"]) for row in rows[::3]] == [*range(100, 130), *range(880, 900)]
    for row in rows[1::17]:
        name, at, alt = row["id"], int(row["position"]), encode(row["alt"])
        assert row["contig"] == "chr1" and row["ref"] == decode(genome[at : at + 1])
        mutant = genome.copy()
        mutant[at] = alt[0]
        ids = mutant[880:900] if name == "two" else reverse_complement_ids(mutant[100:130])
        want = next(predict(task_model, [ids]))[1]
        assert float(row["output"]) == pytest.approx(want, abs=1e-5)
    assert mutated("tuned", "-o", "r.csv", "--region", "chr1:881-900", *words) == 0
    own = [list(row.values())[1:] for row in rows if row["id"] == "two"]
    assert [list(row.values())[1:] for row in read("r.csv")] == own


def test_pictures(place, capsys):
    words = ("--picture", "heat.png", "--logo", "logo.svg")
    assert mutated("model", "s.fa", "-o", "m.csv", *words) == 0
    assert (place / "heat.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (place / "logo.svg").read_text()
    assert "a, 1 to 18: heat.png" in capsys.readouterr().out
    assert {p.name for p in place.iterdir() if p.name.startswith(".")} == set()


def interrupt_after(monkeypatch, calls: int) -> None:
    """Ctrl-C in the middle of a run."""
    real = RowsFile.append

    def append(self, rows, inputs):
        if self.inputs_done == calls:
            raise KeyboardInterrupt
        real(self, rows, inputs)

    monkeypatch.setattr(RowsFile, "append", append)


@pytest.mark.parametrize("model, options", [("model", []), ("tuned", ["--output", "yes"])])
def test_an_interrupted_run_goes_on(place, monkeypatch, capsys, model, options):
    assert mutated(model, "s.fa", "-o", "whole.csv", *options) == 0
    for calls in (1, 2):
        with monkeypatch.context() as patch:
            interrupt_after(patch, calls)
            assert mutated(model, "s.fa", "-o", "part.csv", *options, "--resume") == 130
        assert "go on with --resume" in capsys.readouterr().out
        assert not Path("part.csv").exists()
    assert mutated(model, "s.fa", "-o", "part.csv", *options, "--resume") == 0
    assert "resuming after part 2" in capsys.readouterr().out
    assert Path("part.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert not Path("part.csv.part").exists()


def test_a_run_does_not_go_on_with_other_settings(place, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        assert mutated("model", "s.fa", "-o", "m.csv") == 130
    assert mutated("model", "s.fa", "-o", "m.csv", "--resume", "--after", "3") == 2
    assert "after 16, not 3" in capsys.readouterr().err.replace("\n", " ")
    (place / "s.fa").write_text((place / "s.fa").read_text().replace("GATTACA", "GATTACC"))
    assert mutated("model", "s.fa", "-o", "m.csv", "--resume") == 2
    assert "other bases" in capsys.readouterr().err.replace("\n", " ")


def test_longer_than_the_model(place, capsys):
    (place / "long.fa").write_text(f">x\n{'ACGTTGCA' * 25}\n")
    assert mutated("model", "long.fa", "-o", "l.csv") == 0
    assert len(read("l.csv")) == 600
    assert json.loads((place / "l.csv.run.json").read_text())["settings"]["piece"] == 256
    assert mutated("model", "long.fa", "-o", "n.csv", "--after", "all") == 2
    assert "long.fa:1: 'x': 200 bases are more than" in capsys.readouterr().err.replace("\n", " ")


def test_contigs_under_their_other_name(place, capsys):
    (place / "one.bed").write_text("1\t90\t99\n")
    (place / "chr1.bed").write_text("chr1\t90\t99\n")
    for name in ("one", "chr1"):
        assert mutated("model", f"{name}.bed", "-o", f"{name}.csv", "--genome", "g.fa") == 0
        assert ("1 is chr1" in capsys.readouterr().out) == (name == "one")
    one, chr1 = ([list(r.values())[1:] for r in read(f"{n}.csv")] for n in ("one", "chr1"))
    assert one == chr1
    words = ["--region", "1:91-99", "--genome", "g.fa", "-o", "region.csv"]
    assert mutated("model", *words) == 0 and "1 is chr1" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, said",
    [
        (["s.fa", "-o", "m.txt"], "written as .csv, .tsv, .parquet"),
        (["no.fa", "-o", "m.csv"], "no.fa: no such file"),
        (["empty.fa", "-o", "m.csv"], "empty.fa:1: the sequence is empty"),
        (["nothing.fa", "-o", "m.csv"], "nothing.fa: holds no sequences"),
        (["odd.fa", "-o", "m.csv"], "letter 'J' at position 3"),
        (["odd.xyz", "-o", "m.csv"], "odd.xyz"),
        (["s.csv", "-o", "m.csv", "--genome", "g.fa"], "holds sequences, not intervals"),
        (["s.fa", "-o", "m.csv", "--genome", "g.fa"], "holds sequences, not intervals"),
        (["i.bed", "-o", "m.csv"], "give the genome to cut them from"),
        (["past.bed", "-o", "m.csv", "--genome", "g.fa"], "past.bed:1: chr1:891-901 runs past"),
        (["none.bed", "-o", "m.csv", "--genome", "g.fa"], "none.bed:1: the interval holds no"),
        (["other.bed", "-o", "m.csv", "--genome", "g.fa"], "has no contig 'chrX'"),
        (["-o", "m.csv"], "give a file of sequences or intervals, or --region"),
        (["s.fa", "-o", "m.csv", "--region", "chr1:1-9", "--genome", "g.fa"], "or --region"),
        (["-o", "m.csv", "--region", "chr1:1-9"], "give --genome as well"),
        (
            ["-o", "m.csv", "--region", "chr1", "--genome", "g.fa"],
            "--region: interval 'chr1' is not",
        ),
        (["-o", "m.csv", "--region", "chr1:1-901", "--genome", "g.fa"], "runs past the end"),
        (["i.bed", "-o", "m.csv", "--genome", "g.fa", "--after", "all"], "give a number"),
        (["i.bed", "-o", "m.csv", "--genome", "g.fa", "--context", "60"], "do not fit"),
        (["s.fa", "-o", "m.csv", "--after", "-1"], "--after is -1"),
        (["s.fa", "-o", "m.csv", "--after", "x"], "--after is 'x'; give a number of bases or all"),
        (["s.fa", "-o", "m.csv", "--context", "-1"], "--context is -1"),
        (["s.csv", "-o", "m.csv", "--sequence", "seqq"], "no column 'seqq'; it has name, sequence"),
        (["s.fa", "-o", "m.csv", "--picture", "folder.png"], "folder.png: is a folder"),
        (["s.fa", "-o", "m.csv", "--window", "9"], "give --genome as well"),
        (["s.fa", "-o", "m.csv", "--picture", "p.bmp"], "written as .png, .svg, .pdf"),
        (["s.fa", "-o", "m.csv", "--logo", "no/p.png"], "there is no folder no"),
        (["s.fa", "-o", "no/m.csv"], "there is no folder no"),
    ],
)
def test_refuses_in_one_line(place, capsys, words, said):
    (place / "folder.png").mkdir()
    (place / "empty.fa").write_text(">x\n>y\nACGT\n")
    (place / "nothing.fa").write_text("")
    (place / "odd.fa").write_text(">x\nACJT\n")
    (place / "odd.xyz").write_text("x")
    (place / "past.bed").write_text("chr1\t890\t901\n")
    (place / "none.bed").write_text("chr1\t90\t90\n")
    (place / "other.bed").write_text("chrX\t90\t99\n")
    before = {p.name for p in place.iterdir()}
    assert mutated("model", *words) == 2
    printed = " ".join(capsys.readouterr().err.split())
    assert said in printed and printed.count("hyenadna:") == 1
    assert {p.name for p in place.iterdir()} - {"g.fa.fai"} == before - {"g.fa.fai"}
