"""What the kernels of `matrix_fft` have to do: operations on tensor cores and bytes moved.

For the share of a GPU's limit that a measured time reaches. Bytes are those of the memory; tables,
and what a program reads again soon after, are taken to come from the cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hyenadna.conv.matrix_tables import Shape, between_bytes

COMPLEX = 8
"""Bytes of a complex number in float32."""


@dataclass(frozen=True)
class Work:
    """Floating point operations in products of float16 numbers, and bytes to and from memory."""

    flops: float
    bytes: float

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.bytes + other.bytes)


def forward_work(
    shape: Shape, channels: int, batch: int, length: int, dtype: torch.dtype, *, gates: int = 2
) -> Work:
    """Work of `convolve` on (C, B, L) signals, with so many gates; the spectra are there."""
    rows = channels * batch
    signals = (2 + gates) * length * dtype.itemsize * rows
    spectra = COMPLEX * shape.m * channels
    between = 4 * between_bytes(dtype) * shape.m * rows if shape.outer else 0
    flops = rows * _factor(dtype) * 2 * _transform(shape)
    return Work(flops, signals + spectra + between)


def backward_work(
    shape: Shape, channels: int, batch: int, length: int, dtype: torch.dtype, *, gates: int = 2
) -> Work:
    """Work of `gradients` on (C, B, L) signals, with so many gates; that of filters is in it."""
    rows = channels * batch
    both = 2 if gates else 1  # without a gate after, the output is not computed again
    signals = (3 + 2 * gates) * length * dtype.itemsize * rows
    between = (4 + 2 * both) * between_bytes(dtype) * shape.m * rows if shape.outer else 0
    filters = channels * ((5 if shape.outer else 3) * COMPLEX * shape.m + 4 * length)
    transforms = rows * (2 + both) + channels
    return Work(_factor(dtype) * transforms * _transform(shape), signals + filters + between)


def spectrum_work(shape: Shape, channels: int, length: int) -> Work:
    """Work of `spectrum` on (C, L) filters: always with split factors."""
    moved = 4 * length + (3 if shape.outer else 1) * COMPLEX * shape.m
    return Work(3 * channels * _transform(shape), channels * moved)


def _factor(dtype: torch.dtype) -> int:
    """Products for each product: of float32 factors three."""
    return 3 if dtype == torch.float32 else 1


def _transform(shape: Shape) -> float:
    """Operations of one transform of one row, one way."""
    if not shape.outer:
        return 2.0 * shape.m * (2 * shape.na + 4 * shape.nb)
    inner = 2.0 * shape.m * (4 * shape.na + 4 * shape.nb)
    return inner + 2.0 * 2 * shape.side * shape.outer_steps * shape.inner
