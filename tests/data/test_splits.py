"""Splits keep copies together and classes in proportion, and depend on no order of rows."""

from __future__ import annotations

import numpy as np
import pytest

from hyenadna.alphabet import Ids, reverse_complement_ids
from hyenadna.data.labelled_data import LabelledData, Targets, Task
from hyenadna.data.leaks import find_leaks
from hyenadna.data.similar import components
from hyenadna.data.splits import hold_out, with_test, with_valid
from hyenadna.errors import InputError

RNG = np.random.default_rng(5)


def dna(n: int, length: int = 60) -> list[Ids]:
    return list(RNG.integers(7, 11, (n, length)).astype(np.uint8))


def labelled(
    sequences: list[Ids],
    targets: Targets,
    task: Task | None = None,
    *,
    splits: str | list[str] = "train",
    groups: list[str] | None = None,
) -> LabelledData:
    n = len(sequences)
    where = [splits] * n if isinstance(splits, str) else splits
    return LabelledData(
        "toy", tuple(sequences), targets, task or Task("classes", ("a", "b", "c")),
        np.array(where), tuple(map(str, range(n))), tuple(groups) if groups else None,
    )  # fmt: skip


def held(data: LabelledData, split: str = "valid") -> set[bytes]:
    return {ids.tobytes() for ids in data.part(split).sequences}


def test_random_split_keeps_classes_in_proportion_and_depends_on_no_order() -> None:
    targets = np.repeat([0, 1, 2], [300, 100, 40])
    data = labelled(dna(440), targets, splits="")
    split = with_valid(data, seed=1, fraction=0.1)
    counts = np.bincount(split.part("valid").targets)  # type: ignore[arg-type]
    assert counts.tolist() == [30, 10, 4] and len(split.part("train")) == 396
    assert "valid: 44 of 440 training rows held out by random, seed 1" in split.notes[-1]
    shuffled = data.select(RNG.permutation(440))
    assert held(with_valid(shuffled, seed=1)) == held(split)
    other = with_valid(data, seed=2)
    assert 0 < len(held(other) & held(split)) < 20  # 4.4 by chance
    assert with_valid(split, seed=3) is split  # it has one
    both = with_test(split, seed=1, fraction=0.2)
    assert held(both) == held(split) and len(both.part("test")) == 79


def test_published_splits_stay() -> None:
    data = labelled(
        dna(100), RNG.integers(0, 3, 100), splits=["train"] * 60 + ["test"] * 30 + [""] * 10
    )
    split = with_valid(data, seed=0, fraction=0.5)
    assert (split.splits[60:90] == "test").all()
    assert (
        len(split.part("valid")) + len(split.part("train")) == 70 and not (split.splits == "").any()
    )


@pytest.mark.parametrize("by", ["random", "similarity"])
def test_copies_stay_together(by: str) -> None:
    distinct = dna(60)
    sequences = [
        reverse_complement_ids(ids) if i % 3 == 2 else ids for ids in distinct for i in range(5)
    ]
    data = labelled(sequences, RNG.integers(0, 3, 300))
    leaks = find_leaks(with_valid(data, seed=0, fraction=0.3, by=by))  # type: ignore[arg-type]
    assert leaks.total == 0 and leaks.overlaps[0].rows == 0
    assert 60 <= (with_valid(data, seed=0, fraction=0.3).splits == "valid").sum() <= 120


def test_similar_sequences_stay_together() -> None:
    """Windows over a few long sequences: neighbours overlap by 80 %."""
    contigs = dna(12, 2000)
    sequences = [contig[at : at + 200] for contig in contigs for at in range(0, 1801, 40)]
    targets = RNG.integers(0, 3, len(sequences))
    groups = [str(i) for i in range(12) for _ in range(0, 1801, 40)]
    data = labelled(sequences, targets, groups=groups)
    assert find_leaks(with_valid(data, seed=0)).total > 100
    similar = with_valid(data, seed=0, by="similarity", fraction=0.25)
    assert find_leaks(similar).total == 0
    by_contig = with_valid(data, seed=0, by="group", fraction=0.25)
    assert find_leaks(by_contig).total == 0
    for split in (similar, by_contig):
        of_valid, of_train = (
            set(split.part("valid").groups or ()),
            set(split.part("train").groups or ()),
        )
        assert len(of_valid) == 3 and len(of_train) == 9 and not of_valid & of_train
    assert "(12 of them, the largest has 8.3%)" in similar.notes[-1]


def test_values_and_labels_are_stratified() -> None:
    values = np.linspace(0, 1, 1000, dtype=np.float32)[:, None] ** 4
    values[::10] = np.nan
    split = with_valid(labelled(dna(1000), values, Task("values", ("v",))), seed=0)
    found = np.asarray(split.part("valid").targets)
    assert np.isnan(found).sum() == 10
    edges = np.nanquantile(values, np.linspace(0.1, 0.9, 9))
    bins = np.bincount(np.searchsorted(edges, found[~np.isnan(found)], side="right"))
    assert len(bins) == 10 and bins.min() >= 8 and bins.max() <= 10
    labels = np.zeros((500, 3), np.float32)
    labels[:20, 2] = 1  # rare
    labels[::2, 0] = 1
    split = with_valid(labelled(dna(500), labels, Task("labels", ("x", "y", "z"))), seed=0)
    assert np.asarray(split.part("valid").targets)[:, 2].sum() == 2


