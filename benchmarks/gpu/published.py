"""Figures of others that ours stand beside, and where each was read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

FLASH_FFT_CONV: Final[Mapping[int, float]] = {
    1_024: 0.29e-3,
    32_768: 26.3e-3,
    1_048_576: 1.769,
    4_194_304: 10.049,
}
"""Seconds by length: gated convolution, B 64, H 768, FlashFFTConv on an H100.

README of https://github.com/HazyResearch/flash-fft-conv; its own PyTorch column is below. Forward
pass in half precision, larger cases measured in parts and scaled there too. It does not say whether
a length is that of the sequence or of the transform, which is at most 4,194,304 there; ours is the
length of the sequence, the harder case.
"""
FLASH_PYTORCH: Final[Mapping[int, float]] = {
    1_024: 2.30e-3,
    32_768: 84.8e-3,
    1_048_576: 3.071,
    4_194_304: 13.031,
}
PAPER_TOKENS_PER_SECOND: Final = 103_000.0
"""Training of large-1m at a million tokens, on one A100-80GB: DERIVED, not published.

From 2 T tokens in 4 weeks on "up to 8" such GPUs (arXiv 2306.15794, appendix A.1).
"""
PAPER_RATIO: Final = 160
"""Times as fast as a Transformer with FlashAttention of 2022 at 1M tokens, A100-80GB: the paper's
figure 4.1. Another GPU and another attention: not to be compared with ours as it stands."""
