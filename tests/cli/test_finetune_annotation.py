"""`hyenadna finetune` with classes of bases from an annotation, on windows over a whole genome."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from hyenadna.alphabet import decode
from hyenadna.checkpoint.save import save
from hyenadna.checkpoint.task import load_task
from hyenadna.cli.app import run
from hyenadna.config import ModelConfig
from hyenadna.data.annotation_classes import FRAME_NAMES
from hyenadna.genome.fasta import Genome
from hyenadna.model.backbone import HyenaDNA, rescale_filters

SHAPE = ModelConfig(d_model=16, n_layer=1, max_seq_len=66, filter_order=16)
CODONS = ("GCA", "GCC", "AAG", "GAT")
COMMON = ["--threads", "1", "--precision", "float32", "--embed-dropout", "0"]
QUICK = ["--epochs", "2", "--batch-size", "64", "--lr", "0.01"]
TILED = ["--genome", "g.fa", "--tile", "60", "--split-by", "group", "--test-fraction", "0.3"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, and a genome of five contigs with genes of few codons."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = HyenaDNA(SHAPE)
    rescale_filters(model)
    save(model, tmp_path / "model")
    rng = np.random.default_rng(0)
    fasta, rows = [], []
    for contig in range(5):
        text = ""
        while len(text) < 3000:
            text += decode(rng.integers(7, 11, int(rng.integers(20, 60))).astype(np.uint8))
            gene, first = "".join(rng.choice(CODONS, int(rng.integers(20, 60)))), len(text) + 1
            strand = "+" if rng.random() < 0.5 else "-"
            text += gene if strand == "+" else gene[::-1].translate(str.maketrans("ACGT", "TGCA"))
            columns = (f"{contig}", "x", "CDS", str(first), str(len(text)), ".", strand, "0")
            rows.append("\t".join([*columns, f"ID={contig}.{first}"]))
        fasta.append(f">chr{contig}\n{text}\n")
    Path("g.fa").write_text("".join(fasta))
    Path("genes:1.gff3").write_text("\n".join(rows) + "\n")
    return tmp_path


def finetune(*words: str) -> int:
    return run(["finetune", "model", *words, *COMMON])


def test_frames_of_a_genome_in_one_command(place, capsys):
    words = [*TILED, "--frames", "genes:1.gff3", "--baselines", "majority,hmm", "--seeds", "1"]
    words += ["--strands", "concatenate", "--reverse-complement"]
    assert finetune(*words, *QUICK, "--out", "RUN") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "0 is chr0" in printed and "windows of 60 bases side by side" in printed
    found = json.loads(Path("RUN/metrics.json").read_text())
    assert found["part"] == "test" and found["baselines"].keys() == {"majority", "hmm"}
    assert found["baselines"]["hmm"]["metrics"]["mcc"]["value"] > 0.7
    assert load_task("RUN/seed-0/best").task.names == FRAME_NAMES
    # whole stretches are held out: all of their windows, but an end of less than half of one
    stretch = int(re.search(r"stretches of ([\d,]+) bases", printed)[1].replace(",", ""))
    contigs = Genome.open("g.fa").contigs
    with Path("RUN/predictions.csv").open(newline="") as text:
        held_out = Counter(row["id"] for row in csv.DictReader(text))
    windows: Counter[tuple[str, int]] = Counter()
    for id in held_out:
        contig, _, place_ = id.partition(":")
        windows[contig, (int(place_.partition("-")[0]) - 1) // stretch] += 1
    for (contig, number), count in windows.items():
        size = min(contigs[contig] - number * stretch, stretch)
        assert count == (size + 30) // 60
    assert found["rows"]["test"] == len(held_out)


def test_tracks_of_features(place):
    words = [*TILED, "--track", "cds=genes:1.gff3:CDS", "--stranded", "--baselines", "none"]
    assert finetune(*words, *QUICK, "--out", "RUN") == 0
    assert load_task("RUN/seed-0/best").task.names == ("+cds", "-cds", "none")
    # a request with them can be read again
    assert run(["finetune", "--out", "RUN", "--resume"]) == 0


def test_errors_are_one_line(place, capsys):
    by_group = [*TILED, "--out", "RUN", "--frames", "genes:1.gff3"]
    wrong = {
        "give --split-by group": [*TILED[:4], "--out", "RUN", "--frames", "genes:1.gff3"],
        "cannot tell + classes from -": [*by_group, "--strands", "average"],
        "tracks and frames are given": [*by_group, "--track", "x=genes:1.gff3:CDS"],
        "has no exon on g.fa; it has CDS": [*TILED, "--out", "RUN", "--genes", "genes:1.gff3"],
        "no.gff: no such file": [*TILED, "--out", "RUN", "--frames", "no.gff"],
    }
    for said, words in wrong.items():
        assert finetune(*words) == 2
        error = capsys.readouterr().err
        assert said in " ".join(error.split()), error
    rows = [f"ACGT{'A' * i},{'ab'[i % 2]},{'train' if i < 4 else 'valid'}\n" for i in range(8)]
    Path("t.csv").write_text("sequence,label,split\n" + "".join(rows))
    assert finetune("t.csv", "--out", "RUN", "--baselines", "hmm") == 2
    assert "hmm: it is for a class of each base" in " ".join(capsys.readouterr().err.split())
    assert not Path("RUN").exists()
