"""The models of the package: found without a network, whole, and as good as their cards say."""

from __future__ import annotations

import math
import socket

import numpy as np
import pytest
import torch
from benchmarks.shipped_models import LARGEST

import hyenadna
from hyenadna.cli.app import run
from hyenadna.errors import InputError
from hyenadna.genome.made_genes import make_genes
from hyenadna.infer.evaluate import evaluate
from hyenadna.shipped import SHIPPED, card, shipped_folder, shipped_names


@pytest.fixture(params=shipped_names())
def name(request) -> str:
    return request.param


def test_there_are_a_short_one_and_a_long_one():
    assert shipped_names() == ("starter-16k", "starter-1k")
    assert [card(name)["max_seq_len"] for name in shipped_names()] == [16386, 1026]


def test_it_loads_without_a_network(name, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a model of the package needs no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    model = hyenadna.load(name)
    values = card(name)
    assert model.config.max_seq_len == values["max_seq_len"]
    assert model.config.num_parameters() == values["parameters"]
    assert all(p.isfinite().all() for p in model.parameters())
    with torch.inference_mode():
        logits = model(hyenadna.encode("ACGT" * 16))
    assert logits.shape == (1, 64, 16) and logits.isfinite().all()


def test_it_is_small_and_says_what_it_is(name):
    files = {file.name: file.stat().st_size for file in shipped_folder(name).iterdir()}
    assert set(files) == {"config.json", "model.safetensors", "card.json", "README.md"}
    assert sum(files.values()) <= LARGEST
    text, values = (SHIPPED / name / "README.md").read_text(), card(name)
    for row in values["genomes"]:
        assert f"{row['bits_per_base']:.4f}" in text
    for each in values["data"]:
        assert each["what"] in text and each["sha256"] and each["source"] in text
    assert all(f"{run['steps']:,} steps" in text for run in values["runs"])
    for needed in ("Apache-2.0", "Good for", "no evidence about disease"):
        assert needed in text


MEMORISED = {"mitochondria"}
"""Words of twelve letters from close relatives are hard to beat there."""


def test_it_is_better_than_markov_models(name):
    rows = {row["genome"]: row for row in card(name)["genomes"]}
    assert {"human", "yeast", "ecoli", "Bacillus", "Caul", "Staph", "Myco"} <= set(rows)
    for genome, row in rows.items():
        orders = [*row["markov"].values(), *row["markov_own"].values()]
        assert len(row["markov"]) == 13 and min(orders) == row["best_markov"]
        assert (row["bits_per_base"] < row["best_markov"]) == (genome not in MEMORISED), genome


def test_the_card_says_where_it_is_not_the_best(name):
    text = (SHIPPED / name / "README.md").read_text()
    for row in card(name)["genomes"]:
        for yardstick, sentence in (
            ("best_markov", "Not better than the best Markov model on: "),
            ("earlier", "Not better than the models before"),
        ):
            told = [line for line in text.splitlines() if line.startswith(sentence)]
            worse = row[yardstick] is not None and row["bits_per_base"] >= row[yardstick]
            listed = any(row["genome"] in line.partition(" on: ")[2] for line in told)
            assert worse == listed, (row["genome"], yardstick)


@pytest.mark.parametrize(
    ("genome", "file", "contig"),
    [
        ("human", "human_hg38_chr9_1Mb/chr9_1-1000000.fa.gz", "9"),
        ("yeast", "yeast_R64/Saccharomyces_cerevisiae.R64-1-1.fa.gz", "IV"),
    ],
)
def test_held_out_chromosomes_are_as_well_predicted_as_the_card_says(
    shared, name, genome, file, contig
):
    from hyenadna.data.windows import Regions
    from hyenadna.genome.fasta import Genome
    from hyenadna.genome.intervals import Interval

    reader = Genome.open(shared / "data" / file)
    starts = (300_000, 700_000)
    part = Regions("test", tuple(Interval(contig, start, start + 20_000) for start in starts))
    found = evaluate(hyenadna.load(name), reader, part, length=1024)
    row = next(row for row in card(name)["genomes"] if row["genome"] == genome)
    assert found.bits_per_base == pytest.approx(row["bits_per_base"], abs=0.06)
    assert found.bits_per_base < 1.96


def test_it_knows_where_proteins_end(name):
    """Stop codons inside made genes are less likely than other changes of the same codons."""
    from hyenadna import mutate

    contig = make_genes(4, codons=40, seed=5)
    model = hyenadna.load(name)
    by_effect: dict[str, list[float]] = {}
    scores = mutate(model, hyenadna.encode(contig.letters)).score
    for variant in contig.variants():
        value = float(scores[variant.position, "ACGT".index(variant.alt)])
        by_effect.setdefault(variant.effect, []).append(value)
    mean = {effect: float(np.mean(values)) for effect, values in by_effect.items()}
    error = {e: float(np.std(v) / math.sqrt(len(v))) for e, v in by_effect.items()}
    assert mean["stop"] < mean["missense"] - 3 * error["stop"], (mean, error)


def test_the_list_and_the_cards_are_shown(name, capsys):
    assert run(["models"]) == 0
    assert name in capsys.readouterr().out
    assert run(["models", name]) == 0
    assert "What it is good and bad for" in capsys.readouterr().out


def test_unknown_names_say_which_there_are(capsys):
    assert run(["models", "starter-2k"]) == 2
    assert "there are starter-16k, starter-1k" in capsys.readouterr().err
    with pytest.raises(InputError, match="no model of that name; there are starter-16k"):
        hyenadna.load("starter-2k")
