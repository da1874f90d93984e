"""Evaluation counts the right bases, and the yardsticks count the same."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from hyenadna.alphabet import decode
from hyenadna.checkpoint.save import save
from hyenadna.cli.app import run
from hyenadna.config import ModelConfig
from hyenadna.data.windows import split_by_contigs
from hyenadna.errors import InputError
from hyenadna.genome.fasta import Genome
from hyenadna.infer.evaluate import evaluate, fit_markov, markov_bits
from hyenadna.model.backbone import HyenaDNA

CONFIG = ModelConfig(d_model=8, n_layer=1, max_seq_len=34, filter_order=8)


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    path = tmp_path_factory.mktemp("g") / "g.fa"
    rng = np.random.default_rng(3)
    text = decode(rng.choice([7, 7, 7, 8, 9, 10], 4000))
    path.write_text(f">a\n{text}\n>b\n{text[:333]}NNNNN{text[500:]}\n>c\n{text[:50].lower()}\n")
    return Genome.open(path).load()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = HyenaDNA(CONFIG)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.double()


def test_loss_equals_a_plain_loop_over_windows(genome, model):
    regions = split_by_contigs(genome, valid=["b", "c"]).valid
    result = evaluate(model, genome, regions, length=20, context=12, batch_tokens=100)
    assert model.training  # as it was before
    model.eval()
    nats, count = 0.0, 0
    for contig in ("b", "c"):
        ids = torch.from_numpy(genome.tokens(contig, 0, genome.contigs[contig])).long()
        scored = 1
        start = 0
        while scored < len(ids):
            stop = min(start + 21, len(ids))
            log_p = torch.log_softmax(model(ids[start : stop - 1]), -1)[0].detach()
            for target in range(scored, stop):
                if ids[target] != 11:
                    nats -= float(log_p[target - start - 1, ids[target]])
                    count += 1
            scored, start = stop, start + 8
    assert result.bases == count == (len(genome.tokens("b", 0, genome.contigs["b"])) - 1 - 5) + 49
    assert result.loss == pytest.approx(nats / count, rel=1e-6)
    assert result.bits_per_base == pytest.approx(result.loss / math.log(2))


def test_batch_size_changes_nothing(genome, model):
    regions = split_by_contigs(genome, valid=["b"]).valid
    one, other = (
        evaluate(model, genome, regions, length=30, batch_tokens=tokens) for tokens in (30, 4000)
    )
    assert one.bases == other.bases
    assert one.loss == pytest.approx(other.loss, rel=1e-9)
    assert [b.bases for b in one.by_context] == [b.bases for b in other.by_context]


def test_context_bins_cover_every_window_position(genome, model):
    regions = split_by_contigs(genome, valid=["a"]).valid
    result = evaluate(model, genome, regions, length=32, context=0)
    assert [(b.first, b.last) for b in result.by_context] == [
        (1, 1), (2, 3), (4, 7), (8, 15), (16, 32),
    ]  # fmt: skip
    assert sum(b.bases for b in result.by_context) == result.bases == 3999


def test_markov_models_count_the_same_bases(genome):
    split = split_by_contigs(genome, valid=["b"])
    markov = fit_markov([(genome, split.train)], order=3)
    bits = markov_bits(markov, genome, split.valid)
    ids = genome.tokens("b", 0, genome.contigs["b"])
    each = markov.all_orders(ids)[:, 1:]
    assert bits[3] == pytest.approx(-float(np.nanmean(each[3], dtype=np.float64)), rel=1e-6)
    assert (
        np.isfinite(each[3]).sum()
        == evaluate(HyenaDNA(CONFIG), genome, split.valid, length=32).bases
    )
    assert bits[0] < 1.95  # half of the letters are A


def test_nothing_to_evaluate(genome, model):
    regions = split_by_contigs(genome, valid=["c"]).test
    with pytest.raises(InputError, match="no base to evaluate in 0 bases"):
        evaluate(model, genome, regions)
    with pytest.raises(InputError, match="window length is 99; this model reads 1 to 34"):
        evaluate(model, genome, regions, length=99)


def test_command_line(genome, tmp_path, capsys):
    save(HyenaDNA(CONFIG), tmp_path / "model")
    arguments = [str(tmp_path / "model"), str(genome.path), "--test-contigs", "b"]
    out = ["--json", "--out", str(tmp_path / "out")]
    assert run(["evaluate", *arguments, "--markov", "3", *out]) == 0
    printed = json.loads(capsys.readouterr().out)
    (row,) = printed["genomes"]
    assert row["part"] == "test" and row["genome"] == "g" and set(row["markov"]) == set("0123")
    assert set(row["compression"]) >= {"order 2", "mixture"}
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == printed
    picture = tmp_path / "out" / "g.test.png"
    assert picture.read_bytes()[:4] == b"\x89PNG" and picture.stat().st_size > 5000
    assert sorted(p.name for p in Path(tmp_path / "out").iterdir()) == [
        "evaluation.json",
        "g.test.png",
    ]
    assert run(["evaluate", *arguments, "--no-compression", "--markov", "-1"]) == 0
    assert "this model" in capsys.readouterr().out
    assert run(["evaluate", str(tmp_path / "model")]) == 2
    assert "no FASTA file given" in capsys.readouterr().err
