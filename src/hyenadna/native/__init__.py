"""Native kernels, compiled from the C++ beside this file at first use; never required."""

from hyenadna.native.build import library, must_compile, why_not

__all__ = ["library", "must_compile", "why_not"]
