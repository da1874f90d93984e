"""Leaks: counts against slow twins, against what was planted, and against published counts."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from hyenadna.alphabet import Ids, decode, encode, reverse_complement, reverse_complement_ids
from hyenadna.data import similar
from hyenadna.data.kmers import K, canonical_kmers, kmer_keys
from hyenadna.data.labelled import read_labelled
from hyenadna.data.labelled_data import LabelledData, Targets, Task
from hyenadna.data.leaks import Leaks, Overlap, Repeats, drop_leaks, find_leaks
from hyenadna.data.similar import FEWEST_KMERS, NearDuplicates
from hyenadna.data.splits import hold_out
from hyenadna.errors import InputError

RNG = np.random.default_rng(7)


def dna(n: int, length: int = 80) -> list[Ids]:
    return list(RNG.integers(7, 11, (n, length)).astype(np.uint8))


def mutated(ids: Ids, changes: int) -> Ids:
    new = ids.copy()
    at = RNG.choice(len(ids), changes, replace=False)
    new[at] = 7 + (new[at] - 7 + RNG.integers(1, 4, changes)) % 4
    return new


def labelled(rows: list[tuple[Ids, str, int]]) -> LabelledData:
    sequences, splits, targets = zip(*rows, strict=True)
    return make(list(sequences), list(splits), np.array(targets), Task("classes", ("a", "b")))


def make(sequences: list[Ids], splits: list[str], targets: Targets, task: Task) -> LabelledData:
    ids = tuple(map(str, range(len(sequences))))
    return LabelledData("toy", tuple(sequences), targets, task, np.array(splits), ids)


def slow_kmers(ids: Ids) -> set[str]:
    """The different k-mers of a sequence on both strands, by the smaller text."""
    text = decode(ids, specials=True).replace("[SEP]", "N")
    words = {text[i : i + K] for i in range(len(text) - K + 1)}
    return {min(word, reverse_complement(word)) for word in words if "N" not in word}


def test_kmers_are_those_of_the_slow_twin() -> None:
    texts = ["ACGT" * 10, "", "ACGTACGTACGTACG", "A" * 30, "ACGTN" * 12, "ACGTACGTACGTACGT"]
    sequences = [encode(text) for text in texts] + dna(5, 200)
    sequences.append(np.concatenate([sequences[0], encode("", sep=True), sequences[-1]]))
    keys = kmer_keys(sequences)
    counts = np.bincount((keys >> np.uint64(32)).astype(int), minlength=len(sequences))
    assert counts.tolist() == [len(slow_kmers(ids)) for ids in sequences]
    assert (np.diff(keys.astype(object)) > 0).all()
    kmers, known = canonical_kmers(sequences[-2])
    turned, _ = canonical_kmers(reverse_complement_ids(sequences[-2]))
    assert known.all() and np.array_equal(kmers, turned[::-1])


def slow_near(sequences: list[Ids], threshold: float = 0.5) -> npt.NDArray[np.bool_]:
    """(n, n): whether two sequences are near duplicates, by all of their k-mers."""
    keys = kmer_keys(sequences)
    kmers, number = np.unique(keys & np.uint64(0xFFFFFFFF), return_inverse=True)
    has = np.zeros((len(sequences), len(kmers)), dtype=np.float32)
    has[(keys >> np.uint64(32)).astype(int), number] = 1
    size = has.sum(1)
    smaller = np.minimum(size[:, None], size)
    near = (smaller >= FEWEST_KMERS) & (has @ has.T >= threshold * smaller)
    np.fill_diagonal(near, False)
    return np.asarray(near)


def test_near_duplicates_are_those_of_the_slow_twin() -> None:
    """Overlapping windows, mutated copies, other strands, contained ones: all of them."""
    genome = dna(1, 3000)[0]
    sequences = [genome[at : at + 150] for at in range(0, 2800, 55)]
    sequences += [mutated(ids, 3) for ids in sequences[:20]]
    sequences += [reverse_complement_ids(mutated(ids, 6)) for ids in sequences[:20]]
    sequences += [ids[20:70] for ids in sequences[:20]] + dna(20, 150)
    sequences += [encode("A" * 40), encode("A" * 50), encode("ACG")]
    for threshold, least in ((0.5, 150), (0.9, 20)):
        expected = slow_near(sequences, threshold)
        assert np.triu(expected).sum() > least
        search = NearDuplicates(sequences, threshold)
        everyone = np.ones(len(sequences), dtype=bool)
        for i, row in enumerate(expected):  # each alone against all others
            found = search.between(np.arange(len(sequences)) == i, everyone)
            assert found.complete and found.one[i] == row.any()
            np.testing.assert_array_equal(found.other, row)
        hangs = np.linalg.matrix_power(expected.astype(float) + np.eye(len(expected)), 60) > 0
        families = search.families()
        np.testing.assert_array_equal(families.number, hangs.argmax(1))
        assert families.complete


def test_what_was_planted_is_counted() -> None:
    a, b, c, d, e, f, g, h = dna(8)
    data = labelled(
        [
            (a, "train", 0), (a, "train", 1), (b, "train", 0), (c, "train", 0), (d, "train", 1),
            (reverse_complement_ids(d), "train", 1), (e, "train", 0), (mutated(e, 1), "train", 0),
            (h, "train", 0),
            (a, "valid", 0), (reverse_complement_ids(b), "valid", 0), (f, "valid", 1),
            (mutated(c, 1), "test", 1), (f, "test", 0), (f, "test", 0), (g, "test", 1),
        ]
    )  # fmt: skip
    leaks = find_leaks(data)
    assert leaks.overlaps == (
        Overlap("train", "valid", 1, 1, 0, rows=2, conflicting=1),
        Overlap("train", "test", 0, 0, 1, rows=1, conflicting=0),
        Overlap("valid", "test", 1, 0, 0, rows=2, conflicting=1),
    )
    assert leaks.repeats == (
        Repeats("train", identical=1, reverse_complement=1, near=2, conflicting=1),
        Repeats("valid", 0, 0, 0, 0),
        Repeats("test", identical=1, reverse_complement=0, near=0, conflicting=0),
    )
    assert np.flatnonzero(leaks.leaked).tolist() == [0, 1, 2, 11]
    assert np.flatnonzero(leaks.nearly).tolist() == [3]
    lines = leaks.lines()
    assert lines[0].startswith("train and valid: 1 identical sequences, 1 more as reverse compl")
    assert "1 with different targets" in lines[0] and len(lines) == 5
    clean = drop_leaks(data, leaks)
    assert clean.ids == ("4", "5", "6", "7", "8", "9", "10", "12", "13", "14", "15")
    assert clean.notes[-1] == "leaks dropped: 4 of train, 1 of valid"
    again = find_leaks(clean)
    assert again.total == 0 and all(o.rows == 0 for o in again.overlaps)
    exact = drop_leaks(data, find_leaks(data, near=False))
    assert len(exact) == 12 and len(drop_leaks(data, leaks, near=False)) == 12
    assert drop_leaks(clean, again) is clean


def test_the_order_of_rows_changes_nothing() -> None:
    distinct = dna(60)
    rows = [
        (reverse_complement_ids(ids) if turned else ids, split, target)
        for ids, turned, split, target in zip(
            [distinct[i] for i in RNG.integers(0, 60, 200)],
            RNG.random(200) < 0.3,
            RNG.choice(["train", "valid", "test", ""], 200).tolist(),
            RNG.integers(0, 2, 200).tolist(),
            strict=True,
        )
    ]
    data = labelled(rows)
    order = RNG.permutation(200)
    one, two = find_leaks(data), find_leaks(data.select(order))
    assert one.overlaps == two.overlaps and len(one.overlaps) == 6
    assert one.repeats == two.repeats
    assert (one.leaked[order] == two.leaked).all() and one.leaked.sum() > 20
    assert not one.leaked[data.splits == ""].any()


def test_conflicts_of_other_targets() -> None:
    a, b = dna(2)
    splits = ["train", "test", "train", "test"]
    sequences = [a, a, b, b]
    values = np.array([[1, np.nan], [1, 2], [0, 1], [np.nan, 1]], np.float32)
    data = make(sequences, splits, values, Task("values", ("u", "v")))
    assert find_leaks(data).overlaps[0].conflicting == 0
    values[3, 0] = 1
    assert find_leaks(data).overlaps[0].conflicting == 1
    missing = make(sequences, splits, np.array([0, -100, 1, 0]), Task("classes", ("a", "b")))
    assert find_leaks(missing).overlaps[0].conflicting == 1
    zeros, ones = np.zeros(80, np.int64), np.ones(80, np.int64)
    task = Task("tokens", ("a", "b"))
    bases = make(sequences, splits, (zeros, zeros, zeros, ones), task)
    assert find_leaks(bases).overlaps[0].conflicting == 1


def test_large_families_are_found() -> None:
    """Hundreds of copies of one sequence with few changes, in a crowd: none is missed."""
    parent = dna(1, 200)[0]
    sequences = [mutated(parent, 4) for _ in range(300)] + dna(300, 200)
    splits = ["train", "test"] * 300
    leaks = find_leaks(
        make(sequences, splits, np.zeros(600, np.int64), Task("classes", ("a", "b")))
    )
    assert leaks.nearly[:300].sum() == 150 and not leaks.nearly[300:].any()
    assert leaks.overlaps[0].near == 150


@pytest.mark.parametrize(("copies", "share"), [(40, 0.035), (150, 0.02), (500, 0.01), (500, 0.03)])
def test_families_of_any_size_and_spread(copies: int, share: float) -> None:
    """What is flagged, and what a split by similarity parts: as all k-mers of all pairs say."""
    parent = dna(1, 200)[0]
    sequences = [mutated(parent, RNG.binomial(200, share)) for _ in range(copies)]
    sequences[::2] = [reverse_complement_ids(ids) for ids in sequences[::2]]
    sequences += dna(100, 200)
    near = slow_near(sequences)
    splits = RNG.choice(["train", "train", "train", "test"], len(sequences)).tolist()
    data = make(sequences, splits, np.arange(len(sequences)) % 2, Task("classes", ("a", "b")))
    leaks = find_leaks(data)
    train, test = data.splits == "train", data.splits == "test"
    np.testing.assert_array_equal(leaks.leaked | leaks.nearly, train & near[:, test].any(1))
    assert leaks.complete and leaks.overlaps[0].rows == (test & near[:, train].any(1)).sum() > 1
    assert find_leaks(drop_leaks(data, leaks)).total == 0
    whole = make(sequences, [""] * len(sequences), data.targets, data.task)
    for seed in range(2):
        held = hold_out(whole, "test", seed=seed, by="similarity").splits
        assert not near[np.ix_(held == "train", held == "test")].any()


def test_families_too_large_to_look_at_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    parent = dna(1, 200)[0]
    sequences = [mutated(parent, 8) for _ in range(200)]
    data = make(sequences, ["train", "test"] * 100, np.arange(200) % 2, Task("classes", ("a", "b")))
    monkeypatch.setattr(similar, "_MOST_KMERS", 60_000)
    leaks = find_leaks(data)
    assert (
        not leaks.complete and leaks.total > 0 and "at least" in leaks.lines()[0].split("near")[0]
    )


def test_the_shortest_of_long_sequences_are_found() -> None:
    """A few short ones among long ones, alike among themselves, in long ones, and low in letters:
    as the slow twin has it."""
    long = dna(190, 600)
    short = [*dna(3, 120), *dna(2, 40), *dna(1, 24)]
    sequences = [*long, *short, *(reverse_complement_ids(mutated(ids, 1)) for ids in short[:3])]
    sequences += [mutated(ids, 1)[1:] for ids in short[3:5]] + [short[5][1:]]
    sequences += [long[i][300 + i : 300 + i + n] for i, n in enumerate((23, 30, 60, 100, 150))]
    sequences += [np.resize(encode("ACGTTGCAAT"), 500), np.resize(encode("GTTGCAATAC"), 900)]
    expected = slow_near(sequences)
    search = NearDuplicates(sequences)
    everyone = np.ones(len(sequences), dtype=bool)
    for i, row in enumerate(expected):
        found = search.between(np.arange(len(sequences)) == i, everyone)
        np.testing.assert_array_equal(found.other, row)
        assert found.complete and found.one[i] == row.any()
    assert expected[190:].any(1).sum() >= 14
    hangs = np.linalg.matrix_power(expected.astype(float) + np.eye(len(expected)), 60) > 0
    np.testing.assert_array_equal(search.families().number, hangs.argmax(1))


def test_short_sequences_are_found_where_memory_bounds_the_sketch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(similar, "_MOST_SKETCHED", 50)
    parents = dna(40, 100)
    sequences = [*parents, *(mutated(ids, 1) for ids in parents), *dna(40, 100)]
    np.testing.assert_array_equal(
        NearDuplicates(sequences).families().number[:80], np.tile(np.arange(40), 2)
    )


def test_what_a_search_costs_is_bounded_by_kmers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long sequences use up the same bound with fewer pairs."""
    monkeypatch.setattr(similar, "_MOST_KMERS", 1_000_000)
    monkeypatch.setattr(similar, "_COMPARED_AT_ONCE", 100_000)
    for length, complete in ((60, True), (3000, False)):
        # two fifths are shared: all pairs are nominated, and none are near duplicates
        parent = dna(1, length)[0]
        sequences = dna(120, length)
        for ids in sequences:
            ids[: 2 * length // 5] = parent[: 2 * length // 5]
        search = NearDuplicates(sequences)
        everyone = np.ones(120, dtype=bool)
        assert search.between(everyone, everyone).complete == complete
        assert search._counted < 1_400_000


def test_refusals() -> None:
    a, b = dna(2)
    data = labelled([(a, "train", 0), (a, "test", 0), (b, "test", 1)])
    leaks = find_leaks(data)
    with pytest.raises(InputError, match="every row of train leaks"):
        drop_leaks(data, leaks)
    with pytest.raises(InputError, match="look again"):
        drop_leaks(data.select(np.array([0, 1])), leaks)
    with pytest.raises(InputError, match="threshold is 0"):
        find_leaks(data, threshold=0)
    assert find_leaks(data.select(np.array([], dtype=np.int64))).overlaps == ()


README_SPLITS = {"train": "train", "dev": "valid", "valid": "valid", "test": "test"}


def published_counts(readme: str, name: str) -> tuple[dict[str, int], dict[frozenset[str], tuple]]:
    """Rows of each split, and (identical, reverse complement) of each two, as a README says."""
    section = re.split(r"\n## ", readme.split(f"\n## {name}")[1])[0]
    rows = {
        README_SPLITS[split]: int(count)
        for split, count in re.findall(r"split (\w+): (\d+) sequences", section)
    }
    overlaps = {
        frozenset((README_SPLITS[one], README_SPLITS[other])): (int(same), int(turned))
        for one, other, same, turned in re.findall(
            r"overlap (\w+)&(\w+): (\d+) identical sequences, (\d+) more as reverse", section
        )
    }
    return rows, overlaps


@pytest.mark.parametrize(
    "table",
    [
        "gue_promoter/prom_300_tata",
        "gue_promoter/prom_core_tata",
        "gue_promoter/prom_core_notata",
        "gue_tf_human/tf1",
        "gue_tf_human/tf2",
        "gue_tf_human/tf4",
        "gue_tf_mouse/mouse2",
        "gb_interval_subset/human_enhancers_ensembl",
    ],
)
def test_published_tables_leak_as_their_readmes_say(shared: Path, table: str) -> None:
    path = shared / "data" / f"{table}.csv.gz"
    readme = (path.parent / "README.md").read_text()
    rows, overlaps = published_counts(readme, path.name.removesuffix(".csv.gz"))
    data = read_labelled(path)
    assert {split: len(data.part(split)) for split in rows} == rows
    found = {frozenset((o.one, o.other)): o for o in find_leaks(data, near=False).overlaps}
    assert overlaps and found.keys() == overlaps.keys()
    for pair, (identical, turned) in overlaps.items():
        assert (found[pair].identical, found[pair].reverse_complement) == (identical, turned)


def test_reversed_elements_are_one_family(shared: Path) -> None:
    """lentiMPRA: each element stands twice, the second time the other way round."""
    path = shared / "data" / "lentimpra" / "HepG2.csv.gz"
    leaks: Leaks = find_leaks(read_labelled(path).select(np.arange(3000)))
    assert leaks.repeats[0].identical == 0 and leaks.repeats[0].near > 2900
