"""Calls into the native library: its structs, and arrays as addresses."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import torch
from torch import Tensor

from hyenadna.alphabet import IGNORED
from hyenadna.model.engine.filter_passes import FilterNetwork
from hyenadna.model.engine.kernels import Past
from hyenadna.model.engine.sizes import MOST_LAYERS
from hyenadna.model.engine.weights import BlockWeights, FilterWindow
from hyenadna.native import library

NAMES: Final = {torch.float32: "f32", torch.float64: "f64"}
"""First part of a function's name for each type."""


class Shape(ctypes.Structure):
    """`Shape` of native/layers.h."""

    _fields_ = (
        [(name, ctypes.c_int64) for name in ("B", "L", "D", "I", "K", "F", "start", "count")]
        + [("eps", ctypes.c_double)]
        + [("threads", ctypes.c_int64), ("bf16", ctypes.c_int64)]
    )


class Network(ctypes.Structure):
    """`SineNetwork` of native/filter.h."""

    _fields_ = (
        [(name, ctypes.c_int64) for name in ("E", "F", "layers")]
        + [(name, ctypes.c_void_p * MOST_LAYERS) for name in ("w", "b")]
        + [("freq", ctypes.c_void_p)]
    )


class Filter(ctypes.Structure):
    """`Filter` of native/filter.h."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("hidden", "t", "rates")] + [
        ("shift", ctypes.c_double)
    ]


class PastStruct(ctypes.Structure):
    """`Past` of native/mixer.h."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("halo", "next_halo", "settled")] + [
        ("settled_batch", ctypes.c_int64)
    ]


class Head(ctypes.Structure):
    """`Head` of native/ends.h."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("w", "norm_w", "norm_b")] + [
        (name, ctypes.c_int64) for name in ("V", "ignored")
    ]


@lru_cache(maxsize=1)
def native_library() -> Any:
    found = library()
    assert found is not None, "asked for native kernels where there are none"
    found.fft_length.restype = ctypes.c_int64
    found.fft_length.argtypes = [ctypes.c_int64]
    found.kept.restype = ctypes.c_int64
    return found


class Call:
    """One call into the library. Keeps alive what its pointers point to."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._kept: list[Tensor] = []

    def written(self, tensor: Tensor) -> int:
        """Address of a tensor that the kernel writes: never of a copy."""
        assert tensor.is_contiguous() and tensor.dtype == self.dtype
        self._kept.append(tensor)
        return tensor.data_ptr()

    def sums(self, tensors: Sequence[Tensor]) -> Any:
        """A C array of the addresses of tensors that the kernel adds to."""
        return (ctypes.c_void_p * len(tensors))(*map(self.written, tensors))

    def address(self, tensor: Tensor) -> int:
        """Of the first number; the tensor, or a contiguous copy, lives as long as the call."""
        tensor = tensor.detach().contiguous()
        assert tensor.dtype == self.dtype, f"{tensor.dtype} among {self.dtype}"
        self._kept.append(tensor)
        return tensor.data_ptr()

    def pointers(self, tensors: Sequence[Tensor]) -> Any:
        """A C array of their addresses."""
        return (ctypes.c_void_p * len(tensors))(*map(self.address, tensors))

    def weights(self, w: BlockWeights) -> Any:
        """`Tensors` of native/layers.h: its fields are in the order of BlockWeights."""
        return self.pointers(w.tensors())

    def filter(self, hidden: Tensor, window: FilterWindow) -> Any:
        """The struct of that name."""
        tensors = (hidden, window.t, window.rates)
        return ctypes.byref(Filter(*map(self.address, tensors), window.shift))

    def network(self, network: FilterNetwork) -> Any:
        """The struct of that name."""
        first = network.weights[0]
        found = Network(E=first.shape[1], F=first.shape[0], layers=len(network.weights))
        for i, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
            found.w[i], found.b[i] = self.address(weight), self.address(bias)
        found.freq = self.address(network.freq)
        return ctypes.byref(found)

    def past(self, past: Past, length: int) -> Any:
        """The struct of that name."""
        settled = past.settled
        if settled is None:
            return ctypes.byref(PastStruct(self.address(past.halo), self.written(past.next_halo)))
        assert settled.shape[1] >= length and settled[0].is_contiguous()
        assert settled.dtype == self.dtype
        self._kept.append(settled)
        apart = settled.stride(0) if len(settled) > 1 else 0
        addresses = self.address(past.halo), self.written(past.next_halo), settled.data_ptr()
        return ctypes.byref(PastStruct(*addresses, apart))

    def head(self, head: Tensor, norm: tuple[Tensor, Tensor]) -> Any:
        """The struct of that name."""
        addresses = map(self.address, (head, *norm))
        return ctypes.byref(Head(*addresses, len(head), IGNORED))

    def __call__(self, name: str, *arguments: Any) -> None:
        """Runs the kernel for the type. Raises MemoryError when memory has run out."""
        function = getattr(native_library(), f"{NAMES[self.dtype]}_{name}")
        if function(*map(self._converted, arguments)):
            raise MemoryError(f"native kernel {name}: out of memory")

    def _converted(self, argument: Any) -> Any:
        if isinstance(argument, Tensor):
            # Work arrays are written to, so a silent copy would lose the result.
            assert argument.is_contiguous() and argument.dtype in (self.dtype, torch.int64)
            return ctypes.c_void_p(argument.data_ptr())
        if isinstance(argument, int):
            return ctypes.c_int64(argument)
        if isinstance(argument, Shape):
            return ctypes.byref(argument)
        return argument
