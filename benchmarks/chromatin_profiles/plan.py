"""How much is measured: a look of two minutes, or about a quarter of an hour of one core."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Length:
    """A run of the suite at one length of windows."""

    task: str
    rows: dict[str, int]
    """Windows of train, val and test, evenly spaced; no more than there are."""
    epochs: int


@dataclass(frozen=True)
class Plan:
    """All that is measured."""

    lengths: tuple[Length, ...]
    metric_rows: tuple[int, ...]
    """Rows of random predictions; scikit-learn measures them too, but for the largest."""
    read_rows: int
    hdf5_rows: int


DEEPSEA_TEST: Final = 227_512
DEEPSEA_TRAIN: Final = 2_200_000

FULL: Final = Plan(
    lengths=(
        Length("1k", {"train": 6000, "val": 500, "test": 4000}, epochs=3),
        Length("8k", {"train": 600, "val": 100, "test": 500}, epochs=2),
    ),
    metric_rows=(20_000, DEEPSEA_TEST),
    read_rows=400_000,
    hdf5_rows=100_000,
)
TINY: Final = Plan(
    lengths=(
        Length("1k", {"train": 800, "val": 200, "test": 600}, epochs=2),
        Length("8k", {"train": 40, "val": 20, "test": 60}, epochs=1),
    ),
    metric_rows=(2000,),
    read_rows=5000,
    hdf5_rows=5000,
)
