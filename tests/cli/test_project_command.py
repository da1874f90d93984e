"""`hyenadna project`: pictures and figures of embeddings; one line for what is wrong."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from hyenadna.alphabet import decode
from hyenadna.checkpoint.save import save
from hyenadna.cli.app import run
from hyenadna.cli.project import _labels
from hyenadna.config import ModelConfig
from hyenadna.infer.run_record import read_record
from hyenadna.model.backbone import HyenaDNA
from hyenadna.report.embed_page import blocks
from hyenadna.report.page import page_html
from hyenadna.report.plots import GREY
from hyenadna.report.projection_plots import OTHER, colouring, scatter_figure

ONE = ["--threads", "1"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with embeddings of 60 sequences of two kinds, rich in AT and in GC."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save(HyenaDNA(ModelConfig(d_model=8, n_layer=1, max_seq_len=34, filter_order=8)), "model")
    rng = np.random.default_rng(0)
    lines = []
    for i in range(60):
        share = [0.4, 0.1, 0.1, 0.4] if i % 2 else [0.1, 0.4, 0.4, 0.1]
        text = decode((7 + rng.choice(4, rng.integers(20, 60), p=share)).astype(np.uint8))
        lines.append(f"s{i},{text},{'AT' if i % 2 else 'GC'},g{i // 4},{i / 7:.3f}\n")
    Path("s.csv").write_text("id,sequence,kind,gene,score\n" + "".join(lines))
    assert run(["embed", "model", "s.csv", "-o", "e.h5ad", *ONE]) == 0
    return tmp_path


def test_pictures_of_three_methods(place, capsys):
    pytest.importorskip("umap")
    words = ["project", "e.h5ad", "-o", "p.png", "--method", "pca,tsne,umap", "--colour", "kind"]
    assert run([*words, "--coordinates", "c.csv", *ONE]) == 0
    said = capsys.readouterr().out
    assert "pca: " in said and "of the variance" in said and "15 neighbours" in said
    assert (place / "p.png").read_bytes()[:4] == b"\x89PNG"
    with Path("c.csv").open(newline="") as text:
        rows = list(csv.DictReader(text))
    assert len(rows) == 60 and rows[0]["id"] == "s0" and rows[0]["kind"] == "GC"
    assert {"pca_1", "pca_2", "tsne_1", "umap_2"} <= rows[0].keys()
    record = read_record(place / "p.png")
    assert record.verb == "project" and record.settings["seed"] == 0
    assert record.model["name"] == "model"


def test_classes_are_told_beside_composition(place, capsys):
    words = ["project", "e.h5ad", "-o", "p.html", "--classify", "kind", "--trees", "20", *ONE]
    assert run([*words, "--folds", "3"]) == 0
    said = capsys.readouterr().out
    for name in ("majority class", "length alone", "composition (k 1..4)", "embeddings"):
        assert name in said
    page = Path("p.html").read_text()
    assert "no --group was given" in page and "Confusion: embeddings." in page
    assert page.count("<svg") == 3 and "http" not in page.split("</style>")[1].split("xmlns")[0]
    figures = read_record(place / "p.html").figures
    assert figures["weighted F1, composition (k 1..4)"] > 0.9
    assert figures["weighted F1, majority class"] < 0.4
    Path("p.html").unlink()
    assert run([*words, "--folds", "3", "--group", "gene"]) == 0
    assert "15 groups stay whole" in capsys.readouterr().out
    assert "no --group" not in Path("p.html").read_text()


def test_sequences_that_are_elsewhere(place, capsys):
    Path("s.csv").rename("moved.csv")
    words = ["project", "e.h5ad", "-o", "p.png", "--classify", "kind", "--trees", "5", *ONE]
    words += ["--folds", "3"]
    assert run(words) == 0
    said = capsys.readouterr().out
    assert "no k-mer composition" in said and "composition (k" not in said
    assert Path("p.confusion.png").exists()
    lines = Path("moved.csv").read_text().splitlines(keepends=True)
    Path("mixed.csv").write_text("".join([lines[0], *reversed(lines[1:])]))  # found by id
    words[words.index("p.png")] = "q.png"
    assert run([*words, "--sequences", "mixed.csv"]) == 0
    assert "composition (k 1..4)" in capsys.readouterr().out
    Path("few.csv").write_text("".join(lines[:9]))
    words[words.index("q.png")] = "r.png"
    assert run([*words, "--sequences", "few.csv"]) == 2
    error = capsys.readouterr().err
    assert "few.csv: holds 8 sequences, which are not those of the 60 rows" in error


def test_a_sample_is_told(place, capsys):
    words = ["project", "e.h5ad", "-o", "p.svg", "--max-rows", "20", "--labels", "id", *ONE]
    assert run(words) == 0
    assert "20 of 60 rows are looked at, drawn at random with seed 0" in capsys.readouterr().out
    text = Path("p.svg").read_text()
    Path("p.svg").unlink()
    assert run(words) == 0
    assert text.count("s1") and len(Path("p.svg").read_text()) == len(text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["e.h5ad", "-o", "p.gif"], "p.gif: give a name that ends in .png, .svg, .pdf or .html"),
        (["e.h5ad", "-o", "no/p.png"], "there is no folder no"),
        (["e.h5ad", "-o", "p.png", "--method", "mds"], "--method is 'mds'; it is pca, tsne, umap"),
        (["e.h5ad", "-o", "p.png", "--method", ","], "--method is empty"),
        (["e.h5ad", "-o", "p.png", "--colour", "x"], "have no column 'x'; they have id, kind"),
        (["e.h5ad", "-o", "p.png", "--classify", "x"], "have no column 'x'"),
        (["e.h5ad", "-o", "p.png", "--classify", "id"], "fewer than two classes have 10 rows"),
        (["e.h5ad", "-o", "p.png", "--group", "gene"], "give the classes with --classify"),
        (["e.h5ad", "-o", "p.png", "--kmer", "9"], "--kmer is 9; it must be 1 to 6"),
        (["e.h5ad", "-o", "p.png", "--coordinates", "c.txt"], "written as .csv or .tsv"),
        (["e.h5ad", "-o", "p.png", "--coordinates", "s.csv"], "s.csv: exists; remove it, or give"),
        (["gone.npz", "-o", "p.png"], "gone.npz: no such file"),
        (["s.csv", "-o", "p.png"], "s.csv: is none of .npz, .parquet, .h5ad, .zarr"),
        (["nan.npz", "-o", "p.png"], "2 of 5 rows hold NaN or infinity"),
        (["two.npz", "-o", "p.png"], "2 rows cannot be projected"),
    ],
)
def test_wild_inputs_are_one_line(place, capsys, words, message):
    bad = np.ones((5, 3), np.float32)
    bad[:2, 1] = np.nan
    np.savez("nan.npz", embeddings=bad)
    np.savez("two.npz", embeddings=bad[2:4])
    assert run(["project", *words, *ONE]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(place.glob("p.*"))


def test_sequences_that_have_changed(place, capsys):
    text = Path("s.csv").read_text()
    Path("s.csv").write_text(text.replace("s0,", "s0,A", 1))
    words = ["project", "e.h5ad", "-o", "p.html", "--classify", "kind", "--trees", "2", *ONE]
    assert run([*words, "--folds", "2"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "s.csv: has changed since it was embedded" in said and "composition (k" not in said


def test_bins_have_no_composition(place, capsys):
    words = ["embed", "model", "s.csv", "-o", "b.npz", "--per", "bin", "--bin", "10"]
    assert run([*words, "--layer", "0", *ONE]) == 0
    words = ["project", "b.npz", "-o", "p.html", "--classify", "kind", "--trees", "2", *ONE]
    assert run([*words, "--folds", "2"]) == 0
    said = capsys.readouterr().out
    assert "are no whole sequences" in said and "--sequences" not in said
    assert re.search(r"embed: layer</t[dh]>\s*<td[^>]*>0<", Path("p.html").read_text())
    words[3] = "q.html"
    assert run([*words, "--sequences", "s.csv"]) == 2
    assert "are no whole sequences; leave out --sequences" in capsys.readouterr().err


def test_classes_are_looked_at_before_the_slow_step(place, capsys):
    words = ["project", "e.h5ad", "-o", "p.png", "--classify"]
    assert run([*words, "id", *ONE]) == 2
    assert "pca: " not in capsys.readouterr().out
    rng = np.random.default_rng(0)
    kinds = np.array(["a", "b"] * 10 + ["rare", ""])
    np.savez("rare.npz", embeddings=rng.normal(size=(22, 3)).astype(np.float32), kind=kinds)
    words = ["project", "rare.npz", "-o", "p.png", "--classify", "kind", "--trees", "2", *ONE]
    assert run([*words, "--folds", "2"]) == 0
    caveats = read_record(place / "p.png").caveats
    assert "1 rows without a class are left out" in caveats
    assert any("folds are left out: rare (1)" in caveat for caveat in caveats)


def test_no_file_is_overwritten(place, capsys):
    Path("p.png").write_text("mine")
    Path("q.confusion.png").write_text("mine")
    assert run(["project", "e.h5ad", "-o", "p.png", *ONE]) == 2
    assert "p.png: exists; remove it, or give another name" in capsys.readouterr().err
    assert run(["project", "e.h5ad", "-o", "q.png", "--classify", "kind", *ONE]) == 2
    assert "q.confusion.png: exists; remove it" in capsys.readouterr().err
    assert Path("p.png").read_text() == Path("q.confusion.png").read_text() == "mine"
    assert not Path("q.png").exists()


def test_colours_follow_the_type_of_the_column():
    text = np.array([*"aaabbc", ""], dtype=object)
    found = colouring("x", text)
    assert found.classes == ("a", "b", "(none)", "c") and found.codes.tolist()[0] == 0
    many = np.array([f"k{i % 12}" for i in range(100)], dtype=object)
    found = colouring("x", many)
    assert len(found.classes) == 8 and found.classes[-1] == OTHER and "5 smaller" in found.note
    assert colouring("x", np.arange(50)).numbers is not None
    assert colouring("x", np.arange(50) % 3).classes == ("0", "1", "2")
    assert colouring("x", np.array([0.5, np.nan])).numbers is not None
    assert colouring("x", np.array([np.nan, np.nan])).numbers is not None
    assert colouring("x", np.array([2.0, np.nan, 2.0, 1.0])).classes == ("2", "(none)", "1")


def test_each_class_has_a_colour_of_its_own():
    for count in (8, 12):
        found = colouring("x", np.array([f"k{i}" for i in range(count)], dtype=object))
        figure = scatter_figure([("t", np.eye(count)[:, :2], ("x", "y"))], found)
        drawn = [handle.get_color() for handle in figure.legends[0].legend_handles]
        plt.close(figure)
        assert len(set(drawn)) == len(drawn) == 8 and (GREY in drawn) == (count == 12)


def test_numbers_keep_their_digits():
    numbers = np.array([12345671.0, 12345672.0, np.nan, 0.1234567891])
    assert _labels(numbers) == ["12345671", "12345672", "", "0.1234567891"]


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_the_blocks_of_a_report(place, suffix):
    assert run(["embed", "model", "s.csv", "-o", f"e.{suffix}", *ONE]) == 0
    out = place / f"e.{suffix}"
    page = page_html("t", blocks(out, read_record(out)))
    assert page.count("<svg") == 2 and "coloured by kind" in page and "s0" in page
    assert "60 rows of 8 numbers." in page
