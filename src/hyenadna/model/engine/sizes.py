"""How large the engine's chunks are, and the bytes of every buffer that follows (no torch).

Letters as in docs/notation.md; T = B L positions, s bytes a number, m the transform's length, c
channels of a block.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hyenadna.config import ModelConfig

GROUP: Final = 16
"""Channels that native kernels compute side by side."""
MOST_TAPS: Final = 16
"""Of a short filter in native kernels."""
MOST_LAYERS: Final = 16
"""Of a filter network in native kernels."""
ROWS: Final = 1024
"""Positions of one chunk of products, GELU and norms: what they touch stays in the cache."""
FILTER_ROWS: Final = 4096
"""Lags of one chunk of the filter network."""
TRANSFORM_SAMPLES: Final = 1 << 19
"""Complex samples that are transformed together: the temporaries stay near the cache."""
PRODUCT_NUMBERS: Final = 1 << 28
"""On a GPU: inner activations of the MLP that are there at once."""
DEVICE_FILTER_ROWS: Final = 1 << 18
"""The same as `FILTER_ROWS` on a GPU, where a chunk costs a dozen launches."""
DEVICE_SAMPLES: Final = 1 << 26
"""Complex samples that are transformed together on a GPU: half a GiB (as in conv.right_angle)."""
_SHARED: Final = 1 << 17  # native: from here on all threads work on one transform
RESERVE_BYTES: Final = 64 << 20
"""What a pass takes besides its buffers: pages of libraries that it is the first to touch, and the
work space of their products and transforms (measured: 30 to 50 MiB)."""
PROCESS_BYTES: Final = 400 << 20
"""Python with torch loaded, where the system does not say (measured on Linux: 250 to 400 MiB)."""


def resident_bytes() -> int:
    """Memory of this process now; `PROCESS_BYTES` where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return PROCESS_BYTES


