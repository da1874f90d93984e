"""The demo, made small."""

from __future__ import annotations

import numpy as np
import pytest

from hyenadna.alphabet import decode
from hyenadna.cli import demo, demo_shipped
from hyenadna.cli.app import run


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(demo, "TRAIN_BASES", 20_000)
    monkeypatch.setattr(demo, "VALID_BASES", 2_000)
    monkeypatch.setattr(demo, "TEST_BASES", 4_000)
    monkeypatch.setattr(demo, "SHAPE", demo.SHAPE.replace(d_model=8, n_layer=1))
    monkeypatch.setattr(demo_shipped, "GENES", 8)
    monkeypatch.setattr(demo_shipped, "CODONS", 125)
    monkeypatch.setattr(demo_shipped, "VARIANTS", 40)
    monkeypatch.setattr(demo_shipped, "MOST_BASES", 6_000)


def test_the_embedded_genome(tmp_path, capsys):
    out = tmp_path / "demo"
    assert run(["demo", "--out", str(out), "--steps", "3"]) == 0
    printed = capsys.readouterr().out
    assert "0.9135 bits per base for a reader of 200 bases" in printed
    assert "true bound" in printed and "256–512" in printed
    for picture in (out / "context.png", out / "run" / "curve.png"):
        assert picture.read_bytes()[:4] == b"\x89PNG"
    assert "synonymous" in printed and f"hyenadna score starter-1k {out}/variants.vcf" in printed
    assert (out / "windows.png").read_bytes()[:4] == b"\x89PNG"
    assert (out / "scored.vcf.gz").exists() and (out / "new.fa").read_text().count(">") == 3
    assert run(["demo", "--out", str(out)]) == 2
    assert "exists and is not empty" in capsys.readouterr().err


def test_a_genome_of_ones_own(tmp_path, capsys):
    fasta = tmp_path / "mine.fa"
    fasta.write_text(f">a\n{decode(np.random.default_rng(0).integers(7, 11, 20_000))}\n")
    assert run(["demo", str(fasta), "--out", str(tmp_path / "out"), "--steps", "2"]) == 0
    printed = capsys.readouterr().out
    assert "mine, test" in printed and "transition" in printed
    assert (tmp_path / "out" / "scored.vcf.gz").exists()
    assert (tmp_path / "out" / "run" / "evaluation" / "mine.test.png").exists()
    assert run(["demo", str(tmp_path / "none.fa"), "--out", str(tmp_path / "other")]) == 2
    assert not (tmp_path / "other").exists()
