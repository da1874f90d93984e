"""Causal convolutions: `long_convolution`, `gated_long_convolution` and `short_convolution`."""

from hyenadna.conv.door import METHODS, long_convolution
from hyenadna.conv.gated import gated_long_convolution
from hyenadna.conv.short import short_convolution

__all__ = ["METHODS", "gated_long_convolution", "long_convolution", "short_convolution"]
