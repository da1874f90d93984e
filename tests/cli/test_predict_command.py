"""`hyenadna predict`: sequences in, a table out, in their order, whole or not at all."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pyarrow import parquet

from hyenadna.alphabet import decode, encode
from hyenadna.checkpoint.save import save
from hyenadna.checkpoint.task import load_task, save_task
from hyenadna.cli import predict as command
from hyenadna.cli.app import run
from hyenadna.config import ModelConfig
from hyenadna.data.labelled_data import Task
from hyenadna.data.sequences import SequenceFile
from hyenadna.errors import InputError
from hyenadna.infer.predict import predict
from hyenadna.infer.rows_file import RowsFile
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.heads import TaskModel

SHAPE = ModelConfig(d_model=8, n_layer=1, max_seq_len=66, filter_order=8)
TASKS = {
    "classes": Task("classes", ("a", "b, or c")),
    "labels": Task("labels", ("x", "y", "z")),
    "values": Task("values", ("id", "y")),
    "tokens": Task("tokens", ("E", "I")),
    "words": Task("tokens", ("exon", "intron")),
}


def make_model(folder: Path, kind: str, settings=None, **options) -> None:
    torch.manual_seed(0)
    model = TaskModel(HyenaDNA(SHAPE), TASKS[kind], **options)
    torch.nn.init.normal_(model.head.weight)
    save_task(model, folder, settings=settings)


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with models and the same sequences in several forms, where the command runs."""
    monkeypatch.chdir(tmp_path)
    for kind in TASKS:
        make_model(tmp_path / kind, kind, pooling="last" if kind == "classes" else None)
    rng = np.random.default_rng(0)
    texts = [decode(rng.integers(7, 12, n)) for n in rng.integers(5, 66, 50)]
    names = [f"s{i}" for i in range(50)]
    names[3], names[4] = 'odd, "name"', "s0"  # quotes, and a name that comes again
    fasta = "".join(f">{n.split()[0]} about it\n{t[:30]}\n{t[30:]}\n"
                    for n, t in zip(names, texts, strict=True))  # fmt: skip
    (tmp_path / "s.fa").write_text(fasta)
    with (tmp_path / "s.csv").open("w", newline="") as text:
        csv.writer(text).writerows(
            [["name", "label", "seq"], *([n, "?", t] for n, t in zip(names, texts, strict=True))]
        )
    (tmp_path / "s.tsv.gz").write_bytes(
        gzip.compress("".join(f"{t}\n" for t in ["sequence", *texts]).encode())
    )
    return tmp_path


def predicted(*words: str) -> int:
    return run(["predict", *words, "--threads", "1"])


