"""`chr1` and `1`."""

from __future__ import annotations

import pytest

from hyenadna.genome.contig_names import contig_aliases, matched_names


@pytest.mark.parametrize(
    ("file", "genome", "names"),
    [
        (["chr1", "chr2"], ["1", "2"], {"chr1": "1", "chr2": "2"}),
        (["1", "X"], ["chr1", "chrX"], {"1": "chr1", "X": "chrX"}),
        (["1", "chr1"], ["chr1"], {"chr1": "chr1"}),  # the file tells them apart
        (["chr1"], ["chr1", "1"], {"chr1": "chr1"}),
        (["MT", "chrM"], ["M"], {"MT": "M", "chrM": "M"}),
        (["scaffold"], ["1"], {}),
    ],
)
def test_names_of_the_genome(file, genome, names):
    assert matched_names(file, genome) == names


def test_aliases_know_each_other():
    for name in ("chr1", "1", "chrX", "MT", "chrM"):
        for alias in contig_aliases(name):
            assert alias != name and name in contig_aliases(alias)
