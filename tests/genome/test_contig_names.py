"""`chr1` and `1`."""

from __future__ import annotations

import pytest

from hyenadna.genome.contig_names import matched_names, twin_name


@pytest.mark.parametrize(
    ("file", "genome", "names"),
    [
        (["chr1", "chr2"], ["1", "2"], {"chr1": "1", "chr2": "2"}),
        (["1", "X"], ["chr1", "chrX"], {"1": "chr1", "X": "chrX"}),
        (["1", "chr1"], ["chr1"], {"chr1": "chr1"}),  # the file tells them apart
        (["chr1"], ["chr1", "1"], {"chr1": "chr1"}),
        (["scaffold"], ["1"], {}),
    ],
)
def test_names_of_the_genome(file, genome, names):
    assert matched_names(file, genome) == names


def test_a_twin_of_a_twin():
    for name in ("chr1", "1", "chrX"):
        assert twin_name(twin_name(name)) == name
