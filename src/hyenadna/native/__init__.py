"""Native kernels, compiled from the C++ beside this file at first use; never required."""

from hyenadna.native.build import expected, library, must_compile, why_not

__all__ = ["expected", "library", "must_compile", "why_not"]
