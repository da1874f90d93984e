"""How a signal length is taken apart into small matrix products, and the tables for that."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from hyenadna.conv.cuda_graphs import keep_for_graphs
from hyenadna.conv.triton_launch import at_least

LOW: Final = 2048.0
"""The second half of a split factor is kept times this (see `triton_fft`)."""
PADDING: Final = 16
"""Numbers behind each spectrum; the first is what the spectrum must be multiplied with."""
WHOLE: Final = {256: (16, 16, 1), 512: (32, 16, 2), 1024: (64, 16, 4), 2048: (64, 32, 4),
                4096: (128, 32, 8), 8192: (128, 64, 8)}  # fmt: skip
"""m -> (N1, N2, warps) of the transforms that one program does in registers. Chosen by what the
compiler says about registers and spills: docs/decisions/matrix-fft.md."""


@dataclass(frozen=True)
class Shape:
    """m = n1 * inner complex points, for signals of up to m samples.

    inner = na * nb points are transformed by one program; without `outer` that is all.
    """

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
        return min(128, at_least(self.n1, 16))

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
            return Shape(1, *WHOLE[at_least(length, 256)], outer=False)
        inner = min(largest, 4096 if length > 1 << 20 else 2048)
    na, nb, warps = WHOLE[inner]
    return Shape(-(-length // inner), na, nb, warps, outer=True)


def between_bytes(dtype: torch.dtype) -> int:
    """Bytes of a complex number between the kernels of long signals of this type."""
    return 8 if dtype == torch.float32 else 4


def _roots(rows: int, columns: int, period: int, *, twisted: bool, step: int = 1) -> Tensor:
    """`exp(-2 pi i f step t / period)` for f < rows and t < columns, f less a quarter if twisted.

    (2, rows, columns) in float64: real and imaginary parts.
    """
    # on the CPU: the same tables beside every GPU
    f = 4 * torch.arange(rows, device="cpu")[:, None] - int(twisted)
    t = step * torch.arange(columns, device="cpu")
    # modulo the period in whole numbers first, so that large products lose no digits
    angle = (f * t % (4 * period)).double() * (-2 * math.pi / (4 * period))
    return torch.stack([angle.cos(), angle.sin()])


def _halves(tables: list[Tensor], device: torch.device) -> Tensor:
    """All tables in a row as float16, and behind them what rounding has left, times LOW."""
    exact = torch.cat([t.flatten() for t in tables])
    high = exact.half()
    low = ((exact - high.double()) * LOW).half()
    return torch.cat([high, low]).to(device)


def inner_tables(shape: Shape, device: torch.device) -> tuple[Tensor, Tensor]:
    """Matrices F1, F2 (see `_halves`) and twiddles (2, na, nb) of the transform of one program."""
    return _inner_tables(shape.na, shape.nb, not shape.outer, device)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _inner_tables(na: int, nb: int, twisted: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    first, second = (_roots(n, n, n, twisted=t) for n, t in ((na, twisted), (nb, False)))
    twiddles = _roots(na, nb, na * nb, twisted=twisted)
    return _halves([first, second], device), twiddles.float().to(device)


def outer_tables(shape: Shape, device: torch.device) -> tuple[Tensor, Tensor]:
    """F1 within (2, side, side), see `_halves`, and phases: (2, n1, na) and (2, n1, nb) in a row.

    Twiddles `exp(-2 pi i (f1 - 1/4) t2 / m)` are products of a phase of each kind, t2 = nb a + b.
    """
    tables = _outer_tables(shape, device)
    keep_for_graphs(*tables)
    return tables


@lru_cache(maxsize=32)  # one of 33 MB for 8M samples, of 2 MB for 2M
@torch.inference_mode(False)
def _outer_tables(shape: Shape, device: torch.device) -> tuple[Tensor, Tensor]:
    n1, na, nb = shape.n1, shape.na, shape.nb
    matrix = torch.zeros(2, shape.side, shape.side, dtype=torch.float64, device="cpu")
    matrix[:, :n1, :n1] = _roots(n1, n1, n1, twisted=True)
    phases = [
        _roots(n1, na, shape.m, twisted=True, step=nb).flatten(),
        _roots(n1, nb, shape.m, twisted=True).flatten(),
    ]
    return _halves([matrix], device), torch.cat(phases).float().to(device)
