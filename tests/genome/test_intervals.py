"""Intervals: their text, BED files, and set operations against sets of positions."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyenadna.errors import InputError
from hyenadna.genome.intervals import (
    BedRow,
    Interval,
    merge,
    overlap,
    read_bed,
    require_within,
    subtract,
)

INTERVALS = st.lists(
    st.builds(
        lambda contig, start, length: Interval(contig, start, start + length),
        st.sampled_from(["a", "b"]),
        st.integers(0, 40),
        st.integers(0, 15),
    ),
    max_size=8,
)


def positions(intervals: list[Interval]) -> set[tuple[str, int]]:
    return {(i.contig, p) for i in intervals for p in range(i.start, i.stop)}


def is_canonical(intervals: list[Interval]) -> bool:
    pairs = itertools.pairwise(intervals)
    apart = all(a.contig < b.contig or a.stop < b.start for a, b in pairs)
    return apart and all(i.length for i in intervals)


def test_text_counts_from_1_and_takes_commas() -> None:
    assert Interval.parse("chr1:1-100") == Interval("chr1", 0, 100)
    assert Interval.parse(" chr2:1,001-2,000 ") == Interval("chr2", 1000, 2000)
    assert Interval.parse("HLA-A*01:01:5-5") == Interval("HLA-A*01:01", 4, 5)


@given(st.integers(0, 10**9), st.integers(1, 10**9))
def test_text_round_trip(start: int, length: int) -> None:
    interval = Interval("X", start, start + length)
    assert Interval.parse(str(interval)) == interval
    assert interval.length == length


@pytest.mark.parametrize("text", ["chr1", "chr1:5", "chr1:a-b", "chr1:-5-10", "", ":1-2", "a:,-,"])
def test_bad_text_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"interval '"):
        Interval.parse(text)


@pytest.mark.parametrize("text", ["chr1:0-5", "chr1:9-5"])
def test_text_out_of_order_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="count from 1"):
        Interval.parse(text)


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (6, 5)])
def test_interval_out_of_order_is_refused(start: int, stop: int) -> None:
    with pytest.raises(InputError, match="0 <= start <= stop"):
        Interval("a", start, stop)


@given(INTERVALS)
def test_merge_keeps_the_bases(a: list[Interval]) -> None:
    merged = merge(a)
    assert positions(merged) == positions(a)
    assert is_canonical(merged)


@given(INTERVALS, INTERVALS)
def test_subtract_is_set_difference(a: list[Interval], b: list[Interval]) -> None:
    rest = subtract(a, b)
    assert positions(rest) == positions(a) - positions(b)
    assert is_canonical(rest)


@given(INTERVALS, INTERVALS)
def test_overlap_finds_common_bases(a: list[Interval], b: list[Interval]) -> None:
    common = positions(a) & positions(b)
    shared = overlap(a, b)
    assert (shared is not None) == bool(common)
    assert shared is None or positions([shared]) <= common


BED = (
    b"# comment\r\ntrack name=x\r\nbrowser position chr1\r\n\r\n"
    b"chr1\t0\t10\ttrain\t0\t+\r\nchr2 5 6\r\nchr2\t7\t7\t\r\n"
)
ROWS = [
    BedRow(Interval("chr1", 0, 10), "train", 5),
    BedRow(Interval("chr2", 5, 6), None, 6),
    BedRow(Interval("chr2", 7, 7), None, 7),
]


def test_bed_plain_and_gzip_with_windows_line_ends(tmp_path: Path) -> None:
    (tmp_path / "x.bed").write_bytes(BED)
    (tmp_path / "x.bed.gz").write_bytes(gzip.compress(BED))
    assert read_bed(tmp_path / "x.bed") == ROWS
    assert read_bed(tmp_path / "x.bed.gz") == ROWS


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("chr1\t5", "this has 2 columns"),
        ("chr1", "this has 1 column:"),
        ("chrom\tstart\tend", "start is 'start', not a whole number"),
        ("chr1\t-1\t5", "start is '-1'"),
        ("chr1\t1\t5.5", "stop is '5.5'"),
        ("chr1\t9\t5", "start 9 is behind stop 5"),
        ("\t1\t5", "contig name is empty"),
    ],
)
def test_bed_errors_name_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "bad.bed"
    path.write_text(f"chr1\t0\t1\n{line}\n")
    with pytest.raises(InputError) as caught:
        read_bed(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert message in str(caught.value)


def test_bed_missing_or_truncated(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such BED file"):
        read_bed(tmp_path / "none.bed")
    cut = tmp_path / "cut.bed.gz"
    cut.write_bytes(gzip.compress(BED * 50)[:-12])
    with pytest.raises(InputError, match="truncated or damaged"):
        read_bed(cut)


def test_unknown_contig_gives_a_hint_and_is_never_translated() -> None:
    contigs = {"chr1": 100, "chr2": 50}
    with pytest.raises(InputError, match=r"x.bed:3: g.fa has no contig '1'; .*rename one of the"):
        require_within(Interval("1", 0, 5), contigs, genome="g.fa", where="x.bed:3")
    with pytest.raises(InputError, match=r"chr2:1-51 runs past the end of chr2 .* 50 bases"):
        require_within(Interval("chr2", 0, 51), contigs, genome="g.fa")
    require_within(Interval("chr2", 0, 50), contigs, genome="g.fa")


def test_yeast_genes(shared: Path) -> None:
    rows = read_bed(shared / "data/yeast_R64_beds/orfs.bed.gz")
    assert rows[0] == BedRow(Interval("chrI", 1806, 2169), "PAU8", 1)
    assert len(rows) > 4000
