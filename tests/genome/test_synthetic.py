"""The made genome: its exact figures against enumeration, and its structure against its promise."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenadna.alphabet import encode
from hyenadna.errors import InputError
from hyenadna.genome.markov import MarkovModel
from hyenadna.genome.synthetic import (
    SegmentKind,
    SyntheticContig,
    SyntheticGenome,
)
from hyenadna.genome.write_fasta import write_fasta

TOY = SyntheticGenome(
    (
        SegmentKind(name="plain", motif="AC", weight=2, fresh=1, copied=3, lag=1, keep=0.4),
        SegmentKind(name="tandem", motif="AG", weight=1, fresh=2, copied=3, lag=2, keep=0.7),
        SegmentKind(
            name="hairpin", motif="TG", weight=1, fresh=3, copied=2, lag=2, keep=0.9, inverted=True
        ),
    ),
    gc=0.3,
)


def segment_chances(genome: SyntheticGenome, kind: SegmentKind) -> dict[tuple[int, ...], float]:
    """p(all bases of a segment) for every possible body, from the words of the class docstring."""
    q = genome.composition
    motif = tuple("ACGT".index(letter) for letter in kind.motif)
    chances = {}
    for body in itertools.product(range(4), repeat=kind.fresh + kind.copied):
        p = 1.0
        for i, x in enumerate(body):
            if i < kind.fresh:
                p *= q[x]
                continue
            j = i - kind.fresh
            source = 3 - body[i - kind.lag - 2 * j] if kind.inverted else body[i - kind.lag]
            p *= kind.keep * (x == source) + (1 - kind.keep) * q[x]
        chances[motif + body] = p
    return chances


def enumerated_bits(
    genome: SyntheticGenome, contig: SyntheticContig, context: int | None
) -> list[float]:
    """-log2 p(base | parse, last `context` bases) by summing over every possible segment.

    In the header the parse is the offset only; in the body it is kind and offset.
    """
    tables = [segment_chances(genome, kind) for kind in genome.kinds]
    bases = (contig.ids - 7).tolist()
    bits = []
    for t, (index, at) in enumerate(zip(contig.kind.tolist(), contig.offset.tolist(), strict=True)):
        in_header = at < len(genome.kinds[index].motif)
        possible = range(len(genome.kinds)) if in_header else [index]
        seen = at if context is None else min(context, at)
        past, now = tuple(bases[t - seen : t]), bases[t]
        joint = np.zeros(4)
        for k in possible:
            for word, p in tables[k].items():
                if word[at - seen : at] == past:
                    joint[word[at]] += genome.weights[k] * p
        bits.append(-math.log2(joint[now] / joint.sum()))
    return bits


@pytest.mark.parametrize("context", [None, 0, 1, 2, 3, 4, 5])
def test_bits_equal_the_sum_over_all_segments(context: int | None) -> None:
    [contig] = TOY.generate(120, seed=3)
    assert set(contig.kind.tolist()) == {0, 1, 2}
    assert TOY.bits(contig, context) == pytest.approx(enumerated_bits(TOY, contig, context))


def test_a_limit_for_each_base_is_that_limit_at_that_base() -> None:
    [contig] = TOY.generate(100, seed=4)
    limits = np.arange(100) % 6
    bits = TOY.bits(contig, limits)
    for c in range(6):
        np.testing.assert_array_equal(bits[limits == c], TOY.bits(contig, c)[limits == c])


@pytest.mark.parametrize("context", [None, 0, 1, 2, 3, 5])
def test_bound_equals_the_expectation_over_all_segments(context: int | None) -> None:
    # Enumerate every segment once, weigh it by its chance, and price it by the slow twin.
    bits = length = 0.0
    for index, kind in enumerate(TOY.kinds):
        for word, p in segment_chances(TOY, kind).items():
            if p == 0:
                continue
            contig = SyntheticContig(
                name="one",
                ids=np.array(word, dtype=np.uint8) + np.uint8(7),
                kind=np.full(kind.length, index, np.uint8),
                offset=np.arange(kind.length, dtype=np.int32),
            )
            bits += TOY.weights[index] * p * TOY.bits(contig, context).sum()
        length += TOY.weights[index] * kind.length
    assert TOY.bound_by_context(context) == pytest.approx(bits / length, rel=1e-12)


@pytest.mark.parametrize("genome", [TOY, SyntheticGenome()], ids=["toy", "default"])
@pytest.mark.parametrize("context", [None, 0, 1, 16])
def test_bound_equals_the_mean_of_a_long_sample(
    genome: SyntheticGenome, context: int | None
) -> None:
    [contig] = genome.generate(400_000, seed=5)
    bits = genome.bits(contig, context)
    # The mean of 200 stretches gives its own sampling error; 4.5 of them, and the seed is fixed.
    means = bits.reshape(200, -1).mean(axis=1)
    error = means.std(ddof=1) / math.sqrt(200)
    assert abs(bits.mean() - genome.bound_by_context(context)) < 4.5 * error
    assert error < 0.02


@pytest.mark.parametrize("genome", [TOY, SyntheticGenome()], ids=["toy", "default"])
def test_bound_falls_with_context_to_the_entropy_rate(genome: SyntheticGenome) -> None:
    bounds = [genome.bound_by_context(c) for c in range(genome.longest_lag + 10)]
    assert all(a >= b for a, b in itertools.pairwise(bounds))
    assert bounds[genome.longest_lag - 1] > bounds[genome.longest_lag]
    assert bounds[-1] == genome.entropy_rate
    assert 0 < genome.entropy_rate < bounds[0] <= 2


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 40), st.integers(0, 60), st.floats(0, 1), st.floats(0.05, 0.95), st.booleans()
)
def test_any_process_keeps_its_laws(
    lag: int, copied: int, keep: float, gc: float, inverted: bool
) -> None:
    kinds = (
        SegmentKind(name="a", motif="ACG", weight=1, fresh=7),
        SegmentKind(
            name="b",
            motif="TTG",
            weight=2,
            fresh=lag + copied,
            copied=copied,
            lag=lag,
            keep=keep,
            inverted=inverted,
        ),
    )
    genome = SyntheticGenome(kinds, gc)
    contexts = sorted((0, 1, lag - 1, lag, lag + 1, lag + 2 * copied))
    bounds = [genome.bound_by_context(c) for c in contexts]
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(bounds))
    [contig] = genome.generate(500, seed=1)
    bits = genome.bits(contig)
    assert np.isfinite(bits).all()
    assert (bits >= 0).all()


def test_same_seed_same_genome() -> None:
    genome = SyntheticGenome()
    one, two = genome.generate(5000, seed=7, contigs=2)
    again = genome.generate(5000, seed=7, contigs=3)
    for a, b in zip((one, two), again, strict=False):
        np.testing.assert_array_equal(a.ids, b.ids)
        np.testing.assert_array_equal(a.kind, b.kind)
        np.testing.assert_array_equal(a.offset, b.offset)
    assert (one.ids != two.ids).mean() > 0.5
    assert (one.ids != genome.generate(5000, seed=8)[0].ids).mean() > 0.5
    assert [c.name for c in again] == ["syn1", "syn2", "syn3"]


def test_composition_is_the_same_in_copies_as_in_fresh_bases() -> None:
    genome = SyntheticGenome(TOY.kinds, gc=0.2)
    [contig] = genome.generate(200_000, seed=9)
    for index, kind in enumerate(genome.kinds):
        for at in range(len(kind.motif), kind.length):
            bases = contig.ids[(contig.kind == index) & (contig.offset == at)]
            gc = ((bases == 8) | (bases == 9)).mean()
            assert gc == pytest.approx(0.2, abs=0.02)


def test_copies_stand_at_their_lag() -> None:
    genome = SyntheticGenome()
    [contig] = genome.generate(200_000, seed=10)
    position = np.arange(contig.ids.size)
    for index, kind in enumerate(genome.kinds):
        if not kind.copied:
            continue
        of_kind = contig.kind == index
        lag = kind.lags[np.where(of_kind, contig.offset, 0)]
        copy = of_kind & (lag > 0)
        now, source = contig.ids[copy], contig.ids[(position - lag)[copy]]
        source = 17 - source if kind.inverted else source
        expected = kind.keep + (1 - kind.keep) * (genome.composition**2).sum()
        assert (now == source).mean() == pytest.approx(expected, abs=0.01)
        # One base nearer there is no such likeness (unless the lag is that of a Markov chain).
        if kind.lag > 2 and not kind.inverted:
            near = contig.ids[(position - lag + 1)[copy]]
            assert (now == near).mean() < 0.3


def test_headers_stand_where_the_parse_says() -> None:
    genome = SyntheticGenome()
    [contig] = genome.generate(50_000, seed=11)
    starts = np.flatnonzero(contig.offset == 0)
    for start in starts[:-1]:
        motif = genome.kinds[contig.kind[start]].motif
        np.testing.assert_array_equal(contig.ids[start : start + len(motif)], encode(motif))
    lengths = np.array([kind.length for kind in genome.kinds])
    np.testing.assert_array_equal(np.diff(starts), lengths[contig.kind[starts[:-1]]])


def test_a_markov_model_of_order_8_gains_little_where_context_gains_much() -> None:
    # What the genome is for: the short-context yardstick stays far above the bound.
    genome = SyntheticGenome()
    train, test = (c.ids for c in genome.generate(300_000, seed=12, contigs=2))
    bits = MarkovModel.fit([train], order=8, both_strands=False).bits_per_base([test])
    assert genome.bound_by_context(8) - 0.01 < bits[8] < 2.01
    assert bits[8] > genome.entropy_rate + 0.9


def test_fasta_holds_the_letters(tmp_path: Path) -> None:
    contigs = TOY.generate(205, seed=13, contigs=2)
    path = write_fasta(contigs, tmp_path / "syn.fa")
    records = path.read_text().split(">")[1:]
    assert [r.split("\n")[0] for r in records] == ["syn1", "syn2"]
    for record, contig in zip(records, contigs, strict=True):
        lines = record.split("\n")[1:-1]
        assert [len(line) for line in lines] == [80, 80, 45]
        np.testing.assert_array_equal(encode("".join(lines)), contig.ids)
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "syn.fa"
    path.write_text("old")

    def broken():
        yield TOY.generate(10, seed=1)[0]
        raise RuntimeError("broken off")

    with pytest.raises(RuntimeError):
        write_fasta(broken(), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def kind(**changes) -> SegmentKind:
    return SegmentKind(**({"name": "k", "motif": "ACGT", "weight": 1, "fresh": 10} | changes))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: kind(motif="ACN"), "motif is 'ACN'; letters ACGT only"),
        (lambda: kind(weight=0), "weight is 0"),
        (lambda: kind(fresh=0), "fresh is 0"),
        (lambda: kind(copied=4, lag=11), r"lag is 11; it must be in 1\.\.fresh = 10"),
        (lambda: kind(copied=4, lag=2, keep=1.1), "keep is 1.1"),
        (lambda: kind(copied=7, lag=5, inverted=True), "the mirrored arm has only 6 bases"),
        (lambda: SyntheticGenome(()), "0 kinds of segment"),
        (lambda: SyntheticGenome((kind(), kind())), "must differ and have one length"),
        (lambda: SyntheticGenome((kind(), kind(motif="ACG"))), "must differ and have one length"),
        (lambda: SyntheticGenome((kind(),), gc=1.0), "gc is 1.0"),
        (lambda: TOY.generate(0, 1), "length is 0"),
        (lambda: TOY.generate(10, -1), "seed is -1"),
        (lambda: TOY.bound_by_context(-1), "context_limit is -1"),
        (lambda: TOY.bits(TOY.generate(9, 1)[0], np.zeros(8, int)), r"shape \(8,\)"),
    ],
)
def test_bad_input_says_what_is_wrong(call, text: str) -> None:
    with pytest.raises(InputError, match=text):
        call()
