"""The synthetic labels are functions of the sequence on either strand, in tables that are read."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.chromatin_profiles import synthetic
from benchmarks.chromatin_profiles.synthetic import BIN, GROUPS, WIDEST, synthetic_marks

from hyenadna.alphabet import decode
from hyenadna.data.benchmarks import chromatin


@pytest.fixture(scope="module")
def fasta(tmp_path_factory):
    """Forty thousand N and 120,000 bases, whose composition changes along the way."""
    random = np.random.default_rng(0)
    mixed = [random.choice(4, 2000, p=random.dirichlet([6] * 4)) for _ in range(60)]
    path = tmp_path_factory.mktemp("genome") / "hg19.fa"
    path.write_text(f">22\n{'N' * 40_000}{decode(np.concatenate(mixed) + 7)}\n")
    return path


@pytest.fixture(scope="module")
def marks(fasta):
    return synthetic_marks(fasta, "22", seed=1)


def test_labels_are_rare_and_named_as_their_groups(marks):
    assert chromatin.label_groups(marks.names) == tuple(
        g for g, n in GROUPS.items() for _ in range(n)
    )
    assert marks.flags.shape == (len(marks.start), 919)
    assert marks.start.min() == 40_400 and (np.diff(marks.start) == BIN).all()
    share = marks.flags.mean(0)
    assert share.min() > 0 and share.max() < 0.12 and 0.01 < share.mean() < 0.05


def test_scores_are_those_of_a_slow_count_and_of_the_other_strand():
    random = np.random.default_rng(2)
    bases = random.integers(0, 4, 12_000).astype(np.uint8)
    start = np.arange(5000, 6000, BIN)
    weights = np.random.default_rng(3).random((GROUPS["TF"], 8, 4)).astype(np.float32) ** 3
    found = synthetic._motif_scores(bases, start, np.random.default_rng(3))
    for core in range(2):
        letters = bases[start[core] : start[core] + BIN]
        strands = (letters, 3 - letters[::-1])
        for motif in (0, 689):
            want = max(
                sum(weights[motif, j, strand[at + j]] for j in range(8))
                for strand in strands
                for at in range(BIN - 7)
            )
            assert found[core, motif] == pytest.approx(want, rel=1e-5)
    other, places = 3 - bases[::-1], len(bases) - BIN - start
    mirrored = synthetic._motif_scores(other, places, np.random.default_rng(3))
    assert mirrored == pytest.approx(found, rel=1e-5)
    for width in (BIN, 1000, 8000):
        mine = synthetic._composition(bases, start, width)
        assert synthetic._composition(other, places, width) == pytest.approx(mine, abs=1e-4)


def test_tables_are_read_and_parts_are_apart(marks, fasta, tmp_path):
    synthetic.write_tables(marks, 21, tmp_path, {"train": 50, "val": 1000, "test": 20})
    data = chromatin.load("8192", tmp_path, genome=fasta)
    counts = {part: int((data.splits == part).sum()) for part in ("train", "valid", "test")}
    assert counts["train"] == 50 and counts["test"] == 20 and 0 < counts["valid"] < 60
    places = {part: data.part(part).windows for part in counts}
    assert places["train"].stop.max() <= places["valid"].start.min()
    assert places["valid"].stop.max() <= places["test"].start.min()
    row = int(np.flatnonzero(marks.start + BIN // 2 == data.windows.start[0] + WIDEST // 2)[0])
    assert np.array_equal(data.targets[0] == 1, marks.flags[row])
