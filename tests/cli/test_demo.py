"""The demo, made small."""

from __future__ import annotations

import numpy as np
import pytest

from hyenadna.alphabet import decode
from hyenadna.cli import demo
from hyenadna.cli.app import run


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(demo, "TRAIN_BASES", 20_000)
    monkeypatch.setattr(demo, "VALID_BASES", 2_000)
    monkeypatch.setattr(demo, "TEST_BASES", 4_000)
    monkeypatch.setattr(demo, "SHAPE", demo.SHAPE.replace(d_model=8, n_layer=1))


def test_the_embedded_genome(tmp_path, capsys):
    out = tmp_path / "demo"
    assert run(["demo", "--out", str(out), "--steps", "3"]) == 0
    printed = capsys.readouterr().out
    assert "0.9135 bits per base for a reader of 200 bases" in printed
    assert "true bound" in printed and "256–512" in printed
    for picture in (out / "context.png", out / "run" / "curve.png"):
        assert picture.read_bytes()[:4] == b"\x89PNG"
    assert run(["demo", "--out", str(out)]) == 2
    assert "exists and is not empty" in capsys.readouterr().err


def test_a_genome_of_ones_own(tmp_path, capsys):
    fasta = tmp_path / "mine.fa"
    fasta.write_text(f">a\n{decode(np.random.default_rng(0).integers(7, 11, 20_000))}\n")
    assert run(["demo", str(fasta), "--out", str(tmp_path / "out"), "--steps", "2"]) == 0
    assert "mine, test" in capsys.readouterr().out
    assert (tmp_path / "out" / "run" / "evaluation" / "mine.test.png").exists()
    assert run(["demo", str(tmp_path / "none.fa"), "--out", str(tmp_path / "other")]) == 2
    assert not (tmp_path / "other").exists()
