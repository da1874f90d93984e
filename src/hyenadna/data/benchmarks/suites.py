"""All benchmark suites by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hyenadna.data.benchmarks import (
    chromatin,
    genomic_benchmarks,
    gue,
    lentimpra,
    nucleotide_transformer,
    promoters,
    species,
)
from hyenadna.data.benchmarks.suite import Suite
from hyenadna.errors import InputError

SUITES: Final[Mapping[str, Suite]] = {
    module.SUITE.name: module.SUITE
    for module in (
        genomic_benchmarks,
        nucleotide_transformer,
        gue,
        promoters,
        chromatin,
        species,
        lentimpra,
    )
}
"""Suite by name."""


def suite(name: str) -> Suite:
    """The suite of a name. Raises InputError for another, listing those there are."""
    if name not in SUITES:
        raise InputError(f"no benchmark suite {name!r}; there are {', '.join(SUITES)}")
    return SUITES[name]
