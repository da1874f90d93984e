"""Random variants: everywhere alike, of the classes asked for; percentiles among them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hyenadna.alphabet import decode
from hyenadna.errors import InputError
from hyenadna.genome.fasta import Genome
from hyenadna.genome.variant_file import VariantFile
from hyenadna.genome.variants import KINDS, trimmed
from hyenadna.infer import score_survey
from hyenadna.infer.score import Score
from hyenadna.infer.score_background import Background, random_alleles
from hyenadna.infer.score_survey import survey

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
    scores = {"snv": [Score(llr=x, dist=math.nan) for x in (3.0, 1.0, 2.0, 2.0)]}
    background = Background.of(scores)
    for same in (background, Background(background.to_dict())):
        ranks = [same.percentile("snv", "llr", x) for x in (0.0, 1.0, 2.0, 2.5, 9.0)]
        assert ranks == [0.0, 12.5, 50.0, 75.0, 100.0]
        assert math.isnan(same.percentile("snv", "dist", 1.0))
        assert math.isnan(same.percentile("mnv", "llr", 1.0))
        assert math.isnan(same.percentile("snv", "llr", math.nan))
    assert background.quantiles()["snv"]["llr"]["0.5"] == 2.0


def test_lengths_are_drawn_from_all_of_a_file(genome, tmp_path, monkeypatch):
    monkeypatch.setattr(score_survey, "SHAPES", 20)
    rows = "".join(
        f"a\t{i + 1}\t.\t{LETTERS[i : i + n]}\t{LETTERS[i]}\t.\t.\t.\n"
        for i, n in [(i, 2 if i < 450 else 3) for i in range(900)]
    )
    head = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    (tmp_path / "v.vcf").write_text(head + rows)
    found = survey(VariantFile.open(tmp_path / "v.vcf"), genome, seed=1)
    kept = found.shapes["deletion"]
    assert len(kept) == 20 and 3 < sum(shape == (2, 0) for shape in kept) < 17
    assert found.in_order and found.kinds["deletion"] == 900
    again = survey(VariantFile.open(tmp_path / "v.vcf"), genome, seed=1)
    assert again.shapes == found.shapes and again.digest == found.digest
