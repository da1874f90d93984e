"""`hyenadna embed`: sequences or a genome in, one file out; one line for what is wrong."""

from __future__ import annotations

import csv
import errno
import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hyenadna.alphabet import decode, encode, reverse_complement_ids
from hyenadna.checkpoint.load import load
from hyenadna.checkpoint.save import save
from hyenadna.cli.app import run
from hyenadna.cli.memory import limit_memory
from hyenadna.config import ModelConfig
from hyenadna.errors import InputError
from hyenadna.genome.fasta import Genome
from hyenadna.infer.embeddings_file import EmbeddingsFile
from hyenadna.infer.embeddings_read import read_embeddings
from hyenadna.infer.run_record import read_record
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.engine.native_kernels import lacks_bf16

CONFIG = ModelConfig(d_model=8, n_layer=1, max_seq_len=34, filter_order=8)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a model and a genome, where the command runs."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save(HyenaDNA(CONFIG), tmp_path / "model")
    text = decode(np.random.default_rng(0).integers(7, 11, 900))
    (tmp_path / "g.fa").write_text(f">a\n{text}\n>b\n{text[:100]}\n")
    return tmp_path


ONE = ["--threads", "1"]
WORDS = ["embed", "model", "g.fa", "-o", "e.npz", "--per", "bin", "--threads", "1"]


def test_rows_and_what_is_said(place, capsys):
    assert run([*WORDS, "--bin", "10", "--contigs", "b,a", "--max-memory", "2GiB"]) == 0
    printed = capsys.readouterr().out
    assert (
        "2 contigs, 1.0 kb, the longest 900; 34 windows of up to 30 bases; 100 rows of 8" in printed
    )
    assert "of memory" in printed and "left, by" not in printed  # one pass
    assert "100 rows in" in printed and "a second" in printed
    with np.load(place / "e.npz") as found:
        assert found["embeddings"].shape == (100, 8)
        assert found["contig"].tolist() == ["a"] * 90 + ["b"] * 10
        assert (found["start"][89], found["stop"][89], found["stop"][-1]) == (890, 900, 100)
        settings = json.loads(str(found["settings"]))
    assert settings["model"] == "model" and settings["length"] == 30
    assert settings["sequences"] == Genome.open(place / "g.fa").digest()
    assert {p.name for p in place.iterdir()} == {
        "model",
        "g.fa",
        "g.fa.fai",
        "e.npz",
        "e.npz.run.json",
    }


def test_an_interrupted_run_goes_on(place, capsys, monkeypatch):
    monkeypatch.setattr("hyenadna.infer.embed._AHEAD_UNITS", 1)
    assert run([*WORDS, "--length", "20"]) == 0
    assert " left, by 20 bp" in capsys.readouterr().out
    with np.load(place / "e.npz") as found:
        whole = found["embeddings"]
    (place / "e.npz").unlink()
    append, calls = EmbeddingsFile.append, []

    def interrupted(file, rows, ended, within):
        if len(calls) == 7:
            raise KeyboardInterrupt
        calls.append(rows)
        append(file, rows, ended, within)

    monkeypatch.setattr(EmbeddingsFile, "append", interrupted)
    assert run([*WORDS, "--length", "20"]) == 130
    assert "stopped after 7 of 50 rows; go on with --resume" in capsys.readouterr().out
    monkeypatch.setattr(EmbeddingsFile, "append", append)
    assert not (place / "e.npz").exists()
    assert run([*WORDS, "--length", "20"]) == 2
    assert "go on with --resume, or remove it" in capsys.readouterr().err
    assert run([*WORDS, "--length", "20", "--resume"]) == 0
    with np.load(place / "e.npz") as found:
        np.testing.assert_array_equal(found["embeddings"], whole)
    assert run([*WORDS, "--length", "20", "--resume"]) == 2
    assert "e.npz: exists" in capsys.readouterr().err


