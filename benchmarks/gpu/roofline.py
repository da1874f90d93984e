"""The least that a job must compute and move, and the least time in which a machine could.

A multiplication and an addition count as two operations, a real FFT of n samples as 2.5 n log2 n,
signals padded to 2 L. Bytes are those that any way of computing must move through the memory of the
device where no whole sequence fits nearer to the processors: what goes into a stage that needs all
positions, and what comes out of it. Products run at the rate of bf16, transforms at that of
float32, and neither waits for the other: an optimist's bound. Transforms that are themselves matrix
products (`hyenadna.conv.matrix_fft`) count as products, with the bytes of their own passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.long_context.limits import fft_flops
from torch import Tensor

from hyenadna.config import ModelConfig
from hyenadna.conv import matrix_fft
from hyenadna.conv.matrix_work import backward_work, forward_work, spectrum_work
from hyenadna.model.planning.work import again_products, block_products, filter_products


@dataclass(frozen=True)
class Work:
    """What a job has to do."""

    products: float
    """Operations of matrix products."""
    transforms: float
    """Operations of FFTs."""
    traffic: float
    """Bytes read and written."""


@dataclass(frozen=True)
class Limits:
    """Rates of a machine, in operations and bytes a second."""

    products: float
    vector: float
    """Operations outside of matrix products, float32."""
    bandwidth: float


@dataclass(frozen=True)
class Bound:
    """The least time, and what sets it."""

    seconds: float
    by: str


def bound(work: Work, limits: Limits) -> Bound:
    """The least seconds in which the machine could do the work."""
    times = {
        "matrix products": work.products / limits.products,
        "FFTs": work.transforms / limits.vector,
        "memory": work.traffic / limits.bandwidth,
    }
    by = max(times, key=lambda name: times[name])
    return Bound(times[by], by)


def sheet_limits(device: str) -> Limits | None:
    """Rates of the data sheet of the GPU of that name; None for one that is not known."""
    from hyenadna.model.planning.devices import DEVICES

    found = next((d for name, d in DEVICES.items() if name in device.lower()), None)
    if found is None:
        return None
    return Limits(found.products["bf16"], found.products["float32"], found.bandwidth)


def measured_limits(result: Mapping[str, Any], vector: float) -> Limits:
    """Rates that `benchmarks.gpu.limits.rates` measured.

    vector: of float32 outside of matrix products, by the data sheet: nothing measures it here.
    """
    return Limits(result["products"]["bf16"], vector, result["copy"])


def model_work(config: ModelConfig, batch: int, length: int, *, training: bool = True) -> Work:
    """Of one pass over (B, L) tokens: forward, or forward and backward with recomputed blocks.

    Products: the block's four and the head's; in training three times, and those into the mixer and
    into the hidden layer once more. Transforms: of a signal its spectrum and the result, in
    training both again with the gradients of the three factors; of a filter one, in training
    two. Bytes: of a block the float32 stream in and out, and the gated signal and the mixed one,
    in half precision, written and read; in training three times that.
    """
    c, tokens = config, batch * length
    head = 2.0 * c.d_model * c.padded_vocab_size
    forward = c.n_layer * (tokens * block_products(c) + length * filter_products(c))
    one = fft_flops(2 * length)
    if not training:
        products = forward + tokens * head
        transforms = c.n_layer * c.filter_channels * (2 * batch + 1) * one
        sweeps = 1
    else:
        products = 3 * (forward + tokens * head) + c.n_layer * tokens * again_products(c)
        transforms = c.n_layer * c.filter_channels * (6 * batch + 2) * one
        sweeps = 3
    traffic = sweeps * c.n_layer * tokens * c.d_model * (2 * 4.0 + 4 * 2.0)
    return Work(products, transforms, traffic)


def convolution_work(batch: int, channels: int, length: int, itemsize: int = 2) -> Work:
    """Of a gated convolution by FFTs, forward: `after * (k conv (before * v))`.

    Three signals read and one written, `itemsize` bytes a number; a float32 filter read.
    """
    signals = batch * channels * length
    return Work(
        products=0.0,
        transforms=(2 * batch + 1) * channels * fft_flops(2 * length),
        traffic=4.0 * itemsize * signals + 4.0 * channels * length,
    )


def matrix_convolution_work(v: Tensor, *, backward: bool = False) -> Work:
    """The same by the matrix products of `hyenadna.conv`, for signals such as v (B, C, L).

    backward: and its backward pass. Spectra of the filters are made in each pass; bytes of all ways
    through memory are counted. Raises InputError for a length that is too large.
    """
    batch, channels, length = v.shape
    shape = matrix_fft.shape_for(length, v.dtype, v.device)
    work = spectrum_work(shape, channels, length)
    work += forward_work(shape, channels, batch, length, v.dtype)
    if backward:
        work += spectrum_work(shape, channels, length)
        work += backward_work(shape, channels, batch, length, v.dtype)
    return Work(products=work.flops, transforms=0.0, traffic=work.bytes)
