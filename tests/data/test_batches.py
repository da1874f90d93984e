"""The training stream and evaluation batches: laws on resuming, shards, coverage and edges."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenadna.alphabet import PAD, A, C, G, Ids, N, T, encode, reverse_complement_ids
from hyenadna.data.batches import (
    IGNORED,
    TrainingSource,
    TrainingStream,
    evaluation_batches,
)
from hyenadna.data.strata import random_bits, shuffled
from hyenadna.data.windows import Regions, default_split, split_by_contigs, whole_genome
from hyenadna.errors import InputError
from hyenadna.genome.fasta import SOFT_MASK, Genome, GenomeReader, LoadedGenome
from hyenadna.genome.intervals import Interval


class TextGenome(GenomeReader):
    """A genome from letters, for tests."""

    def __init__(self, name: str = "toy", **contigs: str) -> None:
        self.name, self.path = name, Path(f"{name}.fa")
        self.contigs = {contig: len(letters) for contig, letters in contigs.items()}
        lower = {c: np.array([x.islower() for x in text], bool) for c, text in contigs.items()}
        self._ids = {
            c: encode(text) | lower[c].astype(np.uint8) * np.uint8(SOFT_MASK)
            for c, text in contigs.items()
        }

    def cased_tokens(self, contig: str, start: int, stop: int) -> Ids:
        self.require_range(contig, start, stop)
        return self._ids[contig][start:stop]


def random_letters(length: int, seed: int = 0, letters: str = "ACGT") -> str:
    return "".join(np.random.default_rng(seed).choice(list(letters), length))


def regions(*intervals: tuple[str, int, int]) -> Regions:
    return Regions("toy", tuple(Interval(*interval) for interval in intervals))


def stream_of(
    genome: GenomeReader, *intervals: tuple[str, int, int], **options: Any
) -> TrainingStream:
    part = regions(*intervals) if intervals else whole_genome(genome)
    options = {"length": 8, "batch_size": 4, "seed": 1} | options
    return TrainingStream([TrainingSource(genome, part)], **options)


def two_genomes(
    seed: int = 5, weights: Sequence[float | None] = (None, None), **options: Any
) -> TrainingStream:
    one = TextGenome("one", a=random_letters(3000, 1), b=random_letters(70, 2))
    two = TextGenome("two", a=random_letters(1000, 3))
    sources = [
        TrainingSource(genome, whole_genome(genome), weight)
        for genome, weight in zip((one, two), weights, strict=True)
    ]
    return TrainingStream(sources, **({"length": 16, "batch_size": 6, "seed": seed} | options))


def same(one: tuple[torch.Tensor, torch.Tensor], other: tuple[torch.Tensor, torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


SHAPES = st.lists(
    st.tuples(st.integers(1, 40), st.sampled_from([1, 4, 16, 50, 300])), min_size=2, max_size=8
)


def test_targets_are_the_next_inputs() -> None:
    stream = two_genomes()
    inputs, targets = stream.batch(32, 64)
    assert inputs.shape == targets.shape == (32, 64)
    assert inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert set(inputs.unique().tolist()) <= {A, C, G, T}


@given(st.integers(0, 2**63), SHAPES, st.data())
@settings(max_examples=40, deadline=None)
def test_resumed_stream_equals_the_unbroken_one(
    seed: int, shapes: list[tuple[int, int]], data: st.DataObject
) -> None:
    unbroken = two_genomes(seed)
    batches = [unbroken.batch(*shape) for shape in shapes]
    cut = data.draw(st.integers(0, len(shapes)))
    first = two_genomes(seed)
    for shape in shapes[:cut]:
        first.batch(*shape)
    resumed = two_genomes(seed)
    resumed.batch(3, 7)  # a stream that has moved on is set back too
    resumed.load_state(json.loads(json.dumps(first.state())))
    for shape, expected in zip(shapes[cut:], batches[cut:], strict=True):
        assert same(resumed.batch(*shape), expected)
    assert resumed.state() == unbroken.state()
    assert resumed.samples == sum(size for size, _ in shapes)


@given(SHAPES, st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_shards_are_the_rows_of_the_global_batch(shapes: list[tuple[int, int]], ranks: int) -> None:
    whole, shards = two_genomes(), [two_genomes() for _ in range(ranks)]
    for size, length in shapes:
        expected = whole.batch(size + ranks, length)
        for rank, shard in enumerate(shards):
            mine = shard.batch(size + ranks, length, rank=rank, ranks=ranks)
            assert same(mine, (expected[0][rank::ranks], expected[1][rank::ranks]))
    assert all(shard.state() == whole.state() for shard in shards)


@given(
    ends=st.lists(st.integers(0, 400), min_size=2, max_size=12, unique=True),
    length=st.sampled_from([1, 2, 5, 33, 150]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_no_base_outside_the_regions_is_seen(ends: list[int], length: int, seed: int) -> None:
    """Regions hold only A, all else is C; without the other strand no C may turn up."""
    ends = sorted(ends)[: len(ends) // 2 * 2]
    spans = [("x", a, b) for a, b in zip(ends[::2], ends[1::2], strict=True)]
    letters = ["C"] * 400
    for _, start, stop in spans:
        letters[start:stop] = "A" * (stop - start)
    if all(stop - start < 2 for _, start, stop in spans):
        return
    stream = stream_of(TextGenome(x="".join(letters)), *spans, seed=seed, reverse_complement=False)
    inputs, targets = stream.batch(64, length)
    assert set(inputs.unique().tolist()) <= {A, PAD}
    assert set(targets.unique().tolist()) <= {A, IGNORED}


def test_plan_tells_where_the_rows_come_from() -> None:
    stream = two_genomes()
    for _ in range(20):
        draws = stream.plan()
        inputs, targets = stream.batch()
        for draw, row, target in zip(draws, inputs, targets, strict=True):
            genome = stream.sources[draw.genome].genome
            ids = genome.tokens(draw.contig, draw.start, draw.stop)
            ids = reverse_complement_ids(ids) if draw.reverse else ids
            assert row.tolist() == ids[:-1].tolist()
            assert target.tolist() == ids[1:].tolist()


def test_other_strand_rows_are_reverse_complements() -> None:
    """With and without the other strand the same windows come; about half are turned."""
    letters = random_letters(5000, 7, "ACGTacgt")
    both, forward = (
        stream_of(TextGenome(x=letters), reverse_complement=rc, soft_masked="ignore", length=40)
        for rc in (True, False)
    )
    turned = 0
    for _ in range(100):
        draws = both.plan()
        assert [d._replace(reverse=False) for d in draws] == forward.plan()
        inputs, targets = both.batch()
        plain, _ = forward.batch()
        for draw, row, target, other in zip(draws, inputs, targets, plain, strict=True):
            text = letters[draw.start : draw.stop]
            assert other.tolist() == encode(text[:-1]).tolist()
            if draw.reverse:
                text = text.translate(str.maketrans("ACGTacgt", "TGCAtgca"))[::-1]
            assert row.tolist() == encode(text[:-1]).tolist()
            ids = encode(text[1:]).tolist()
            kept = [i if x.isupper() else IGNORED for i, x in zip(ids, text[1:], strict=True)]
            assert target.tolist() == kept
            turned += draw.reverse
    assert 150 < turned < 250


@pytest.mark.parametrize("length", [8, 50, 97])
def test_a_pass_visits_every_stratum_once_with_fresh_crops(length: int) -> None:
    stream = stream_of(TextGenome(x=random_letters(5000)), length=length, reverse_complement=False)
    count = stream.windows_per_pass(length)
    assert count == round(4999 / length)
    passes = []
    for _ in range(2):
        draws = stream.plan(count)
        stream.batch(count)
        assert [d.start for d in draws] != sorted(d.start for d in draws)
        starts = np.sort([d.start for d in draws])
        # One target in each stratum: its window starts half a length before, clipped to the ends.
        edges = np.arange(count + 1) * 4999 // count - length // 2
        low, high = (np.clip(e, 0, 5000 - length - 1) for e in (edges[:-1], edges[1:]))
        assert (starts >= low).all()
        assert (starts <= high).all()
        passes.append(starts.tolist())
    assert passes[0] != passes[1]
    assert stream.state()["position"]["positions"] == [0]
    assert stream.state()["position"]["passes"] == [2]


def test_every_base_is_covered_about_alike() -> None:
    """Over many passes: the mean is one target a base and pass, at the ends too within a factor."""
    genome = TextGenome(x=random_letters(2000), y=random_letters(330), z=random_letters(40))
    stream = stream_of(genome, length=64)
    count, passes = stream.windows_per_pass(), 400
    seen = {contig: np.zeros(length) for contig, length in genome.contigs.items()}
    for _ in range(passes):
        for draw in stream.plan(count):
            seen[draw.contig][draw.start + 1 : draw.stop] += 1 / passes
        stream.batch(count)
    middle = seen["x"][100:-100]
    assert abs(middle.mean() - 1) < 0.02
    assert middle.min() > 0.85
    assert middle.max() < 1.15
    for contig, covered in seen.items():
        assert 0.4 < covered[1:].min() <= covered[1:].max() < 1.7, contig
        assert 0.8 < covered[1:].mean() < 1.2, contig
    assert np.allclose(seen["z"][1:], 1)  # shorter than a window: once a pass, whole


def test_regions_shorter_than_the_window_are_padded_on_the_right() -> None:
    stream = stream_of(TextGenome(x="ACGTTGCAAC"), ("x", 2, 7), length=9, reverse_complement=False)
    inputs, targets = stream.batch(3)
    assert inputs.tolist() == [[G, T, T, G, C, PAD, PAD, PAD, PAD]] * 3
    assert targets.tolist() == [[T, T, G, C] + [IGNORED] * 5] * 3
    turned = stream_of(TextGenome(x="ACGTTGCAAC"), ("x", 2, 7), length=9)
    rows = {tuple(row) for row in turned.batch(40)[0].tolist()}
    pads = (PAD,) * 4
    assert rows == {(G, T, T, G, C, *pads), (G, C, A, A, C, *pads)}


def test_regions_of_one_base_are_passed_over() -> None:
    stream = stream_of(TextGenome(x="ACGTACGT"), ("x", 0, 1), ("x", 3, 8), length=4)
    assert {draw.start for draw in stream.plan(50)} <= {3}


def test_n_and_lower_case_targets() -> None:
    genome = TextGenome(x="ANcgTNaAGR")
    expected = {
        ("keep", "ignore"): [IGNORED, C, G, T, IGNORED, A, A, G, IGNORED],
        ("keep", "count"): [N, C, G, T, N, A, A, G, N],
        ("ignore", "ignore"): [IGNORED, IGNORED, IGNORED, T, IGNORED, IGNORED, A, G, IGNORED],
        ("ignore", "count"): [N, IGNORED, IGNORED, T, N, IGNORED, A, G, N],
    }
    for (soft_masked, n_targets), row in expected.items():
        options: dict[str, Any] = {"soft_masked": soft_masked, "n_targets": n_targets}
        stream = stream_of(genome, length=9, reverse_complement=False, **options)
        inputs, targets = stream.batch(1)
        assert inputs[0].tolist() == [A, N, C, G, T, N, A, A, G]
        assert targets[0].tolist() == row
        (batch,) = evaluation_batches(
            genome, whole_genome(genome), length=9, batch_size=1, **options
        )
        assert batch.targets[0].tolist() == row


def test_windows_rich_in_n_are_replaced() -> None:
    letters = random_letters(300) + "N" * 2000 + random_letters(300, 1) + "n" * 500
    stream = stream_of(TextGenome(x=letters), length=50, max_n_fraction=0.2)
    inputs, _ = stream.batch(300)
    assert ((inputs == N).sum(1) <= 0.2 * 51).all()
    assert (inputs == N).any()
    again = stream_of(TextGenome(x=letters), length=50, max_n_fraction=0.2)
    assert same(
        again.batch(300), stream_of(TextGenome(x=letters), length=50, max_n_fraction=0.2).batch(300)
    )
    all_kept = stream_of(TextGenome(x=letters), length=50, max_n_fraction=1.0)
    assert (all_kept.batch(300)[0] == N).all(1).any()


def test_genome_of_n_is_refused_and_the_position_stays() -> None:
    stream = stream_of(TextGenome(x="N" * 500 + "A"), length=50)
    before = stream.state()
    with pytest.raises(InputError, match=r"toy.fa: 200 windows of 50 bases .* more than 50% N"):
        stream.batch()
    assert stream.state() == before


def test_shares_follow_bases_or_weights() -> None:
    def shares(weights: Sequence[float | None], size: int = 4000) -> float:
        return sum(draw.genome == 0 for draw in two_genomes(weights=weights).plan(size)) / size

    assert shares((None, None)) == pytest.approx(3070 / 4070, abs=0.002)
    assert shares((1, 1)) == pytest.approx(0.5, abs=0.002)
    assert shares((1, 9)) == pytest.approx(0.1, abs=0.002)
    assert shares((1, 3), size=40) == pytest.approx(0.25, abs=0.05)  # even in one small batch


def test_seeds_differ_and_agree() -> None:
    assert same(two_genomes(1).batch(20), two_genomes(1).batch(20))
    assert not same(two_genomes(1).batch(20), two_genomes(2).batch(20))
    assert not same(two_genomes(-1).batch(20), two_genomes(1).batch(20))


def test_batch_never_changes() -> None:
    """A saved position is only worth something while the same counters give the same windows."""
    draws = two_genomes().plan(4)
    assert [(d.genome, d.contig, d.start, d.reverse) for d in draws] == FROZEN


FROZEN = [(1, "a", 262, False), (0, "a", 699, True), (0, "a", 1250, True), (1, "a", 172, True)]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: two_genomes(6), "seed was 5 and is 6"),
        (lambda: two_genomes(weights=(1, 2)), "genome one: weight was 3070.0 and is 1.0"),
        (lambda: two_genomes(max_n_fraction=0.1), "max_n_fraction was 0.5 and is 0.1"),
        (lambda: two_genomes(soft_masked="ignore"), "soft_masked was 'keep' and is 'ignore'"),
        (lambda: two_genomes(reverse_complement=False), "reverse_complement was True and is"),
        (lambda: stream_of(TextGenome(x="ACGT"), seed=5), "number of genomes was 2 and is 1"),
    ],
)
def test_position_of_another_stream_is_refused(other: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        other().load_state(two_genomes().state())
    assert f"cannot go on from the saved data position: {message}" in str(caught.value)


def test_position_of_other_regions_is_refused() -> None:
    genome = TextGenome(x=random_letters(100))
    saved = stream_of(genome, ("x", 0, 90)).state()
    with pytest.raises(InputError, match=r"genome toy: contigs and regions was"):
        stream_of(genome, ("x", 0, 95)).load_state(
            saved | {"sources": [saved["sources"][0] | {"weight": 95.0}]}
        )


@pytest.mark.parametrize("position", [None, {}, {"samples": 1}, {"samples": -1}])
def test_damaged_position_is_refused(position: Any) -> None:
    stream = two_genomes()
    full = stream.state()["position"]
    damaged = position and full | position if position == {"samples": -1} else position
    with pytest.raises(InputError, match="position is damaged"):
        stream.load_state(stream.state() | {"position": damaged})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"soft_masked": "drop"}, "soft_masked is 'drop'; it must be 'keep' or 'ignore'"),
        ({"n_targets": "keep"}, "n_targets is 'keep'; it must be 'ignore' or 'count'"),
        ({"max_n_fraction": 1.5}, "max_n_fraction is 1.5"),
        ({"length": 0}, "batch of 6 x 0"),
        ({"batch_size": 0}, "batch of 0 x 16"),
        ({"weights": (1, None)}, "1 of 2 genomes have a weight"),
        ({"weights": (1, 0)}, "genome two: weight is 0; it must be above 0"),
        ({"weights": (1, float("nan"))}, "genome two: weight is nan"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        two_genomes(**options)
    assert message in str(caught.value)


def test_bad_sources_and_shapes_are_refused() -> None:
    genome = TextGenome(x="ACGT")
    with pytest.raises(InputError, match="no genome to train on"):
        TrainingStream([], length=8, batch_size=1, seed=0)
    with pytest.raises(InputError, match="no region of at least 2 bases"):
        stream_of(genome, ("x", 0, 1))
    with pytest.raises(InputError, match="runs past the end of x"):
        stream_of(genome, ("x", 0, 5))
    for rank, ranks in [(2, 2), (-1, 2), (0, 0)]:
        with pytest.raises(InputError, match=f"rank {rank} of {ranks} ranks; it must be"):
            stream_of(genome).batch(4, rank=rank, ranks=ranks)


def test_a_rank_may_get_no_row() -> None:
    parts = [two_genomes().batch(2, rank=rank, ranks=3) for rank in range(3)]
    assert [len(inputs) for inputs, _ in parts] == [1, 1, 0]
    assert parts[2][0].shape == parts[2][1].shape == (0, parts[0][0].shape[1])


def test_stream_can_be_pickled() -> None:
    stream = two_genomes()
    stream.batch()
    copy = pickle.loads(pickle.dumps(stream))
    assert same(copy.batch(), stream.batch())


@given(st.integers(1, 3000), st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_shuffle_is_a_permutation(count: int, seed: int) -> None:
    order = shuffled(np.arange(count), count, seed, 3, np.full(count, 4))
    assert sorted(order.tolist()) == list(range(count))
    one_by_one = [int(shuffled(np.array([i]), count, seed, 3, 4)[0]) for i in range(min(count, 5))]
    assert order[:5].tolist() == one_by_one
    if count > 50:
        other = shuffled(np.arange(count), count, seed, 3, 5)
        assert (order == other).mean() < 0.2
        assert abs(np.corrcoef(order, np.arange(count))[0, 1]) < 0.6


def test_random_bits_are_even() -> None:
    bits = random_bits(3, 1, np.arange(20_000))
    ones = [int((bits >> np.uint64(i) & np.uint64(1)).sum()) for i in range(64)]
    assert max(abs(n - 10_000) for n in ones) < 350  # five standard deviations
    assert len(np.unique(bits)) == len(bits)
    low = np.bincount((bits >> np.uint64(56)).astype(int), minlength=256)
    assert ((low - 20_000 / 256) ** 2).sum() / (20_000 / 256) < 340  # chi-squared, 255 degrees


@given(
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=3),
    length=st.integers(1, 20),
    batch_size=st.integers(1, 5),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_evaluation_scores_every_base_once(
    sizes: list[int], length: int, batch_size: int, data: st.DataObject
) -> None:
    context = data.draw(st.integers(0, length - 1))
    contigs = {f"c{i}": random_letters(size + 4, i, "ACGTN") for i, size in enumerate(sizes)}
    genome = TextGenome(**contigs)
    part = regions(*((f"c{i}", 2, 2 + size) for i, size in enumerate(sizes)))
    scored: list[tuple[str, int]] = []
    for batch in evaluation_batches(
        genome, part, length=length, context=context, batch_size=batch_size, n_targets="count"
    ):
        assert batch.inputs.shape == batch.targets.shape == (len(batch.windows), length)
        for row, target, window in zip(batch.inputs, batch.targets, batch.windows, strict=True):
            size = window.stop - window.start
            ids = genome.tokens(window.contig, window.start, window.stop).tolist()
            assert row.tolist() == (ids + [PAD] * length)[:length]
            for j in torch.nonzero(target != IGNORED).flatten().tolist():
                assert j < size - 1
                assert target[j] == ids[j + 1]
                scored.append((window.contig, window.start + j + 1))
                assert j + 1 >= min(context + 1, window.start + j + 1 - 2)
    expected = [(i.contig, p) for i in part.intervals for p in range(i.start + 1, i.stop)]
    assert sorted(scored) == expected


def test_evaluation_refuses_bad_options() -> None:
    genome = TextGenome(x="ACGTACGT")
    part = whole_genome(genome)
    with pytest.raises(InputError, match=r"context is 8; it must be in 0 \.\. length - 1 = 7"):
        next(evaluation_batches(genome, part, length=8, context=8, batch_size=1))
    with pytest.raises(InputError, match="batch_size is 0"):
        next(evaluation_batches(genome, part, length=8, batch_size=0))
    with pytest.raises(InputError, match="has no contig 'y'"):
        next(evaluation_batches(genome, regions(("y", 0, 5)), length=8, batch_size=1))


def test_disk_and_memory_give_the_same_batches(shared: Path, tmp_path: Path) -> None:
    genome = Genome.open(shared / "data/human_hg38_chr9_1Mb/chr9_1-1000000.fa.gz", cache=tmp_path)
    loaded, split = genome.load(), default_split(genome)
    one, other = (
        TrainingStream(
            [TrainingSource(reader, split.train)],
            length=512,
            batch_size=8,
            seed=3,
            soft_masked="ignore",
        )
        for reader in (genome, loaded)
    )
    for _ in range(5):
        batch = one.batch()
        assert same(batch, other.batch())
        masked = (batch[1] == IGNORED).float().mean()
        assert 0.1 < masked < 0.9  # about half of this stretch is repeats


def test_of_several_bacteria_only_the_windows_are_read(shared: Path, tmp_path: Path) -> None:
    read = []

    class Counted(LoadedGenome):
        def cased_tokens(self, contig: str, start: int, stop: int) -> Ids:
            read.append(stop - start)
            return super().cased_tokens(contig, start, stop)

    sources = []
    for name in ("Myco", "Staph"):
        genome = Genome.open(shared / f"data/bacteria_4/{name}.fa.gz", cache=tmp_path).load()
        genome.__class__ = Counted
        sources.append(TrainingSource(genome, default_split(genome).train))
    stream = TrainingStream(sources, length=1024, batch_size=16, seed=0)
    stream.batch()
    read.clear()
    for _ in range(20):
        stream.batch()
    assert 0 < sum(read) <= 20 * 16 * 1025


def test_yeast_chromosomes_held_out_are_never_drawn(shared: Path, tmp_path: Path) -> None:
    path = shared / "data/yeast_R64/Saccharomyces_cerevisiae.R64-1-1.fa.gz"
    genome = Genome.open(path, cache=tmp_path)
    split = split_by_contigs(genome, valid=["IV"], test=["XV"])
    stream = TrainingStream(
        [TrainingSource(genome, split.train)], length=1000, batch_size=9, seed=0
    )
    draws = stream.plan(stream.windows_per_pass())
    drawn = {draw.contig: 0 for draw in draws}
    for draw in draws:
        drawn[draw.contig] += 1
    assert set(drawn) == set(genome.contigs) - {"IV", "XV"}
    for contig, count in drawn.items():
        assert count == pytest.approx(genome.contigs[contig] / 1000, abs=1)
    scored = 0
    for batch in evaluation_batches(genome, split.valid, length=4096, batch_size=32):
        scored += int((batch.targets != IGNORED).sum())
    assert scored == genome.contigs["IV"] - 1
