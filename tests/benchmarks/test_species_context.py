"""The species benchmark: its plan, its page, and that it goes on where it stopped."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import species_context as bench
from hyenadna.config import ModelConfig
from hyenadna.errors import InputError


def test_the_control_reads_as_many_tokens_at_the_full_length():
    rungs = bench.ladder(1.0)
    assert [rung.length for rung in rungs] == [1024, 4096, 16384, 65536]
    other = bench.control(rungs)
    total = sum(rung.tokens for rung in rungs)
    assert total - other.length < other.tokens <= total
    assert (other.length, other.valid, other.test) == (65536, rungs[-1].valid, rungs[-1].test)
    small = bench.ladder(0.001)
    assert {(r.train, r.test) for r in small} >= {(42, 7), (7, 7)}


def test_a_measurement_is_read_as_it_was_written_and_its_worst_pairs_are_named(tmp_path):
    names = ("a", "b", "c")
    targets = np.array([0, 0, 0, 1, 1, 2])
    said = np.eye(3, dtype=np.float32)[[1, 1, 0, 1, 2, 2]]
    one = bench.Measured(said, targets, np.arange(6), names, 2.5, "k 1..4")
    one.save(tmp_path / "m.npz")
    other = bench.Measured.read(tmp_path / "m.npz")
    for name in ("probabilities", "targets", "blocks"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    assert (other.names, other.seconds, other.note) == (names, 2.5, "k 1..4")
    assert bench.worst_pairs(other) == ["a as b 2 of 3", "b as c 1 of 2"]
    row = bench.read_row(tmp_path / "m.npz", 1024)
    assert row.wrong == 3 and row.accuracy.value == 0.5 and row.accuracy.rows == 6
    assert bench.read_row(tmp_path / "none.npz", 1024) is None


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Two made-up genomes, lengths 32 and 128, a tiny model."""
    rng = np.random.default_rng(0)
    for name, letters in (("at", "AATTACGT"), ("gc", "GGCCACGT")):
        text = "".join(np.array(list(letters))[rng.integers(0, 8, 8000)])
        (tmp_path / f"{name}.fa").write_text(f">c\n{text}\n")
    rungs = [
        bench.Rung("warm-up-32", 32, 64, 12, 40, 8, 1e-2),
        bench.Rung("warm-up-128", 128, 16, 12, 20, 4, 1e-3),
    ]
    monkeypatch.setattr(bench, "GENOMES", {"rich": "gc.fa", "poor": "at.fa"})
    shape = ModelConfig(d_model=8, n_layer=1, max_seq_len=130, filter_order=8)
    monkeypatch.setattr(bench, "SHAPE", shape)
    monkeypatch.setattr(bench, "BLOCK", 128)
    return rungs


def test_it_measures_writes_the_page_and_does_nothing_twice(small, tmp_path, capsys):
    genomes = bench.link_genomes(tmp_path, tmp_path / "out" / "genomes")
    assert bench.link_genomes(tmp_path, tmp_path / "out" / "genomes") == genomes
    out, docs = tmp_path / "out", tmp_path / "docs"
    docs.mkdir()
    names = list(bench.measure_all(small, genomes, out))
    bench.write_page(small, genomes, out, docs)
    assert names == [
        "warm-up-32", "warm-up-128", "kmer-32", "kmer-128", "last-32", "control",
    ]  # fmt: skip
    page = (docs / "species.md").read_text()
    assert (docs / "species.png").stat().st_size > 1000
    for words in (
        "| 32 | 40 | ", "| 128 | 20 | ", "k-mers: longer is", "128 bases with and without",
        "accuracy +", "| poor | 5.6 kb | 1.2 kb | 1.2 kb |", "| 128 (no warm-up) | 32 |",
    ):  # fmt: skip
        assert words in page or words.replace("+", "-") in page, words
    kmers = bench.read_row(out / "kmer-128.npz", 128)
    assert kmers.accuracy.value > 0.9
    # each length goes on with the weights of the one before
    digests = [
        json.loads((out / rung.name / "best" / "task.json").read_text())["base_digest"]
        for rung in small
    ]
    assert digests[0] != digests[1]
    capsys.readouterr()
    assert list(bench.measure_all(small, genomes, out)) == names
    assert "step" not in capsys.readouterr().out


def test_another_scale_and_missing_genomes_are_told(small, tmp_path):
    bench.require_same_plan(tmp_path / "plan.json", small)
    bench.require_same_plan(tmp_path / "plan.json", small)
    with pytest.raises(InputError, match="holds a run of another scale; give another --out"):
        bench.require_same_plan(tmp_path / "plan.json", small[:1])
    (tmp_path / "gc.fa").unlink()
    with pytest.raises(InputError, match=r"no gc.fa; give the folder"):
        bench.link_genomes(tmp_path, tmp_path / "links")
