"""Made relatives differ from what they were copied from as the module says."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.shipped_relatives import COPIES, MOST_SUBSTITUTED, relatives, substituted

from hyenadna.alphabet import N, encode
from hyenadna.genome.fasta import Genome


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_so_many_bases_become_another_one(share):
    rng = np.random.default_rng(0)
    ids = encode("ACGT" * 5000 + "N" * 100)
    made = substituted(ids, share, rng)
    assert made.dtype == ids.dtype and (made[-100:] == N).all()
    changed = made[:-100] != ids[:-100]
    assert changed.mean() == pytest.approx(share, abs=0.01)
    assert set(np.unique(made[:-100])) <= set(encode("ACGT"))
    if share:
        pairs = [{*encode("AG")}, {*encode("CT")}]
        both = zip(ids[:-100][changed], made[:-100][changed], strict=True)
        transitions = np.mean([{a, b} in pairs for a, b in both])
        assert transitions == pytest.approx(0.7, abs=0.03)


def test_they_are_always_the_same_and_never_further_off_than_a_fifth(tmp_path):
    rng = np.random.default_rng(1)
    text = "".join(rng.choice(list("ACGT"), 4000))
    (tmp_path / "g.fa").write_text(f">one\n{text}\n>two\n{text[::-1]}\n")
    genome = Genome.open(tmp_path / "g.fa")
    made = list(relatives(genome, ("two",)))
    assert [each.name for each in made] == [f"two.{copy}" for copy in range(COPIES)]
    off = [float((each.ids != encode(text[::-1])).mean()) for each in made]
    assert off[0] == 0 and max(off) < MOST_SUBSTITUTED + 0.03 and np.ptp(off) > 0.1
    for one, other in zip(made, relatives(genome, ("two",)), strict=True):
        assert np.array_equal(one.ids, other.ids)
