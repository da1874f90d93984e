"""Causal convolutions behind one door: `long_convolution` and `short_convolution`."""

from hyenadna.conv.door import METHODS, long_convolution
from hyenadna.conv.short import short_convolution

__all__ = ["METHODS", "long_convolution", "short_convolution"]
