"""How a signal length is taken apart into small matrix products, and the tables for that."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

LOW: Final = 2048.0
"""The second half of a split factor is kept times this (see `triton_fft`)."""
WHOLE: Final = {256: (16, 16, 1), 512: (32, 16, 2), 1024: (64, 16, 4), 2048: (64, 32, 4),
                4096: (128, 32, 8), 8192: (128, 64, 8)}  # fmt: skip
"""m -> (N1, N2, warps) of the transforms that one program does in registers. Chosen by what the
compiler says about registers and spills: docs/decisions/matrix-fft.md."""


@dataclass(frozen=True)
class Shape:
    """m = n1 * inner complex points for signals of `length` samples, m >= length.

    inner = na * nb points are transformed by one program; without `outer` that is all.
    """

    length: int
    n1: int
    na: int
    nb: int
    warps: int
    outer: bool

    @property
    def inner(self) -> int:
        """Points that one program transforms."""
        return self.na * self.nb

    @property
    def m(self) -> int:
        """Complex points in all."""
        return self.n1 * self.inner

    @property
    def outer_tile(self) -> int:
        """Side of the tiles of an outer product: a power of two from 16 to 128."""
        return max(16, min(128, 1 << (self.n1 - 1).bit_length()))

    @property
    def outer_columns(self) -> int:
        """Columns of the tiles of an outer product."""
        return 64 if self.outer_tile >= 64 else 128

    @property
    def outer_step(self) -> int:
        """Terms of an outer sum that are done at once."""
        return min(self.outer_tile, 32)

    @property
    def outer_steps(self) -> int:
        """Terms of an outer sum, whole steps."""
        return -(-self.n1 // self.outer_step) * self.outer_step

    @property
    def side(self) -> int:
        """Rows of the outer table, whole tiles."""
        return -(-self.n1 // self.outer_tile) * self.outer_tile


def shape_of(length: int, inner: int | None = None, largest: int = 8192) -> Shape:
    """The shape for a length. inner: points of a program where there are outer products.

    largest: most points of one program. Without `inner`, all in one program up to `largest`.
    """
    if inner is None:
        if length <= largest:
            m = max(256, 1 << (length - 1).bit_length())
            return Shape(length, 1, *WHOLE[m], outer=False)
        inner = min(largest, 4096 if length > 1 << 20 else 2048)
    na, nb, warps = WHOLE[inner]
    return Shape(length, -(-length // inner), na, nb, warps, outer=True)


def _roots(numerators: Tensor, denominator: int) -> tuple[Tensor, Tensor]:
    """cos and sin of `-2 pi numerators / denominator` in float64, numerators int64."""
    # modulo the period in whole numbers first, so that large products lose no digits
    angle = (numerators % denominator).double() * (-2 * math.pi / denominator)
    return angle.cos(), angle.sin()


def _grid(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    return (
        torch.arange(rows, device="cpu")[:, None],
        torch.arange(columns, device="cpu")[None, :],
    )


def _dft(n: int, twisted: bool) -> Tensor:
    """(2, n, n): `exp(-2 pi i f t / n)`, f less a quarter where twisted."""
    f, t = _grid(n, n)
    shift = 1 if twisted else 0
    return torch.stack(_roots((4 * f - shift) * t, 4 * n))


def _halves(tables: list[Tensor], device: torch.device) -> Tensor:
    """All tables in a row as float16, and behind them what rounding has left, times LOW."""
    exact = torch.cat([t.flatten() for t in tables])
    high = exact.half()
    low = ((exact - high.double()) * LOW).half()
    return torch.cat([high, low]).to(device)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def inner_tables(shape: Shape, device: torch.device) -> tuple[Tensor, Tensor]:
    """Matrices F1, F2 (see `_halves`) and twiddles (2, na, nb) of the transform of one program."""
    whole = not shape.outer
    f, t = _grid(shape.na, shape.nb)
    twiddles = torch.stack(_roots((4 * f - (1 if whole else 0)) * t, 4 * shape.inner))
    matrices = _halves([_dft(shape.na, whole), _dft(shape.nb, False)], device)
    return matrices, twiddles.float().to(device)


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def outer_tables(shape: Shape, device: torch.device) -> tuple[Tensor, Tensor]:
    """F1 within (2, side, side), see `_halves`, and phases: (2, n1, na) and (2, n1, nb) in a row.

    Twiddles `exp(-2 pi i (f1 - 1/4) t2 / m)` are products of a phase of each kind, t2 = nb a + b.
    """
    matrix = torch.zeros(2, shape.side, shape.side, dtype=torch.float64, device="cpu")
    matrix[:, : shape.n1, : shape.n1] = _dft(shape.n1, True)
    phases = []
    for count, step in ((shape.na, shape.nb), (shape.nb, 1)):
        f, t = _grid(shape.n1, count)
        phases.append(torch.stack(_roots((4 * f - 1) * t * step, 4 * shape.m)).flatten())
    return _halves([matrix], device), torch.cat(phases).float().to(device)
