"""Random variants: everywhere alike, of the classes asked for; percentiles among them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hyenadna.alphabet import decode, encode
from hyenadna.config import ModelConfig
from hyenadna.errors import InputError
from hyenadna.genome.fasta import Genome
from hyenadna.genome.variant_file import VariantFile
from hyenadna.genome.variants import KINDS, Allele, Note, trimmed
from hyenadna.infer import score_survey
from hyenadna.infer.score import Score, plan_windows, score
from hyenadna.infer.score_background import (
    LENGTHS,
    Background,
    group_of,
    random_alleles,
    shapes_to_draw,
)
from hyenadna.infer.score_survey import survey
from hyenadna.model.backbone import HyenaDNA

LETTERS = decode(np.random.default_rng(0).integers(7, 11, 3000))
SHAPES = {
    "snv": [(1, 1)],
    "mnv": [(2, 2), (5, 5)],
    "insertion": [(0, 3), (0, 1)],
    "deletion": [(4, 0)],
    "indel": [(2, 1), (1, 3)],
}


@pytest.fixture
def genome(tmp_path):
    letters = LETTERS[:1000] + "N" * 1000 + LETTERS[2000:]
    (tmp_path / "g.fa").write_text(f">a\n{letters}\n>b\n{LETTERS[:300]}\n")
    return Genome.open(tmp_path / "g.fa")


def test_random_alleles(genome):
    assert set(SHAPES) == set(KINDS)
    drawn = random_alleles(genome, SHAPES, 2000, np.random.default_rng(0))
    for kind, alleles in drawn.items():
        assert len(alleles) == 2000
        shapes = {(len(a.ref), len(a.alt)) for a in alleles}
        assert shapes == set(SHAPES[kind])
        for a in alleles:
            assert a.kind == kind
            np.testing.assert_array_equal(genome.tokens(a.contig, a.start, a.stop), a.ref)
            again = trimmed(a.contig, a.start, a.ref, a.alt)  # nothing is left to trim
            assert (again.start, len(again.ref), len(again.alt)) == (
                a.start, len(a.ref), len(a.alt),
            )  # fmt: skip
    # uniform over 2,300 known bases: by stretches of 100, each about 87 of 2,000
    starts = np.array([a.start + 3000 * (a.contig == "b") for a in drawn["snv"]])
    counts = np.histogram(starts, np.arange(0, 3301, 100))[0]
    assert counts[10:20].sum() == 0
    assert abs(counts[30:].sum() / 2000 - 300 / 2300) < 0.05
    assert counts[[*range(10), *range(20, 33)]].min() > 20


def test_the_seed_decides(genome):
    one, two, other = (
        random_alleles(genome, SHAPES, 30, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )

    def text(drawn):
        return [(a.contig, a.start, bytes(a.alt)) for own in drawn.values() for a in own]

    assert text(one) == text(two) != text(other)


def test_a_genome_without_known_bases(tmp_path):
    (tmp_path / "n.fa").write_text(">a\n" + "N" * 100 + "\n")
    with pytest.raises(InputError, match="--background found only 0 places"):
        random_alleles(
            Genome.open(tmp_path / "n.fa"), {"snv": [(1, 1)]}, 3, np.random.default_rng(0)
        )


def test_percentiles():
    snv, mnv = (trimmed("a", 5, encode(r), encode(a)) for r, a in (("A", "C"), ("AC", "CA")))
    scores = {"snv": [Score(llr=x, dist=math.nan) for x in (3.0, 1.0, 2.0, 2.0)]}
    background = Background.of(scores)
    for same in (background, Background(background.to_dict())):
        ranks = [same.percentile(snv, "llr", x) for x in (0.0, 1.0, 2.0, 2.5, 9.0)]
        assert ranks == [0.0, 12.5, 50.0, 75.0, 100.0]
        assert math.isnan(same.percentile(snv, "dist", 1.0))
        assert math.isnan(same.percentile(mnv, "llr", 1.0))
        assert math.isnan(same.percentile(Note.SYMBOLIC, "llr", 1.0))
        assert math.isnan(same.percentile(snv, "llr", math.nan))
    assert background.quantiles()["snv"]["llr"]["0.5"] == 2.0


def test_lengths_are_drawn_from_all_of_a_file(genome, tmp_path, monkeypatch):
    monkeypatch.setattr(score_survey, "SHAPES", 20)
    rows = "".join(
        f"a\t{i + 1}\t.\t{LETTERS[i : i + n]}\t{LETTERS[i]}\t.\t.\t.\n"
        for i, n in [(i, 5 if i < 450 else 6) for i in range(900)]
    )
    head = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    (tmp_path / "v.vcf").write_text(head + rows)
    found = survey(VariantFile.open(tmp_path / "v.vcf"), genome, seed=1)
    kept = found.shapes["deletion 4-5"]
    assert len(kept) == 20 and 3 < sum(shape == (5, 0) for shape in kept) < 17
    assert found.groups == {"deletion 4-5": 900}
    assert found.in_order and found.kinds["deletion"] == 900
    again = survey(VariantFile.open(tmp_path / "v.vcf"), genome, seed=1)
    assert again.shapes == found.shapes and again.digest == found.digest


def test_alleles_are_ranked_among_their_class_and_length():
    def group(ref, alt):
        return group_of(Allele("a", 0, np.zeros(ref, np.uint8), np.ones(alt, np.uint8)))

    sizes = {"1": (1,), "2": (2,), "3": (3,), "4-5": (4, 5), "6-9": (6, 9), "10-19": (10, 19),
             "20-49": (20, 49), "50+": (50, 5000)}  # fmt: skip
    assert tuple(sizes) == LENGTHS
    for lengths, own in sizes.items():
        assert {group(0, size) for size in own} == {f"insertion {lengths}"}
        assert {group(size, 0) for size in own} == {f"deletion {lengths}"}
        assert {group(size, size + 1) for size in own[:-1]} <= {f"indel {lengths}"}
    assert [group(1, 1), group(5, 5), group(2, 7)] == ["snv", "mnv 4-5", "indel 6-9"]
    assert group(0, 0) == group_of(Note.SYMBOLIC) == ""


def test_what_is_too_long_for_the_model_is_not_drawn():
    windows = plan_windows(ModelConfig(d_model=8, n_layer=1, max_seq_len=66))
    shapes = {"snv": [(1, 1)], "insertion 50+": [(0, 60)], "deletion 10-19": [(12, 0), (19, 0)]}
    assert shapes_to_draw(shapes, windows) == {"snv": [(1, 1)], "deletion 10-19": [(12, 0)]}
    assert list(shapes_to_draw(shapes, windows)) == ["snv", "deletion 10-19"]


def test_percentiles_of_random_indels_do_not_measure_their_length(genome):
    torch.manual_seed(0)
    model = HyenaDNA(ModelConfig(d_model=8, n_layer=1, max_seq_len=66, filter_order=8)).eval()
    shapes = {"insertion 1": [(0, 1)], "insertion 4-5": [(0, 4)]}

    def scores(seed, count):
        drawn = random_alleles(genome, shapes, count, np.random.default_rng(seed))
        return {g: (own, list(score(model, genome, own))) for g, own in drawn.items()}

    background = Background.of({g: found for g, (_, found) in scores(0, 200).items()})
    one, long = scores(1, 150).values()
    raw = [np.mean([each.llr for each in found]) for _, found in (one, long)]
    assert raw[1] < raw[0] - 5  # each base costs more than a nat
    for own, found in (one, long):
        ranks = [background.percentile(a, "llr", s.llr) for a, s in zip(own, found, strict=True)]
        assert abs(np.mean(ranks) - 50) < 8
        assert 10 < np.quantile(ranks, 0.25) < 40 and 60 < np.quantile(ranks, 0.75) < 90