def test_a_run_with_other_weights_is_refused(place, capsys, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device", str(file.path))

    with monkeypatch.context() as patch:
        patch.setattr(EmbeddingsFile, "finish", full)
        assert run(WORDS) == 2
    assert "the disk is full" in capsys.readouterr().err
    assert not (place / "e.npz").exists()
    torch.manual_seed(1)
    save(HyenaDNA(CONFIG), place / "model")
    rows = (place / "e.npz.part" / "rows").read_bytes()
    assert run([*WORDS, "--resume"]) == 2
    error = capsys.readouterr().err
    assert "was made with other weights; resume with the same, or remove e.npz.part" in error
    assert error.count("\n") == 1
    assert (place / "e.npz.part" / "rows").read_bytes() == rows


def test_bf16_is_close(place, capsys):
    slow = "this processor has no bf16 products"
    assert run(WORDS) == 0
    assert slow not in capsys.readouterr().out
    assert run([*WORDS[:4], "h.npz", *WORDS[5:], "--precision", "bf16"]) == 0
    assert (slow in capsys.readouterr().out) == lacks_bf16()
    with np.load("e.npz") as one, np.load("h.npz") as other:
        error = np.abs(one["embeddings"] - other["embeddings"]).max()
        assert 0 < error < 0.05 * np.abs(one["embeddings"]).max()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--length", "35"], "--length is 35; this model reads 1 to 34 bases"),
        (["--bin", "33"], "--bin is 33; it must be 1 to the length of a window, 32"),
        (["--contigs", "chra"], "g.fa has no contig 'chra'; it has a, b - it has 'a'"),
        (["--max-memory", "lots"], "lots"),
        (["-o", "e.txt"], "e.txt: embeddings are written as .npz, .parquet, .h5ad, .zarr"),
        (["-o", "no/e.npz"], "no/e.npz: there is no folder no"),
        (["--precision", "fp16"], "--precision"),
        (["--threads", "0"], "--threads is 0"),
    ],
)
def test_bad_words_are_one_line(place, capsys, words, message):
    out = [] if "-o" in words else ["-o", "e.npz"]
    assert run(["embed", "model", "g.fa", "--per", "bin", *out, *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(place.glob("e.*"))


def test_a_bad_letter_is_told_before_the_first_window(place, capsys):
    (place / "bad.fa").write_text(">a\nACGT\n>p\nACGTACEL\n")
    assert run(["embed", "model", "bad.fa", "-o", "e.npz"]) == 2
    assert "bad.fa:3 p: letter 'E' at position 7 is not DNA" in capsys.readouterr().err
    assert not list(place.glob("e.npz*"))


EVALUATE = ["evaluate", "model", "g.fa", "--test-contigs", "b", "--markov", "-1"]
EVALUATE += ["--no-compression", "--json"]
PRETRAIN = ["pretrain", "g.fa", "--out", "RUN", "--n-layer", "1", "--max-seq-len", "34"]
PRETRAIN += ["--steps", "2", "--valid-contigs", "b", "--tokens-per-step", "64", "--d-model", "8"]


@pytest.mark.parametrize("words", [WORDS, EVALUATE, PRETRAIN], ids=lambda words: words[0])
def test_too_small_a_budget_is_one_line(place, capsys, words):
    for budget, message in (("1MiB", "max_memory is 1 MiB, but"), ("lots", "lots")):
        assert run([*words, "--max-memory", budget]) == 2
        error = [line for line in capsys.readouterr().err.splitlines() if "hyenadna:" in line]
        assert len(error) == 1 and message in error[0]
    assert not (place / "RUN").exists() and not (place / "e.npz.part").exists()


@pytest.mark.parametrize("words", [WORDS, EVALUATE], ids=lambda words: words[0])
def test_a_budget_makes_passes_smaller(place, capsys, monkeypatch, words):
    """Windows go into smaller passes, down to one, before a budget is refused."""
    sizes, embed, fits = [], HyenaDNA.residual_stream, HyenaDNA.pass_memory

    def watched(model, tokens):
        sizes.append(tokens.numel())
        return embed(model, tokens)

    def bounded(model, batch, length, *, training=False):
        if batch * length > 130:
            raise InputError(f"max_memory is too small for {batch} x {length}")
        return fits(model, batch, length, training=training)

    monkeypatch.setattr(HyenaDNA, "residual_stream", watched)
    assert run([*words, "--length", "20"]) == 0
    assert max(sizes) > 130
    sizes.clear()
    monkeypatch.setattr(HyenaDNA, "pass_memory", bounded)
    (place / "e.npz").unlink(missing_ok=True)
    assert run([*words, "--length", "20"]) == 0
    assert 20 < max(sizes) <= 130
    if words is WORDS:
        with np.load(place / "e.npz") as found:
            assert json.loads(str(found["settings"]))["batch_tokens"] <= 130


def test_a_resumed_run_keeps_its_batches(place, capsys, monkeypatch):
    """Also where there is more memory now, or a budget that they fit."""

    def interrupted(file, rows, ended, within):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EmbeddingsFile, "append", interrupted)
        patch.setattr("hyenadna.data.batches.BATCH_TOKENS", 96)
        assert run(WORDS) == 130
    assert run([*WORDS, "--resume", "--max-memory", "4GiB"]) == 0
    with np.load(place / "e.npz") as found:
        assert json.loads(str(found["settings"]))["batch_tokens"] == 96


def test_a_budget_changes_no_loss(place, capsys):
    losses = []
    for more in ([], ["--max-memory", "4GiB"]):
        assert run([*EVALUATE, *more]) == 0
        losses.append(json.loads(capsys.readouterr().out)["genomes"][0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_run_remembers_its_budget(place, monkeypatch):
    given = []

    def watched(model, max_memory):
        given.append(max_memory)
        limit_memory(model, max_memory)

    monkeypatch.setattr("hyenadna.cli.pretrain.limit_memory", watched)
    assert run([*PRETRAIN, "--max-memory", "4GiB"]) == 0
    assert run(["pretrain", "--out", "RUN", "--resume"]) == 0
    assert run(["pretrain", "--out", "RUN", "--resume", "--max-memory", "5GiB"]) == 0
    assert given == ["4GiB", "4GiB", "5GiB"]
    assert json.loads((place / "RUN" / "run.json").read_text())["max_memory"] == "4GiB"
    assert run(["pretrain", "--out", "RUN", "--resume", "--max-memory", "1MiB"]) == 2


@pytest.mark.parametrize("words", [WORDS, EVALUATE, PRETRAIN], ids=lambda words: words[0])
def test_a_budget_without_effect_is_told(place, capsys, words):
    save(HyenaDNA(CONFIG.replace(mixer="attention", num_heads=2)), place / "model")
    if words is PRETRAIN:
        words = [*words, "--mixer", "attention", "--num-heads", "2"]
    assert run(words) == 0
    assert "no effect" not in "".join(capsys.readouterr())
    for name in ("e.npz", "RUN"):
        if (place / name).exists():
            (place / name).rename(place / f"old-{name}")
    assert run([*words, "--max-memory", "4GiB"]) == 0
    assert "".join(capsys.readouterr()).count("--max-memory has no effect here") == 1


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
@pytest.mark.parametrize(
    ("words", "way"),
    [
        (WORDS, "--resume and a (smaller) --max-memory"),
        (EVALUATE, "smaller --max-memory or a shorter --length"),
        (PRETRAIN, "give --max-memory, a smaller --micro-batch-tokens"),
        ([*PRETRAIN, "--mixer", "attention", "--num-heads", "2"], "give --gradient-checkpointing"),
    ],
)
def test_running_out_of_memory_is_one_line(place, capsys, monkeypatch, words, way, error):
    def failing(model, tokens):
        raise error

    monkeypatch.setattr(HyenaDNA, "residual_stream", failing)
    assert run(words) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "hyenadna:" in line]
    assert len(lines) == 1 and "not enough memory; " in lines[0] and way in lines[0]


def table(place, count=60):
    """Sequences of 4 to 80 bases with labels; names come twice."""
    rng = np.random.default_rng(1)
    texts = [decode(rng.integers(7, 11, n)) for n in rng.integers(4, 80, count)]
    rows = [f"s{i % 50},{text},{i % 3},k{i % 2}\n" for i, text in enumerate(texts)]
    (place / "s.csv").write_text("name,sequence,label,kind\n" + "".join(rows))
    (place / "s.fa").write_text("".join(f">s{i % 50} more\n{t}\n" for i, t in enumerate(texts)))
    return texts


def embedded(path):
    return read_embeddings(Path(path))


def test_a_row_for_each_sequence(place, capsys):
    texts = table(place)
    model = load("model")
    assert run(["embed", "model", "s.csv", "-o", "e.parquet", *ONE]) == 0
    said = capsys.readouterr().out
    assert "60 sequences" in said and "60 rows of 8" in said
    assert "note: sequences longer than 32 bases are read in windows of that length" in said
    found = embedded("e.parquet")
    assert found.columns["id"].tolist() == [f"s{i % 50}" for i in range(60)]
    assert found.columns["label"].tolist() == [i % 3 for i in range(60)]
    assert found.columns["kind"].tolist() == [f"k{i % 2}" for i in range(60)]
    short = [i for i, text in enumerate(texts) if len(text) <= 32]
    for i in short[:5]:
        with torch.no_grad():
            want = model.embed(encode(texts[i]))[0].mean(0)
        np.testing.assert_allclose(found.values[i], want, rtol=1e-4, atol=1e-5)
    assert run(["embed", "model", "s.fa", "-o", "f.npz", *ONE]) == 0
    np.testing.assert_array_equal(embedded("f.npz").values, found.values)
    record = read_record(place / "e.parquet")
    assert record.verb == "embed" and record.inputs["sequences"] == 60
    assert record.figures["rows"] == 60 and "overlap by 16" in record.caveats[1]
    assert (
        record.settings["layer"] == -1 and record.settings["weights"] == found.settings["weights"]
    )


@pytest.mark.parametrize(
    ("words", "rows", "columns"),
    [
        (["--per", "base", "--layer", "0"], None, {"position"}),
        (["--bin", "10", "--overlap", "10"], None, {"bin_start", "bin_stop"}),
        (["--pool", "last", "--layer", "1"], 60, set()),
        (["--dtype", "float16", "--length", "20", "--overlap", "0"], 60, set()),
    ],
)
def test_other_rows(place, words, rows, columns):
    texts = table(place)
    assert run(["embed", "model", "s.csv", "-o", "e.h5ad", *ONE, *words]) == 0
    found = embedded("e.h5ad")
    bin = {"base": 1, "10": 10}.get(words[1], 10**9)
    assert len(found) == (rows or sum(-(-len(text) // bin) for text in texts))
    assert columns <= set(found.columns) and len(set(found.columns["obs_name"])) == len(found)


def test_bases_of_a_genome_have_their_positions(place, capsys):
    assert run(["embed", "model", "g.fa", "-o", "e.npz", "--per", "base", *ONE]) == 0
    found = embedded("e.npz")
    assert found.columns["id"].tolist() == ["a"] * 900 + ["b"] * 100
    assert found.columns["position"].tolist() == [*range(900), *range(100)]
    assert run(["embed", "model", "g.fa", "-o", "s.npz", *ONE]) == 0
    whole = embedded("s.npz").values
    np.testing.assert_allclose(whole[0], found.values[:900].mean(0), rtol=1e-4, atol=1e-5)


def test_a_contig_much_longer_than_the_model_is_rather_tiled(place, capsys):
    words = ["--length", "10", "--overlap", "0", *ONE]
    assert run(["embed", "model", "g.fa", "-o", "s.npz", *words]) == 0
    assert "for rows along them give --bin" in capsys.readouterr().out


def test_intervals_and_features(place):
    (place / "i.bed").write_text("a\t10\t20\tx\t7\t-\nb\t0\t5\ty\t.\t+\n")
    words = ["--genome", "g.fa", *ONE]
    assert run(["embed", "model", "i.bed", "-o", "e.npz", *words]) == 0
    found = embedded("e.npz")
    assert found.columns["id"].tolist() == ["x", "y"] and found.columns["start"].tolist() == [10, 0]
    genome, model = Genome.open(place / "g.fa"), load("model")
    ids = reverse_complement_ids(genome.tokens("a", 10, 20))
    with torch.no_grad():
        want = model.embed(ids)[0].mean(0)
    np.testing.assert_allclose(found.values[0], want, rtol=1e-4, atol=1e-5)
    (place / "a.gff").write_text("a\tx\tgene\t11\t20\t.\t-\t.\tID=g1;biotype=tRNA\n")
    words = ["--feature", "gene", *words]
    assert run(["embed", "model", "a.gff", "-o", "f.npz", *words]) == 0
    found = embedded("f.npz")
    assert found.columns["biotype"].tolist() == ["tRNA"]
    np.testing.assert_allclose(found.values[0], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("suffix", ["npz", "parquet", "h5ad", "zarr"])
@pytest.mark.parametrize("words", [[], ["--per", "base"]], ids=["sequences", "bases"])
def test_any_file_goes_on_bit_for_bit(place, monkeypatch, suffix, words):
    table(place)
    monkeypatch.setattr("hyenadna.infer.embed._AHEAD_UNITS", 7)
    command = ["embed", "model", "s.csv", *ONE, *words, "-o"]
    assert run([*command, f"whole.{suffix}"]) == 0
    append, calls = EmbeddingsFile.append, []

    def interrupted(file, *given):
        calls.append(given)
        if len(calls) == 5:
            raise KeyboardInterrupt
        append(file, *given)

    with monkeypatch.context() as patch:
        patch.setattr(EmbeddingsFile, "append", interrupted)
        assert run([*command, f"e.{suffix}"]) == 130
    assert run([*command, f"e.{suffix}", "--resume", "--max-memory", "4GiB"]) == 0
    one, other = embedded(f"whole.{suffix}"), embedded(f"e.{suffix}")
    np.testing.assert_array_equal(one.values, other.values)
    assert one.columns["id"].tolist() == other.columns["id"].tolist()


def test_ten_thousand_contigs_of_plain_gzip(place):
    text = "".join(f">c{i} no. {i}\nACGTN\n" for i in range(10_000))
    with gzip.open(place / "many.fa.gz", "wt") as stream:
        stream.write(text)
    assert run(["embed", "model", "many.fa.gz", "-o", "s.npz", *ONE]) == 0
    assert run(["embed", "model", "many.fa.gz", "-o", "b.npz", "--bin", "3", *ONE]) == 0
    found, bins = embedded("s.npz"), embedded("b.npz")
    assert len(found) == 10_000 and found.columns["id"][-1] == "c9999"
    assert len(bins) == 20_000 and bins.columns["contig"][-1] == "c9999"
    np.testing.assert_allclose(found.values, found.values[:1].repeat(10_000, 0), atol=1e-6)


def test_chosen_contigs_are_all_that_is_read(place):
    words = ["embed", "model", "h.fa", "--bin", "16", "--contigs", "b", *ONE]
    text = (place / "g.fa").read_text()
    for number, first in enumerate((text, text.replace(">a\n", ">a\n!"))):
        (place / "h.fa").write_text(first)  # a letter that is no base, in the other contig
        assert run([*words, "-o", f"{number}.npz"]) == 0
        (place / "h.fa.fai").unlink(missing_ok=True)
    one, two = embedded("0.npz"), embedded("1.npz")
    assert set(one.columns["contig"]) == {"b"} and len(one) == 7
    np.testing.assert_array_equal(one.values, two.values)


def test_columns_of_the_input_make_room_for_ours(place):
    (place / "p.csv").write_text("sequence,id,position,embedding\nACGT,x,7,8\n")
    assert run(["embed", "model", "p.csv", "-o", "e.parquet", "--per", "base", *ONE]) == 0
    found = embedded("e.parquet")
    assert found.columns["position"].tolist() == [0, 1, 2, 3]
    assert found.columns["input_position"].tolist() == [7] * 4
    assert found.columns["embedding_"].tolist() == [8] * 4


@pytest.mark.parametrize(
    ("files", "words", "message"),
    [
        ({"x.fa": ""}, [], "x.fa: holds no sequences to embed"),
        ({"x.fa": ">a\n>b\nACGT\n"}, [], "x.fa:1: the sequence is empty; take the row out"),
        ({"x.fa": "ACGT\n"}, [], "x.fa: is not FASTA"),
        ({"x.csv": "sequence,label\n"}, [], "x.csv: holds no sequences to embed"),
        ({"x.csv": "sequence,label\n,1\n"}, [], "x.csv:2: the sequence is empty"),
        ({"x.csv": "text,label\nACGT,1\n"}, [], "x.csv: has no column of sequences"),
        ({"x.csv": "sequence\nACGT\n"}, ["--sequence", "dna"], "x.csv: has no column 'dna'"),
        ({"x.csv": "sequence\nACGT\n"}, ["--genome", "g.fa"], "holds sequences, not intervals"),
        ({"x.csv": "sequence\nACGT\n"}, ["--feature", "gene"], "--feature is for GFF and GTF"),
        ({"x.csv": "sequence\nACGT\n"}, ["--contigs", "a"], "--contigs chooses records of a FASTA"),
        ({"x.fa": ">a\nACGT\n"}, ["--sequence", "s"], "--sequence and --id name columns"),
        ({"x.bed": "a\t5\t9\n"}, [], "x.bed: holds intervals; give the genome"),
        ({"x.bed": "a\t5\t5\n"}, ["--genome", "g.fa"], "x.bed:1: the sequence is empty"),
        ({"x.bed": "a\t890\t901\n"}, ["--genome", "g.fa"], "runs past the end of a"),
        ({"x.bed": "a\t0\t9\n"}, ["--genome", "g.fa", "--window", "50"], "(--outside pad)"),
        ({"x.bed": "z\t0\t9\n"}, ["--genome", "g.fa"], "has no contig 'z'"),
        ({"x.bed": "a\t0\t9\n"}, ["--window", "5"], "give --genome as well"),
        ({"x.gff": "a\tx\tgene\t1\t9\t.\t+\t.\tID=1\n"}, [], "(--genome)"),
        (
            {"x.gff": "a\tx\tgene\t1\t9\t.\t+\t.\tID=1\n"},
            ["--genome", "g.fa"],
            "say which (--feature); it has gene (1)",
        ),
        ({"x.docx": "?"}, [], "it is not clear what this holds; give FASTA, CSV, TSV, Parquet, "),
        ({"x.fa": ">a\nACGT\n>b\nA\n"}, ["--contigs", "a,c"], "no contig 'c'; it has a, b"),
        ({}, [], "x.fa: no such file"),
        ({"x.fa": ">a\nACGT\n"}, ["--layer", "2"], "layer is 2; this model has 0"),
        ({"x.fa": ">a\nACGT\n"}, ["--overlap", "32"], "--overlap is 32; it must be 0 to"),
        ({"x.fa": ">a\nACGT\n"}, ["--per", "base", "--bin", "3"], "--bin is for --per bin"),
        ({"x.fa": ">a\nACGT\n"}, ["--per", "codon"], "--per"),
    ],
)
def test_wild_inputs_are_one_line(place, capsys, files, words, message):
    name = next(iter(files), "x.fa")
    for each, text in files.items():
        (place / each).write_text(text)
    assert run(["embed", "model", name, "-o", "e.npz", *ONE, *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(place.glob("e.npz*"))


_MEASURED = """
import sys
from hyenadna.cli.app import run
assert run(sys.argv[1:]) == 0
import resource
print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["npz", "parquet", "h5ad", "zarr"])
def test_memory_does_not_grow_with_the_input(place, suffix):
    """A hundred times more sequences, and more rows, in about the same memory."""
    peaks = []
    for count in (2_000, 200_000):
        text = "ACGTTGCAAC" * 2
        with (place / f"{count}.fa").open("w") as stream:
            stream.writelines(f">s{i}\n{text}\n" for i in range(count))
        words = ["embed", "model", f"{count}.fa", "-o", f"{count}.{suffix}", "--per", "base", *ONE]
        done = subprocess.run(
            [sys.executable, "-c", _MEASURED, *words], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout.rsplit("PEAK", 1)[1]) * 1024)
    # 4 million rows are 128 MB, and their ids and positions more
    assert peaks[1] - peaks[0] < 80 << 20, peaks


def test_cells_with_any_line_end_come_back(place):
    cells = ["x\ry", "x\r\ny", "x\ny", 'a "b", c', "tab\there", ""]
    with (place / "t.csv").open("w", newline="") as stream:
        out = csv.writer(stream, quoting=csv.QUOTE_ALL)
        out.writerow(["id", "sequence", "note"])
        out.writerows([f"r{i}", "ACGTACGT", cell] for i, cell in enumerate(cells))
    assert run(["embed", "model", "t.csv", "-o", "t.npz", "--threads", "1"]) == 0
    with np.load(place / "t.npz") as found:
        assert len(found["embeddings"]) == len(cells)
        assert [text.replace("\r\n", "\n") for text in found["note"].tolist()] == [
            text.replace("\r\n", "\n") for text in cells
        ]
