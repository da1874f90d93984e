"""Operations and bytes of a step of one rank, by part.

A multiplication and an addition count as two operations; a real FFT of n samples as 2.5 n log2 n.
The backward pass of a product is two of its size. What is computed again in it: the projections
into the mixer and into the MLP's hidden layer, and the filters (checkpointing stops where the last
tensor that was kept is there again, so the products out of them are not).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from hyenadna.config import ModelConfig
from hyenadna.model.engine.sizes import native_transform
from hyenadna.model.planning.context import mixed_channels
from hyenadna.model.planning.setup import Setup

_PASSES_BITS: Final = 10
"""A transform on a GPU goes through memory once for each so many bits of its length."""
_LAUNCHES: Final = 300
"""Kernels of a block, or of a group of its channels, on a GPU: forward, again and backward."""
_ENGINE_LAUNCHES: Final = 160
"""The same through the engine: an assumption."""


@dataclass(frozen=True)
class Work:
    """What one rank does in a step (in inference: to its rows)."""

    products: float
    """Operations of matrix products, those of attention's scores included."""
    transforms: float
    """Operations of FFTs."""
    transform_bytes: float
    """Bytes that FFTs and products of spectra move."""
    traffic: float
    """Bytes that all else moves: norms, gates, GELU, the short filter, the optimiser."""
    again: float
    """Part of the products that is made again in the backward pass."""
    launches: float
    """Kernels that are started on a GPU."""


def fft_operations(n: int) -> float:
    """Operations of a real transform of n samples."""
    return 2.5 * n * math.log2(max(n, 2))


def work(setup: Setup) -> Work:
    """The work of all passes of a step, and of the optimiser."""
    config, passes = setup.config, setup.passes
    rows = setup.rows_at_once
    layers, positions, lags = config.n_layer, rows * setup.here, setup.here
    forward = layers * (positions * block_products(config) + lags * filter_products(config))
    forward += layers * rows * _score_products(setup)
    head = 2.0 * positions * config.d_model * config.padded_vocab_size
    again = 0.0
    if setup.recomputes:
        again = layers * (positions * again_products(config) + lags * filter_products(config))
        if config.mixer == "attention":
            again += layers * rows * _score_products(setup)
    times = 3 if setup.training else 1
    transforms, moved = _transforms(setup)
    sweeps = 1 if not setup.training else 3 + (1 if setup.recomputes else 0)
    if setup.engine and not setup.gpu:  # cut to stay in the cache: five arrays of the stream
        traffic = 4.0 * layers * positions * config.d_model * 5 * sweeps
    else:
        traffic = (
            sweeps * layers * (positions * _block_traffic(setup) + lags * _filter_traffic(setup))
        )
    traffic += 4.0 * times * positions * (3 * config.d_model + 4 * config.padded_vocab_size)
    optimiser = 28.0 * config.num_parameters() * setup.training
    optimiser /= setup.ranks if setup.fsdp else 1
    return Work(
        products=passes * (times * (forward + head) + again),
        transforms=passes * transforms,
        transform_bytes=passes * moved,
        traffic=passes * traffic + optimiser,
        again=passes * again,
        launches=passes * _launches(setup),
    )


def block_products(c: ModelConfig) -> float:
    """Operations of products, forward, a position of a block."""
    return 2.0 * c.d_model * (c.projected_width + c.d_model + 2 * c.inner_width)


def again_products(c: ModelConfig) -> float:
    """Those of them that the backward pass does again: into the mixer and the hidden layer."""
    return 2.0 * c.d_model * (c.projected_width + c.inner_width)


def filter_products(c: ModelConfig) -> float:
    """Operations of the filter network, forward, a lag of a block."""
    if c.mixer == "attention":
        return 0.0
    f = c.filter_order
    return 2.0 * (c.emb_dim * f + c.num_inner_mlps * f * f + f * c.filter_channels)


def _score_products(setup: Setup) -> float:
    """Forward, a sequence of a block: both products of attention, the causal half."""
    if setup.config.mixer == "hyena":
        return 0.0
    return 2.0 * setup.length * setup.length * setup.config.d_model


def transform_counts(setup: Setup) -> tuple[int, int]:
    """Transforms of a channel in a pass: of signals or gradients, and of filters."""
    b, again = setup.rows_at_once, int(setup.recomputes)
    if not setup.training:
        return 2 * b, 1
    if setup.engine:  # signal and result; both again with their gradients
        return 2 * b + 4 * b, 2
    return (2 + 2 * again + 3) * b, 1 + again + 2


def _transforms(setup: Setup) -> tuple[float, float]:
    """Operations, and bytes moved, of the FFTs of a pass."""
    c = setup.config
    if c.mixer == "attention":
        return 0.0, 0.0
    channels = c.n_layer * c.filter_channels / setup.context
    n = 2 * (native_transform(setup.length) if setup.native_engine else setup.length)
    count = sum(transform_counts(setup))
    sweeps = math.ceil(math.log2(max(n, 2)) / _PASSES_BITS)
    # a sweep reads and writes n numbers; and padding, cutting and products of spectra about two
    moved = count * 4.0 * n * (2 * sweeps + 4)
    return channels * count * fft_operations(n), channels * moved


def _block_traffic(setup: Setup) -> float:
    """Bytes, forward, a position of a block: read and written tensor by tensor."""
    c = setup.config
    size = 2.0 if setup.half else 4.0
    if setup.engine:
        # norms and sums, products, gates and GELU: the table of docs/decisions/gpu-engine.md
        return 4.0 * 7 * c.d_model + size * (20 * c.d_model + 4 * c.inner_width)
    if c.mixer == "attention":
        return 4.0 * 12 * c.d_model + size * (26 * c.d_model + 4 * c.inner_width)
    wide = c.projected_width
    short = 2 + 3 * (c.short_filter_order - 1)
    gates = 3 * c.hyena_order
    numbers = (12 + gates) * c.d_model + (2 + short) * wide
    return 4.0 * numbers + size * (5 * c.d_model + wide + 4 * c.inner_width)


def _filter_traffic(setup: Setup) -> float:
    """Bytes, forward, a lag of a block."""
    c = setup.config
    if c.mixer == "attention":
        return 0.0
    if setup.engine:  # a network of one kernel: its last layer's output, and the filters
        return 4.0 * (2 * c.filter_order + 2 * c.filter_channels)
    return 4.0 * (6 * c.filter_order * (c.num_inner_mlps + 1) + 7 * c.filter_channels)


def _launches(setup: Setup) -> float:
    if not setup.gpu:
        return 0.0
    config, groups = setup.config, 1
    if setup.context > 1:
        mixed = mixed_channels(setup.rows_at_once, setup.here, setup.context, gpu=True)
        groups = math.ceil(config.d_model / mixed)
    each = _ENGINE_LAUNCHES if setup.engine else _LAUNCHES
    return config.n_layer * groups * each * (1.0 if setup.training else 0.25)
