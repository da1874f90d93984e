"""Splits never share a base; tiling scores every base once and never leaves a region."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyenadna.alphabet import A, Ids, N
from hyenadna.data.windows import (
    PARTS,
    Regions,
    Split,
    default_split,
    split_by_contigs,
    split_from_bed,
    tile,
    whole_genome,
)
from hyenadna.errors import InputError
from hyenadna.genome.fasta import Genome, GenomeReader
from hyenadna.genome.intervals import BedRow, Interval, overlap


class Lengths(GenomeReader):
    """A genome of A, with N where asked."""

    def __init__(self, n: Sequence[Interval] = (), **contigs: int) -> None:
        self.name, self.path, self.contigs = "toy", Path("toy.fa"), contigs
        self._n = n

    def cased_tokens(self, contig: str, start: int, stop: int) -> Ids:
        self.require_range(contig, start, stop)
        ids = np.full(stop - start, A, dtype=np.uint8)
        for gap in self._n:
            if gap.contig == contig:
                ids[max(0, gap.start - start) : max(0, gap.stop - start)] = N
        return ids


def assert_apart_and_complete(genome: GenomeReader, split: Split, complete: bool = True) -> None:
    parts = [split.part(part) for part in PARTS]
    for i, one in enumerate(parts):
        for other in parts[i + 1 :]:
            assert overlap(one.intervals, other.intervals) is None
    if complete:
        assert sum(part.bases for part in parts) == genome.bases


def rows(*texts: str) -> list[BedRow]:
    found = []
    for line, text in enumerate(texts, start=1):
        place, _, name = text.partition(" ")
        found.append(BedRow(Interval.parse(place), name or None, line))
    return found


GENOME = Lengths(a=1000, b=500, c=0)


def test_split_from_bed() -> None:
    bed = rows(
        "b:1-100 train", "a:1-500 train", "a:501-600 train", "a:700-800 valid", "b:200-300 test"
    )
    split = split_from_bed(GENOME, bed, where="x.bed")
    assert split.train.intervals == (Interval("a", 0, 600), Interval("b", 0, 100))
    assert split.valid == Regions("toy", (Interval("a", 699, 800),))
    assert (split.test.bases, split.train.bases) == (101, 700)
    assert_apart_and_complete(GENOME, split, complete=False)


@pytest.mark.parametrize(
    ("bed", "message"),
    [
        (rows("a:1-5 train", "a:9-10 validation"), "x.bed:2: the 4th column is 'validation'; it"),
        (rows("a:1-5"), "x.bed:1: the 4th column is missing; it must be train, valid or test"),
        (rows("chra:1-5 train"), "x.bed:1: toy.fa has no contig 'chra'"),
        (rows("a:1-1001 train"), "x.bed:1: a:1-1001 runs past the end"),
        (rows("a:1-50 train", "a:41-60 test"), "x.bed: a:41-50 is both train and test"),
        (rows("a:1-50 valid", "a:41-60 test"), "x.bed: a:41-50 is both valid and test"),
        ([], "x.bed: holds no rows"),
    ],
)
def test_bad_bed_is_refused(bed: list[BedRow], message: str) -> None:
    with pytest.raises(InputError) as caught:
        split_from_bed(GENOME, bed, where="x.bed")
    assert message in str(caught.value)


def test_split_by_contigs() -> None:
    genome = Lengths(z=10, II=20, III=30, IV=40)
    split = split_by_contigs(genome, valid=["II"], test=["IV"])
    assert split.train.intervals == (Interval("z", 0, 10), Interval("III", 0, 30))  # file's order
    assert split.valid.intervals == (Interval("II", 0, 20),)
    assert split.test.intervals == (Interval("IV", 0, 40),)
    assert_apart_and_complete(genome, split)
    assert split_by_contigs(genome).train == whole_genome(genome)


def test_bad_contigs_are_refused() -> None:
    with pytest.raises(InputError, match=r"no contig 'chrIV'; it has a, b, c"):
        split_by_contigs(GENOME, valid=["chrIV"])
    with pytest.raises(InputError, match=r"'a' is named for valid and for test"):
        split_by_contigs(GENOME, valid=["a"], test=["a"])
    with pytest.raises(InputError, match=r"all contigs are held out"):
        split_by_contigs(GENOME, valid=["a"], test=["b"])


@given(st.dictionaries(st.sampled_from("abcdefghij"), st.integers(0, 60_000), min_size=1))
def test_default_split_holds_out_about_a_twentieth(contigs: dict[str, int]) -> None:
    genome = Lengths(**contigs)
    if genome.bases < 4000:
        with pytest.raises(InputError, match="too few to hold some out"):
            default_split(genome)
        return
    split = default_split(genome)
    assert_apart_and_complete(genome, split)
    for part in (split.valid, split.test):
        assert 0.05 * genome.bases <= part.bases <= 0.076 * genome.bases
    assert default_split(genome) == split


def test_default_split_of_a_bacterium_and_of_a_human() -> None:
    bacterium = default_split(Lengths(chromosome=4_600_000))
    assert 1 <= len(bacterium.valid.intervals) <= 3
    assert min(i.length for i in bacterium.valid.intervals) >= 100_000
    human = default_split(Lengths(**{f"chr{i}": 140_000_000 for i in range(22)}))
    assert 100 <= len(human.valid.intervals) <= 155
    assert len({i.contig for i in human.valid.intervals}) > 15
    assert max(i.length for i in human.valid.intervals) >= 900_000


def test_default_split_holds_out_bases_not_n() -> None:
    gap = Interval("x", 0, 750_000)
    split = default_split(Lengths(n=[gap], x=1_000_000))
    for part in (split.valid, split.test):
        assert part.bases >= 50_000
        assert overlap(part.intervals, [Interval("x", 0, 740_000)]) is None
    with pytest.raises(InputError, match=r"toy.fa: nearly all N"):
        default_split(Lengths(n=[Interval("x", 0, 980_000)], x=1_000_000))


def test_default_split_never_changes() -> None:
    """The rule is part of every run that used it: a change would leak test bases into training."""
    split = default_split(Lengths(I=230_218, II=813_184, III=316_620, IV=1_531_933))
    assert [str(i) for i in split.valid.intervals] == VALID
    assert [str(i) for i in split.test.intervals] == TEST


VALID = ["II:135531-203296", "IV:765967-835599", "IV:1183767-1253399"]
TEST = ["II:406593-474357", "III:189973-253296", "IV:348167-417799"]


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    length=st.integers(1, 25),
    data=st.data(),
)
def test_tiles_score_every_base_once(lengths: list[int], length: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, length))
    intervals = [Interval(f"c{i}", 7, 7 + size) for i, size in enumerate(lengths)]
    regions = Regions("toy", tuple(intervals))
    scored: Counter[tuple[str, int]] = Counter()
    bounds = {i.contig: i for i in intervals}
    for window in tile(regions, length, stride=stride):
        region = bounds[window.contig]
        assert region.start <= window.start < window.stop <= region.stop
        assert 2 <= window.stop - window.start <= length + 1
        for target in range(window.score_from, window.stop - window.start - 1):
            scored[window.contig, window.start + target + 1] += 1
            context = target + 1
            assert context >= min(length - stride, window.start + target + 1 - region.start)
    assert scored == Counter((i.contig, p) for i in intervals for p in range(i.start + 1, i.stop))


def test_tile_without_overlap() -> None:
    windows = list(tile(Regions("toy", (Interval("a", 10, 22),)), 5))
    assert [(w.start, w.stop, w.score_from) for w in windows] == [
        (10, 16, 0),
        (15, 21, 0),
        (20, 22, 0),
    ]


@pytest.mark.parametrize(("length", "stride"), [(0, None), (5, 0), (5, 6)])
def test_tile_refuses_bad_strides(length: int, stride: int | None) -> None:
    with pytest.raises(InputError, match=r"stride is in 1 \.\. length"):
        next(tile(Regions("toy", (Interval("a", 0, 20),)), length, stride=stride))


def test_yeast_splits(shared: Path, tmp_path: Path) -> None:
    path = shared / "data/yeast_R64/Saccharomyces_cerevisiae.R64-1-1.fa.gz"
    genome = Genome.open(path, cache=tmp_path)
    split = split_by_contigs(genome, valid=["IV"], test=["XV"])
    assert split.valid.bases == genome.contigs["IV"]
    assert_apart_and_complete(genome, split)
    assert_apart_and_complete(genome, default_split(genome))
