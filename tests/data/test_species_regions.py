"""Regions of the species suite: the same for all lengths, and what is too short is told."""

from __future__ import annotations

import numpy as np
import pytest

from hyenadna.data.benchmarks import species
from hyenadna.errors import InputError


@pytest.fixture
def genomes(tmp_path):
    """One species with a long and a short contig, one with a long contig."""
    rng = np.random.default_rng(0)

    def text(length):
        return "".join(rng.choice(list("ACGT"), length))

    (tmp_path / "two.fa").write_text(f">long\n{text(20_000)}\n>short\n{text(2_000)}\n")
    (tmp_path / "one.fa").write_text(f">c\n{text(20_000)}\n")
    return tmp_path


def contigs(data) -> set[str]:
    return set(data.part("valid").groups) | set(data.part("test").groups)


def test_short_windows_are_not_drawn_where_the_longest_have_no_room(genomes):
    wanted = dict.fromkeys(species.PARTS, 200)
    alone = species.load("100", genomes, windows=wanted)
    assert "two:short" in contigs(alone)
    beside = species.load("100", genomes, windows=wanted, region_length=1000)
    longest = species.load("1000", genomes, windows=wanted, region_length=1000)
    assert contigs(beside) == contigs(longest) == {"two:long", "one:c"}
    # and both stay in the same stretches
    for split in species.PARTS:
        for label in (0, 1):
            ends = []
            for data in (beside, longest):
                part = data.part(split)
                mine = np.asarray(part.targets) == label
                ends.append((part.windows.start[mine].min(), part.windows.stop[mine].max()))
            assert abs(ends[0][0] - ends[1][0]) < 1000 and abs(ends[0][1] - ends[1][1]) < 1000


def test_a_genome_without_room_is_named(genomes):
    (genomes / "phage.fa").write_text(">p\n" + "ACGT" * 1000 + "\n")
    with pytest.raises(InputError) as caught:
        species.load("100", genomes, region_length=1000)
    assert str(caught.value) == (
        "species: phage, valid has no region of 1000 bases; take shorter windows, or leave this "
        "genome out"
    )