def read(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as text:
        return list(csv.DictReader(text, delimiter="\t" if path.endswith(".tsv") else ","))


def direct(folder: str, strands: str | None = None) -> list[np.ndarray]:
    """What the model says of each sequence of s.csv, alone."""
    model = load_task(folder)
    model.strands = strands or model.strands
    return [next(predict(model, [encode(row["seq"])])) for row in read("s.csv")]


def test_classes_in_every_form(place, capsys):
    assert predicted("classes", "s.csv", "-o", "p.csv") == 0
    printed = capsys.readouterr().out
    assert "50 sequences" in printed and "a second" in printed
    rows = read("p.csv")
    assert list(rows[0]) == ["id", "predicted", "p_a", "p_b, or c"]
    assert [row["id"] for row in rows] == [row["name"] for row in read("s.csv")]
    for row, said in zip(rows, direct("classes"), strict=True):
        numbers = [float(row["p_a"]), float(row["p_b, or c"])]
        assert numbers == pytest.approx(said.tolist(), abs=1e-6)
        assert sum(numbers) == pytest.approx(1, abs=1e-6)
        assert row["predicted"] == ("a", "b, or c")[int(said.argmax())]
    assert {row["predicted"] for row in rows} == {"a", "b, or c"}
    assert predicted("classes", "s.csv", "-o", "p.parquet") == 0
    table = parquet.read_table("p.parquet")
    assert [str(t) for t in table.schema.types] == ["string", "string", "float", "float"]
    for name in ("id", "predicted"):
        assert table[name].to_pylist() == [row[name] for row in rows]
    assert table["p_a"].to_pylist() == [np.float32(row["p_a"]) for row in rows]  # exactly
    assert predicted("classes", "s.tsv.gz", "-o", "p.tsv") == 0
    others = read("p.tsv")
    assert [row["p_a"] for row in others] == [row["p_a"] for row in rows]
    assert others[0]["id"] == "s:2"  # no names there: file and line
    assert predicted("classes", "s.fa", "-o", "f.csv") == 0
    assert [row["p_a"] for row in read("f.csv")] == [row["p_a"] for row in rows]
    assert [row["id"] for row in read("f.csv")][2:5] == ["s2", "odd,", "s0"]
    left = {p.name for p in place.iterdir()} - {*TASKS, "s.fa", "s.csv", "s.tsv.gz"}
    written = {"p.csv", "p.parquet", "p.tsv", "f.csv"}
    assert left == written | {f"{name}.run.json" for name in written}


@pytest.mark.parametrize("kind", ["labels", "values"])
def test_labels_and_values(place, kind):
    assert predicted(kind, "s.csv", "-o", "p.csv") == 0
    rows = read("p.csv")
    columns = {"labels": ["p_x", "p_y", "p_z"], "values": ["predicted_id", "predicted_y"]}[kind]
    assert list(rows[0]) == ["id", *columns]
    got = np.array([[float(row[c]) for c in columns] for row in rows])
    np.testing.assert_allclose(got, np.stack(direct(kind)), atol=1e-6, rtol=1e-5)


def test_a_class_of_each_base(place):
    assert predicted("tokens", "s.csv", "-o", "p.csv") == 0
    assert predicted("words", "s.csv", "-o", "w.csv") == 0
    assert predicted("tokens", "s.csv", "-o", "long.parquet", "--long") == 0
    said = direct("tokens")
    assert list(read("p.csv")[0]) == ["id", "predicted"]
    for row, words, numbers in zip(read("p.csv"), read("w.csv"), said, strict=True):
        letters = "".join("EI"[c] for c in numbers.argmax(1))
        assert row["predicted"] == letters
        assert words["predicted"] == " ".join({"E": "exon", "I": "intron"}[c] for c in letters)
    table = parquet.read_table("long.parquet").to_pydict()
    assert list(table) == ["id", "position", "predicted", "p_E", "p_I"]
    lengths = [len(numbers) for numbers in said]
    assert table["position"] == [i for n in lengths for i in range(n)]
    np.testing.assert_allclose(table["p_E"], np.concatenate(said)[:, 0], atol=1e-6)


def test_strands_can_be_averaged_or_not(place, capsys):
    make_model(place / "both", "classes", strands="average")
    make_model(place / "wide", "classes", strands="concatenate")
    for model, strands in (("classes", "average"), ("both", "forward"), ("both", None)):
        words = ["--strands", strands] if strands else []
        assert predicted(model, "s.csv", "-o", f"{model}{strands}.csv", *words) == 0
        got = [float(row["p_a"]) for row in read(f"{model}{strands}.csv")]
        want = [said[0] for said in direct(model, strands)]
        assert got == pytest.approx(want, abs=1e-6)
    assert "strands average" in capsys.readouterr().out
    assert predicted("wide", "s.csv", "-o", "x.csv", "--strands", "average") == 2
    assert "fine-tuned with both strands concatenated" in capsys.readouterr().err


def test_sequences_are_read_as_in_the_fine_tuning(place, capsys):
    genome = decode(np.random.default_rng(1).integers(7, 11, 300))
    (place / "g.fa").write_text(f">c\n{genome}\n")
    (place / "i.bed").write_text(
        "c\t100\t110\tone\nc\t190\t200\ttwo\t.\t-\n".replace("one", "one\t.\t+")
    )
    reading = {"sequence": "dna", "pair": None, "window": 20, "outside": "refuse"}
    make_model(place / "m", "classes", {"reading": reading, "finetune": {"max_length": 16}})
    assert predicted("m", "i.bed", "--genome", "g.fa", "-o", "p.csv") == 0
    (place / "s.fa").write_text(">a\nACGT\n")
    assert predicted("m", "s.fa", "--genome", "g.fa", "-o", "t.csv") == 2
    assert "holds sequences, not intervals" in capsys.readouterr().err
    assert predicted("m", "s.fa", "--window", "3", "-o", "t.csv") == 2
    assert "give --genome as well" in capsys.readouterr().err
    file = SequenceFile(path=Path("i.bed"), genome=None)
    with pytest.raises(InputError, match="holds intervals; give the genome"):
        list(file)
    model = load_task("m")
    middle = encode(genome[97:113])
    want = next(predict(model, [middle]))
    rows = read("p.csv")
    assert [row["id"] for row in rows] == ["one", "two"]
    assert float(rows[0]["p_a"]) == pytest.approx(float(want[0]), abs=1e-6)
    words = ["--window", "10", "--max-length", "66"]
    assert predicted("m", "i.bed", "--genome", "g.fa", "-o", "q.csv", *words) == 0
    want = next(predict(model, [encode(genome[100:110])]))
    assert float(read("q.csv")[0]["p_a"]) == pytest.approx(float(want[0]), abs=1e-6)
    assert predicted("m", "s.csv", "-o", "r.csv", "--sequence", "seq") == 0
    assert predicted("m", "s.csv", "-o", "t.csv") == 0  # no column dna: the usual names
    assert Path("r.csv").read_text() == Path("t.csv").read_text()
    assert "the longest 16" in capsys.readouterr().out

    reading |= {"sequence": "first", "pair": "second"}
    make_model(place / "pairs", "classes", {"reading": reading})
    (place / "pairs.csv").write_text("first,second\nACGT,GGA\n")
    assert predicted("pairs", "pairs.csv", "-o", "u.csv") == 0
    joined = np.concatenate([encode("ACGT"), np.array([1], dtype=np.uint8), encode("GGA")])
    want = next(predict(load_task("pairs"), [joined]))
    assert float(read("u.csv")[0]["p_a"]) == pytest.approx(float(want[0]), abs=1e-6)
    capsys.readouterr()
    assert predicted("pairs", "s.fa", "-o", "v.csv") == 2
    assert "s.fa: the model reads pairs; give a table with columns first and second" in (
        capsys.readouterr().err
    )


def test_an_interrupted_run_goes_on(place, capsys, monkeypatch):
    monkeypatch.setattr(command, "_CHUNK_ROWS", 7)
    append = RowsFile.append
    for out, words in (("p.csv", []), ("p.parquet", []), ("l.csv", ["--long"])):
        model = "tokens" if words else "classes"
        whole = f"whole-{out}"
        assert predicted(model, "s.csv", "-o", whole, *words) == 0
        calls = []

        def interrupted(file, rows, sequences, calls=calls):
            if len(calls) == 3:
                with file._rows.open("ab") as stream:  # half a row, as a kill leaves it
                    stream.write(b"s21,a,0.1")
                raise KeyboardInterrupt
            calls.append(sequences)
            append(file, rows, sequences)

        with monkeypatch.context() as patch:
            patch.setattr(RowsFile, "append", interrupted)
            assert predicted(model, "s.csv", "-o", out, *words) == 130
        assert "stopped after 21 of 50 sequences; go on with --resume" in capsys.readouterr().out
        assert not Path(out).exists()
        assert predicted(model, "s.csv", "-o", out, *words) == 2
        assert "holds the predictions of an interrupted run" in capsys.readouterr().err
        assert predicted("labels", "s.csv", "-o", out, "--resume") == 2
        assert "was made with" in capsys.readouterr().err
        assert predicted(model, "s.csv", "-o", out, *words, "--resume") == 0
        assert "resuming after sequence 21" in capsys.readouterr().out
        if out.endswith(".csv"):
            assert Path(out).read_text() == Path(whole).read_text()
        else:
            assert parquet.read_table(out).equals(parquet.read_table(whole))
        assert not list(place.glob("*.part"))


def test_other_sequences_are_not_resumed(place, capsys, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device", str(file.path))

    with monkeypatch.context() as patch:
        patch.setattr(RowsFile, "finish", full)
        assert predicted("classes", "s.csv", "-o", "p.csv") == 2
    assert "the disk is full" in capsys.readouterr().err
    (place / "s.csv").write_text("seq\nACGT\n")
    assert predicted("classes", "s.csv", "-o", "p.csv", "--resume") == 2
    assert "was made with other sequences" in capsys.readouterr().err
    (place / "p.csv.part" / "done.json").write_text("{")
    assert predicted("classes", "s.csv", "-o", "p.csv", "--resume") == 2
    settings = json.loads((place / "p.csv.part" / "settings.json").read_text())
    assert settings["model"] == "classes" and settings["strands"] == "forward"


def test_memory_does_not_grow_with_the_file(place, monkeypatch):
    """No more than a stretch of rows is held, and the file is read in step with the output."""
    monkeypatch.setattr(command, "_CHUNK_ROWS", 5)
    append, sizes = RowsFile.append, []

    def watched(file, rows, sequences):
        sizes.append(sequences)
        append(file, rows, sequences)

    monkeypatch.setattr(RowsFile, "append", watched)
    assert predicted("classes", "s.csv", "-o", "p.csv") == 0
    assert sizes == [5] * 10
    rows = read("p.csv")
    for row, said in zip(rows, direct("classes"), strict=True):
        assert float(row["p_a"]) == pytest.approx(said[0], abs=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "s.csv"], "nowhere"),
        (["plain", "s.csv"], "has no task.json, so this is a model without a task"),
        (["classes", "gone.csv"], "gone.csv: no such file"),
        (["classes", "."], ".: is a folder; name one file"),
        (["classes", "s.csv", "--sequence", "dna"], "s.csv: has no column 'dna'"),
        (["classes", "s.csv", "--long"], "--long is for a class of each base"),
        (["classes", "s.csv", "--max-length", "67"], "--max-length is 67; this model"),
        (["classes", "s.csv", "--max-memory", "1MiB"], "max_memory is 1 MiB"),
        (["classes", "long.fa"], "long.fa:3: 'b' has 67 tokens, but this model reads up to 66"),
        (["classes", "bad.csv"], "bad.csv:3"),
        (["classes", "empty.csv"], "empty.csv:3: the sequence is empty"),
        (["classes", "none.fa"], "none.fa: holds no sequences"),
        (["classes", "text.fa"], "text.fa: is not FASTA"),
        (["classes", "s.csv", "-o", "p.txt"], "p.txt: predictions are written as .csv, .tsv"),
        (["classes", "s.csv", "-o", "no/p.csv"], "there is no folder no"),
        (["classes", "s.csv", "-o", "s.csv"], "s.csv: exists; remove it"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_before_anything_is_written(place, capsys, words, message):
    save(HyenaDNA(SHAPE), place / "plain")
    (place / "long.fa").write_text(f">a\nACGT\n>b\n{'A' * 67}\n")
    (place / "bad.csv").write_text("sequence\nACGT\nACXE\n")
    (place / "empty.csv").write_text("id,sequence\na,ACGT\nb,\n")
    (place / "none.fa").write_text("\n")
    (place / "text.fa").write_text("hello\n")
    before = {p.name for p in place.iterdir()}
    out = [] if "-o" in words else ["-o", "p.csv"]
    assert predicted(*words, *out) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(error) == 1 and message in error[0]
    assert {p.name for p in place.iterdir()} == before
