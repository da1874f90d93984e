"""bigWig files of ours, read back by pyBigWig."""

from __future__ import annotations

import numpy as np
import pytest

from hyenadna.errors import InputError
from hyenadna.genome.bigwig import BigWigWriter

pyBigWig = pytest.importorskip("pyBigWig")


def some_values(size: int, seed: int = 0) -> np.ndarray:
    values = (2 + np.random.default_rng(seed).normal(size=size)).astype(np.float32)
    values[size // 3 : size // 3 + 7] = np.nan
    values[:1] = np.nan
    return values


def write(path, contigs, pieces, **more):
    with BigWigWriter(path, contigs, **more) as file:
        for piece in pieces:
            file.add(*piece[:3], span=piece[3] if len(piece) > 3 else 1)
    return pyBigWig.open(str(path))


def exact(bw, contig: str, length: int) -> np.ndarray:
    return np.array(bw.values(contig, 0, length), dtype=np.float32)


def test_every_value_comes_back(tmp_path):
    contigs = {"zeta": 70_001, "alpha": 9, "chr1": 20_000}
    all_values = {name: some_values(length) for name, length in contigs.items()}
    pieces = [
        (name, start, values[start : start + 1733])
        for name, values in all_values.items()
        for start in range(0, len(values), 1733)
    ]
    bw = write(tmp_path / "x.bw", contigs, pieces)
    assert bw.chroms() == contigs
    for name, values in all_values.items():
        np.testing.assert_array_equal(exact(bw, name, contigs[name]), values)
    together = np.concatenate(list(all_values.values()))
    known = together[~np.isnan(together)].astype(float)
    header = bw.header()
    assert header["nBasesCovered"] == len(known)
    assert header["sumData"] == pytest.approx(known.sum(), abs=1)
    assert header["sumSquared"] == pytest.approx((known**2).sum(), abs=1)


def test_zoom_levels_say_what_the_values_say(tmp_path):
    """Means, extremes, deviation and coverage of long stretches, by zoom and by every base."""
    values = some_values(300_000)
    bw = write(tmp_path / "x.bw", {"a": 300_000}, [("a", 0, values)])
    assert bw.header()["nLevels"] >= 6
    ends = 0, 1 << 18  # four bins of whole cells: a cut cell only counts by its share
    for kind in ("mean", "std", "coverage", "min", "max"):
        fast = bw.stats("a", *ends, type=kind, nBins=4)
        slow = bw.stats("a", *ends, type=kind, nBins=4, exact=True)
        assert fast == pytest.approx(slow, abs=2e-5), kind


def test_bins_of_several_bases(tmp_path):
    means = some_values(1000)
    bw = write(tmp_path / "x.bw", {"a": 10_003}, [("a", 0, means, 10), ("a", 10_000, [5.0], 3)])
    found = exact(bw, "a", 10_003)
    np.testing.assert_array_equal(found[:10_000], np.repeat(means, 10))
    np.testing.assert_array_equal(found[10_000:], 5)
    assert bw.stats("a", 0, 10_003)[0] == pytest.approx(np.nanmean(found), abs=1e-3)


@pytest.mark.parametrize("count", [1, 255, 256, 257, 10_000, 70_000])
def test_many_contigs(tmp_path, count):
    """Trees of one, two and three levels; the first, the last and one in the middle are found."""
    names = [f"scaffold_{i}" for i in np.random.default_rng(0).permutation(count)]
    some = {names[0], names[-1], names[count // 2]}
    if count <= 10_000:
        pieces = [(name, 2, [float(i % 1000), 1.0]) for i, name in enumerate(names)]
    else:
        pieces = [(name, 2, [float(i % 1000), 1.0]) for i, name in enumerate(names) if name in some]
    bw = write(tmp_path / "x.bw", dict.fromkeys(names, 40), pieces)
    assert len(bw.chroms()) == count
    for name in some:
        np.testing.assert_array_equal(
            exact(bw, name, 5), [np.nan, np.nan, names.index(name) % 1000, 1, np.nan]
        )


def test_without_values(tmp_path):
    bw = write(tmp_path / "x.bw", {"a": 100}, [("a", 0, np.full(50, np.nan))])
    assert bw.chroms() == {"a": 100} and bw.header()["nBasesCovered"] == 0
    assert np.isnan(exact(bw, "a", 100)).all()


def test_the_same_values_are_the_same_file_in_any_pieces(tmp_path):
    values = some_values(20_000)[7000:]
    for name, step in (("x", 8192), ("y", 16384)):
        pieces = [("a", i, values[i : i + step]) for i in range(0, len(values), step)]
        write(tmp_path / name, {"a": 13_000}, pieces)
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_what_is_refused(tmp_path):
    path = tmp_path / "x.bw"
    for contigs, message in (
        ({}, "at least one"),
        ({"a": 0}, "has 0 bases"),
        ({"a": 1 << 32}, "4,2"),
    ):
        with pytest.raises(InputError, match=message):
            BigWigWriter(path, contigs)
    with BigWigWriter(path, {"a": 10, "b": 10}) as file:
        with pytest.raises(InputError, match="no contig 'c'"):
            file.add("c", 0, [1.0])
        with pytest.raises(InputError, match="runs past its end"):
            file.add("a", 9, [1.0, 2.0])
        file.add("b", 4, [1.0])
        with pytest.raises(InputError, match="must come in order"):
            file.add("b", 4, [1.0])
        with pytest.raises(InputError, match="must come in order"):
            file.add("a", 4, [1.0])
