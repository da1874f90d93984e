"""`hyenadna embed`: sequences or a genome in, one file out; one line for what is wrong."""

from __future__ import annotations

import errno
import json

import numpy as np
import pytest
import torch

from hyenadna.alphabet import decode
from hyenadna.checkpoint.save import save
from hyenadna.cli.app import run
from hyenadna.cli.memory import limit_memory
from hyenadna.config import ModelConfig
from hyenadna.errors import InputError
from hyenadna.genome.fasta import Genome
from hyenadna.infer.embeddings_file import EmbeddingsFile
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


WORDS = ["embed", "model", "g.fa", "-o", "e.npz", "--per", "bin", "--threads", "1"]


def test_rows_and_what_is_said(place, capsys):
    assert run([*WORDS, "--bin", "10", "--contigs", "b,a", "--max-memory", "2GiB"]) == 0
    printed = capsys.readouterr().out
    assert (
        "2 contigs, 1.0 kb, the longest 900; 34 windows of up to 30 bases; 100 rows of 8" in printed
    )
    assert "of memory" in printed and "by the first 990 bp" in printed
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
