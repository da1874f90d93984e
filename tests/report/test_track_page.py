"""The report's blocks of a track run, drawn from its files."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from hyenadna.alphabet import decode
from hyenadna.checkpoint.save import save
from hyenadna.cli.app import run
from hyenadna.config import ModelConfig
from hyenadna.infer.run_record import read_record
from hyenadna.infer.track_read import pieces
from hyenadna.model.backbone import HyenaDNA
from hyenadna.report import track_page
from hyenadna.report.track_page import blocks

CONFIG = ModelConfig(d_model=8, n_layer=1, max_seq_len=34, filter_order=8)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save(HyenaDNA(CONFIG), tmp_path / "model")
    text = decode(np.random.default_rng(0).integers(7, 11, 2000))
    text = text[:900] + "N" * 100 + text[1000:]
    (tmp_path / "g.fa").write_text(f">b<i>\n{text}\n>a\n{text[:500]}\n")
    return tmp_path


def made(place, out: str, *more: str):
    assert run(["track", "model", "g.fa", "-o", out, "--threads", "1", *more]) == 0
    return place / out, read_record(place / out)


@pytest.mark.parametrize("out", ["x.bw", "x.parquet"])
def test_pictures_and_tables(place, out):
    pytest.importorskip("pyBigWig")
    page = "".join(blocks(*made(place, out, "--strands", "each")))
    assert page.count("<svg") == 4  # two contigs, histogram, both strands
    assert "b&lt;i&gt;" in page and "b<i>" not in page
    assert "lower case" not in page and "upper case" in page
    found = re.search(r"([\d,]+) bases, the darker the more; correlation (\S+)\.", page)
    assert found is not None and abs(float(found[2].replace("−", "-"))) <= 1
    assert "Lowest means of stretches of 200 bases" in page


def test_one_track_in_bins(place):
    page = "".join(blocks(*made(place, "x.parquet", "--bin", "7", "--values", "entropy")))
    assert page.count("<svg") == 3 and "entropy, bits" in page


def test_what_cannot_be_read_back_has_tables(place):
    path, record = made(place, "x.bedgraph.gz")
    page = "".join(blocks(path, record))
    assert "<svg" not in page and "No pictures: " in page and "<table>" in page
    path, record = made(place, "y.bw")
    path.unlink()
    assert "y.bw: is not beside its record" in "".join(blocks(path, record))


def test_a_track_without_values(place):
    (place / "g.fa").write_text(">a\nNNNN\n")
    (place / "g.fa.fai").unlink(missing_ok=True)
    assert "No base has a value." in "".join(blocks(*made(place, "x.parquet")))


def test_both_kinds_of_files_say_the_same(place):
    pytest.importorskip("pyBigWig")
    names = ["surprisal.forward", "surprisal.reverse"]
    values = {}
    for out in ("x.bw", "x.parquet"):
        found: dict[tuple[str, str, int], float] = {}
        for contig, start, span, rows in pieces(*made(place, out, "--strands", "each"), names):
            for name, row in rows.items():
                for at in np.flatnonzero(~np.isnan(row)).tolist():
                    found[contig, name, start + span * at] = row[at]
        values[out] = found
    assert values["x.bw"] == values["x.parquet"] and len(values["x.bw"]) > 4000


def test_memory_of_the_pictures_is_bounded(place, monkeypatch):
    """However long the genome is: so many stretches, so many pairs."""
    path, record = made(place, "x.parquet", "--strands", "each")
    monkeypatch.setattr(track_page, "_CELLS", 50)
    monkeypatch.setattr(track_page, "_PAIRS", 100)
    seen = track_page._gather(path, record, list(record.figures["files"]))
    assert sum(len(cells) for lines in seen.lines.values() for cells in lines.values()) < 2 * 60
    assert sum(each.shape[1] for each in seen.pairs) < 110
    means = {
        name: sum(total for cells in seen.lines.values() for total, _ in cells[name].values())
        for name in record.figures["files"]
    }
    for row in record.figures["tracks"]:
        assert means[row["track"]] == pytest.approx(row["mean"] * row["bases"], rel=1e-5)