def test_no_class_is_held_out_as_a_whole() -> None:
    sequences, groups = dna(60), ["1"] * 50 + ["2"] * 5 + ["3"] * 5
    targets = np.repeat([0, 1, 2, 0], [50, 5, 4, 1])  # all of class 1 is in group 2
    two = np.where(targets == 1, 1, 0)
    data = labelled(sequences, targets, Task("classes", ("a", "b", "c")), groups=groups)
    with pytest.raises(InputError, match=r"the 5 valid rows are of one class \(a\) of 2; give"):
        with_valid(
            labelled(sequences, two, Task("classes", ("a", "b")), groups=groups),
            seed=0, by="group",
        )  # fmt: skip
    data.targets[:6] = 2  # type: ignore[index]
    for seed in range(6):
        split = with_valid(data, seed=seed, by="group")
        assert set(split.part("valid").groups or ()) == {"3"}


def test_what_is_held_out_against_what_was_asked() -> None:
    data = labelled(dna(60), np.arange(60) % 2, groups=["1"] * 30 + ["2"] * 30)
    notes = with_valid(data, seed=0, by="group").notes
    assert notes[-1].startswith("warning: valid: 30 rows are held out where 6 were asked for (10%")
    assert "there are 2 groups, the largest of 30 rows" in notes[-1]
    assert len(with_valid(data, seed=0).notes) == 1
    one = dna(1, 400)[0]
    chain = [one[i : i + 100] for i in range(0, 300, 3)] + dna(1, 100)  # all but one hang together
    values = labelled(chain, np.arange(101, dtype=np.float32)[:, None], Task("values", ("v",)))
    notes = with_valid(values, seed=0, by="similarity").notes
    assert "valid: 1 rows are held out where 10" in notes[-1] and "2 families" in notes[-1]
    rare = labelled(dna(61), np.repeat([0, 1], [60, 1]))
    notes = with_valid(rare, seed=0).notes
    assert notes[-1].startswith("warning: held out by random, the 6 valid rows are of one class (")


def test_bases_and_large_groups() -> None:
    targets = tuple(np.zeros(60, np.int64) for _ in range(40))
    data = labelled(dna(40), targets, Task("tokens", ("a", "b")), groups=["1"] * 30 + ["2"] * 10)
    assert len(with_valid(data, seed=0, fraction=0.25).part("valid")) == 10
    # both groups are larger than a tenth: the smaller goes
    assert len(with_valid(data, seed=0, by="group").part("valid")) == 10


def test_of_equal_families_the_same_goes_whatever_the_order() -> None:
    data = labelled(dna(60), np.arange(60) % 2, groups=[str(i % 3) for i in range(60)])
    one = dna(3, 300)
    families = [one[i % 3][i // 3 * 3 : i // 3 * 3 + 200] for i in range(60)]
    alike = labelled(families, np.arange(60) // 3 % 2)
    for part, by in ((data, "group"), (alike, "similarity")):
        held_out = set()
        for seed in range(6):
            sides = {
                frozenset(held(hold_out(part.select(order), "valid", seed=seed, by=by)))  # type: ignore[arg-type]
                for order in (np.arange(60), np.arange(60)[::-1], np.roll(np.arange(60), 1))
            }
            assert len(sides) == 1
            held_out |= sides
        assert len(held_out) > 1


def test_refusals() -> None:
    data = labelled(dna(4), np.array([0, 1, 2, 0]))
    for options, words in [
        ({"fraction": 1.0}, "fraction is 1.0; it must be between 0 and 1"),
        ({"by": "group"}, "groups are not known"),
        ({"by": "luck"}, "by is 'luck'"),
    ]:
        with pytest.raises(InputError, match=words):
            with_valid(data, seed=0, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="but one sequence"):
        with_valid(labelled([data.sequences[0]] * 3, np.array([0, 1, 2])), seed=0)
    one = labelled(dna(3), np.array([0, 1, 2]), groups=["chr1"] * 3)
    with pytest.raises(InputError, match="but one group"):
        with_valid(one, seed=0, by="group")
    with pytest.raises(InputError, match="has no training rows"):
        hold_out(labelled(dna(3), np.array([0, 1, 2]), splits="test"), "valid", seed=0)


def test_components_against_a_slow_twin() -> None:
    for links in (0, 20, 60, 200):
        first, second = RNG.integers(0, 100, (2, links))
        slow = list(range(100))
        for _ in range(100):
            for a, b in zip(first.tolist(), second.tolist(), strict=True):
                slow[a] = slow[b] = min(slow[a], slow[b])
        assert components(100, first, second).tolist() == slow
    chain = np.arange(5000)
    order = RNG.permutation(5000)
    assert not components(5001, chain[order], chain[order] + 1).any()
