"""Native kernels, compiled from the C++ beside this file at first use; never required."""

from hyenadna.native.build import library, why_not

__all__ = ["library", "why_not"]
