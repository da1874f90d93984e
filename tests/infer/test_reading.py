"""Chunks cover a sequence, count each base once, and never more of it than the model reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyenadna.config import ModelConfig
from hyenadna.errors import InputError
from hyenadna.infer.reading import Chunk, make_reading

CONFIG = ModelConfig(d_model=8, n_layer=1, max_seq_len=66, filter_order=8)


@given(
    bases=st.integers(0, 400),
    length=st.integers(1, 66),
    overlap=st.integers(0, 65),
    bin=st.one_of(st.none(), st.integers(1, 66)),
)
def test_each_base_counts_once_where_most_is_before_it(bases, length, overlap, bin):
    per = "sequence" if bin is None else "bin"
    bin = None if bin is None else min(bin, length)
    most = (length // (bin or 1)) * (bin or 1) - 1
    reading = make_reading(CONFIG, per=per, length=length, overlap=min(overlap, most), bin=bin)
    chunks = list(reading.chunks(bases))
    counted = [base for chunk in chunks for base in range(chunk.fresh, chunk.stop)]
    assert counted == list(range(bases))
    assert all(chunk.stop - chunk.start <= reading.length for chunk in chunks)
    assert len(chunks) == reading.count(bases)
    assert sum(chunk.stop - chunk.start for chunk in chunks) == reading.tokens(bases)
    for chunk in chunks:
        # at least the overlap stands before a base that counts, or all there is
        assert chunk.fresh - chunk.start >= min(reading.overlap, chunk.fresh)
        assert chunk.fresh % (reading.bin or 1) == 0
        if reading.overlap and bases >= reading.length:
            assert chunk.stop - chunk.start == reading.length
    rows = sum(-(-(c.stop - c.fresh) // reading.bin) for c in chunks) if reading.bin else 1
    assert rows == reading.rows(bases)


def test_what_is_meant_when_nothing_is_said():
    reading = make_reading(CONFIG)
    assert (reading.length, reading.overlap, reading.bin) == (64, 32, None)
    assert list(reading.chunks(100)) == [Chunk(0, 64, 0), Chunk(32, 96, 64), Chunk(36, 100, 96)]
    assert make_reading(CONFIG, per="base").overlap == 32
    bins = make_reading(CONFIG, per="bin", bin=10)
    assert (bins.length, bins.overlap, bins.rows(101)) == (60, 0, 11)
    assert list(bins.chunks(100)) == [Chunk(0, 60, 0), Chunk(60, 100, 60)]
    last = make_reading(CONFIG, pool="last")
    assert list(last.chunks(100)) == [Chunk(36, 100, 99)] and last.tokens(100) == 64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 67}, "--length is 67; this model reads 1 to 66 bases"),
        ({"length": 0}, "--length is 0; this model reads"),
        ({"length": 60, "soft_tokens": 7}, "reads 1 to 59 bases behind 7 soft tokens"),
        ({"per": "bin", "length": 20, "bin": 21}, "--bin is 21; it must be 1 to .* window, 20"),
        ({"per": "bin", "bin": 0}, "--bin is 0"),
        ({"per": "base", "bin": 3}, "--bin is for --per bin; leave it out with --per base"),
        ({"per": "base", "pool": "last"}, "--pool last is of a whole sequence"),
        ({"overlap": 64}, "--overlap is 64; it must be 0 to one less than .* window, 64"),
        ({"overlap": -1}, "--overlap is -1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        make_reading(CONFIG, **options)