def product_rows(inner: int) -> int:
    """Positions of one chunk of products on a GPU, for an MLP of so many inner channels."""
    return max(ROWS, PRODUCT_NUMBERS // inner)


def native_fits(config: ModelConfig) -> bool:
    """Whether native kernels are written for models of this shape."""
    widths = (config.d_model, config.inner_width, config.filter_order, config.padded_vocab_size)
    return (
        config.mixer == "hyena"
        and config.hyena_order == 2
        and not any(width % GROUP for width in widths)
        and config.short_filter_order <= MOST_TAPS
        and config.num_inner_mlps < MOST_LAYERS
    )


def native_transform(length: int) -> int:
    """Points of the native kernels' transform: `Fft::good_length` of native/fft.h."""
    odd = (1, 3, 5, 9, 15, 25, 27, 45, 75, 225)
    return min(n << max(0, (-(-length // n) - 1).bit_length()) for n in odd)


def device_points(length: int) -> int:
    """Most complex points of a filter's spectrum on a GPU, by whichever convolution.

    Of matrix products a power of two up to 8,192 points, from there at most 2,048 more than the
    signal, and 16 numbers beside (`hyenadna.conv.matrix_fft`); of cuFFT an eighth more at most.
    """
    if length <= 8192:
        return max(256, 1 << (length - 1).bit_length()) + 8
    return length + max(2048, length // 8) + 8


@dataclass(frozen=True)
class Workload:
    """One forward pass, or one forward and backward pass, over B sequences of L tokens."""

    config: ModelConfig
    batch: int
    length: int
    itemsize: int = 4
    training: bool = False
    threads: int = 2
    offload: bool = False
    """Whether the blocks' inputs are kept in files."""
    states: bool = False
    """Whether the outputs of all blocks are kept."""
    native: bool = False
    """Whether the native kernels compute it."""
    gpu: bool = False
    """Whether it is computed on a GPU, by torch or by Triton kernels."""
    product_itemsize: int | None = None
    """Bytes of a number in mixed signals and projections, where they are not as the stream is."""

    @property
    def stream(self) -> int:
        """The residual stream: T D s."""
        return self.batch * self.length * self.config.d_model * self.itemsize

    @property
    def mixed(self) -> int:
        """The mixed signal y of a block."""
        return self.stream * self._product // self.itemsize

    @property
    def streams(self) -> int:
        """Arrays of the size of the residual stream.

        Inference: the stream and the mixed signal y, or the outputs of all blocks and of the norm.
        Training: the input of every block (of one block where they are kept in files), the gradient
        that comes in, and the three arrays of a backward pass: gradients of the stream, of y and of
        the norm.
        """
        if not self.training:
            return self.config.n_layer + 1 if self.states else 2
        return (self.config.n_layer if self.states or not self.offload else 1) + 4

    @property
    def spectra(self) -> int:
        """Transforms of all filters of all layers: complex (D, m) each."""
        return self.config.n_layer * self.config.d_model * self._transform * 2 * self.itemsize

    def spectrum(self, channels: int) -> int:
        """The filters' spectrum of a block of channels."""
        return 2 * self._transform * channels * self.itemsize

    def block(self, channels: int) -> int:
        """Buffers of one block of channels.

        Projections 3 T c (native inference: the gated signal, T c) and the filters' spectrum 2 m c;
        in training also gradients of the filters, L c. On a GPU filters and projections are there
        together, and beside them what `MatrixConvolution` has for all channels of the block: the
        gated signal in both types and the convolution's result, T c each; in training gradients of
        projections and filtered signals, 3 T c each, and of y, T c.
        """
        tokens = self.batch * self.length
        projected = tokens if self.native and not self.training else 3 * tokens
        lags = 2 * self._transform + (self.length if self.training else 0)
        if not self.gpu:
            return (projected + lags) * channels * self.itemsize
        products, exact = (7, 3) if self.training else (4, 2)
        signals = tokens * (products * self._product + exact * self.itemsize)
        return ((self.length + lags) * self.itemsize + signals) * channels

    def fixed(self) -> int:
        """Everything else that does not depend on the plan.

        The streams; the filter network's output (L, F), in training with its gradient; logits and
        losses; the temporaries of a chunk: of transforms (two complex and three real signals, in
        training two more of each), of products, of the filter network; the twists; in training two
        copies of all gradients, and which embeddings are dropped.
        """
        c, s = self.config, self.itemsize
        tokens = self.batch * self.length
        if self.gpu:
            return self.streams * self.stream + self._gpu_fixed()
        hidden = self.length * c.filter_order * (2 if self.training else 1)
        head = min(tokens, ROWS) * c.padded_vocab_size * 3 + 3 * tokens
        rows = min(tokens, ROWS) * (2 * c.inner_width + 6 * c.d_model)
        lags = min(self.length, FILTER_ROWS) * (c.d_model + 4 * c.filter_order)
        numbers = hidden + head + rows * (2 if self.training else 1) + lags
        numbers += self._transforms() + 4 * self._transform
        dropped = 0
        if self.training:
            numbers += 2 * c.num_parameters()
            if self.native:  # partial sums of a block's gradients: native/layers.h
                block = c.d_model * c.d_model + 2 * c.d_model * c.inner_width
                numbers += max(2 * block, min(16 * block, 1 << 24))
            dropped = self.stream if c.embed_dropout else 0  # a factor for each
        return self.streams * self.stream + numbers * s + dropped

    def _gpu_fixed(self) -> int:
        """`fixed` without the streams: norms of all positions at once, and larger chunks."""
        c, s = self.config, self.itemsize
        tokens, times = self.batch * self.length, 2 if self.training else 1
        rows = min(tokens, product_rows(c.inner_width))
        products = times * rows * (c.inner_width + 2 * c.d_model) + tokens * c.d_model
        samples = min(DEVICE_SAMPLES, c.d_model * self.batch * self._transform)
        lags = min(self.length, DEVICE_FILTER_ROWS) * (c.d_model + 8 * c.filter_order)
        numbers = self.length * c.filter_order * times + lags
        numbers += tokens * (2 * c.padded_vocab_size + 4) + samples * (12 if self.training else 6)
        if self.training:
            numbers += 2 * c.num_parameters()
        dropped = self.stream if self.training and c.embed_dropout else 0
        return products * self._product + numbers * s + dropped

    @property
    def _product(self) -> int:
        return self.product_itemsize or self.itemsize

    @property
    def _transform(self) -> int:
        if self.native:
            return native_transform(self.length)
        if self.gpu:
            return device_points(self.length)
        return self.length + self.length // 8 + 2

    def _transforms(self) -> int:
        """Numbers in the temporaries of the transforms that run together."""
        if self.native:  # 16 complex channels, in training three times, for each thread
            together = self.threads if self._transform < _SHARED else 1
            return (96 if self.training else 32) * self._transform * together
        one = self.batch * self._transform
        together = max(TRANSFORM_SAMPLES, self.threads * one)
        samples = min(together, self.config.d_model * one)
        return samples * (14 if self.training else 7)
