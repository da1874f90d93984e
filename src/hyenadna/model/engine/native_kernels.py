"""The kernels of a block in native code (src/hyenadna/native), on the CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from hyenadna.config import ModelConfig
from hyenadna.model.engine.weights import BlockWeights, FilterWindow
from hyenadna.native import library

GROUP: Final = 16
"""Channels that are computed side by side."""
_MOST_TAPS: Final = 16
_NAMES: Final = {torch.float32: "f32", torch.float64: "f64"}
_NORMS = slice(0, 6)


class _Shape(ctypes.Structure):
    _fields_ = (
        [(name, ctypes.c_int64) for name in ("B", "L", "D", "I", "K", "F", "start", "count")]
        + [("eps", ctypes.c_double)]
        + [("threads", ctypes.c_int64)]
    )


def available(config: ModelConfig, dtype: torch.dtype) -> bool:
    """Whether there are native kernels for models of this shape and type on this machine."""
    return (
        dtype in _NAMES
        and config.d_model % GROUP == 0
        and config.inner_width % GROUP == 0
        and 1 <= config.short_filter_order <= _MOST_TAPS
        and library() is not None
    )


class NativeKernels:
    """Native code behind the `Kernels` protocol. All tensors: contiguous, on the CPU, of one type."""

    name = "native"

    def channel_step(self) -> int:
        """Channel blocks are multiples of 16."""
        return GROUP

    def spectrum(
        self, hidden: Tensor, w: BlockWeights, window: FilterWindow, channels: slice
    ) -> Tensor:
        """See `Kernels.spectrum`. Result: (channels / 16, N, 2, 16)."""
        length = hidden.shape[0]
        n = _library().fft_length(length)
        groups = (channels.stop - channels.start) // GROUP
        out = hidden.new_empty(groups, n, 2, GROUP)
        shape = _shape(w, 1, length, channels, 0.0)
        shape.F = hidden.shape[1]
        last, skip = w.last_weight.contiguous(), w.skip.contiguous()
        t, rates = window.t.to(hidden.dtype).contiguous(), window.rates.to(hidden.dtype).contiguous()
        _call("spectrum", shape, hidden, last, skip, t, rates, window.shift, out)
        return out

    def mix(
        self, h: Tensor, w: BlockWeights, eps: float, spectrum: Tensor, channels: slice, y: Tensor
    ) -> None:
        """See `Kernels.mix`."""
        batch, length, _ = h.shape
        gated = h.new_empty(batch, (channels.stop - channels.start) // GROUP, length, GROUP)
        with _Pointers(w) as pointers:
            _call("mix", _shape(w, batch, length, channels, eps), pointers, h, spectrum, gated, y)

    def finish(self, h: Tensor, y: Tensor, w: BlockWeights, eps: float, out: Tensor) -> None:
        """See `Kernels.finish`."""
        with _Pointers(w) as pointers:
            _call("finish", _whole(w, h, eps), pointers, h, y, out)

    def finish_backward(
        self, h: Tensor, y: Tensor, w: BlockWeights, eps: float, grad: Tensor, sums: BlockWeights
    ) -> None:
        """See `Kernels.finish_backward`."""
        d, inner = h.shape[-1], w.fc1_weight.shape[0]
        flat = h.new_empty(d * d + 2 * inner * d + 2 * d + inner)
        with _Pointers(w) as pointers:
            _call("finish_backward", _whole(w, h, eps), pointers, h, y, grad, flat)
        out_w, fc1_w, fc2_w, out_b, fc1_b, fc2_b = flat.split(
            [d * d, inner * d, d * inner, d, inner, d]
        )
        sums.out_weight.add_(out_w.view(d, d))
        sums.fc2_weight.add_(fc2_w.view(d, inner))
        sums.out_bias.add_(out_b)
        sums.fc1_bias.add_(fc1_b)
        sums.fc2_bias.add_(fc2_b)
        _unfold(
            fc1_w.view(inner, d), fc1_b, w.fc1_weight, w.norm2_weight, w.norm2_bias,
            sums.fc1_weight, sums.norm2_weight, sums.norm2_bias,
        )  # fmt: skip

    def mix_backward(
        self,
        h: Tensor,
        w: BlockWeights,
        eps: float,
        spectrum: Tensor,
        channels: slice,
        grad_y: Tensor,
        grad_n: Tensor,
        sums: BlockWeights,
    ) -> Tensor:
        """See `Kernels.mix_backward`."""
        batch, length, d = h.shape
        count = channels.stop - channels.start
        groups, taps = count // GROUP, w.short_weight.shape[1]
        projected = h.new_empty(batch, groups, length, 3 * GROUP)
        grad_k = h.new_empty(length, count)
        flat = h.new_empty(groups * 3 * GROUP * (d + 1))
        short = torch.zeros(groups, taps + 1, 3, GROUP, dtype=torch.float64)
        shape = _shape(w, batch, length, channels, eps)
        with _Pointers(w) as pointers:
            _call("mix_backward", shape, pointers, h, spectrum, grad_y, projected, grad_k, grad_n,
                  flat, short)  # fmt: skip
        matrix, bias = flat.split([count * 3 * d, count * 3])
        matrix = matrix.view(groups, 3, GROUP, d).transpose(0, 1).reshape(3, count, d)
        bias = bias.view(groups, 3, GROUP).transpose(0, 1).reshape(3, count)
        taps_first = short.permute(2, 0, 3, 1).reshape(3, count, taps + 1).to(h.dtype)
        for run in range(3):
            rows = slice(run * d + channels.start, run * d + channels.stop)
            sums.short_weight[rows] += taps_first[run, :, :taps]
            sums.short_bias[rows] += taps_first[run, :, taps]
            sums.in_bias[rows] += bias[run]
            _unfold(
                matrix[run], bias[run], w.in_weight[rows], w.norm1_weight, w.norm1_bias,
                sums.in_weight[rows], sums.norm1_weight, sums.norm1_bias,
            )  # fmt: skip
        return grad_k

    def norm_backward(self, h: Tensor, eps: float, grad_n: Tensor, grad: Tensor) -> None:
        """See `Kernels.norm_backward`."""
        batch, length, d = h.shape
        shape = _Shape(B=batch, L=length, D=d, eps=eps, threads=torch.get_num_threads())
        _call("norm_backward", shape, h, grad_n, grad)


def _unfold(
    matrix: Tensor, bias: Tensor, weight: Tensor, norm_weight: Tensor, norm_bias: Tensor,
    sum_weight: Tensor, sum_norm_weight: Tensor, sum_norm_bias: Tensor,
) -> None:  # fmt: skip
    """Gradients of a weight and of the norm before it from that of their product.

    With x = n g + b: W x = (W diag(g)) n + W b, so `matrix` is the gradient of W diag(g).
    """
    sum_weight.add_(matrix * norm_weight).addr_(bias, norm_bias)
    sum_norm_weight.add_((matrix * weight).sum(0))
    sum_norm_bias.add_(bias @ weight)


class _Pointers:
    """A C array of pointers to the weights, valid inside the `with` block."""

    def __init__(self, w: BlockWeights) -> None:
        self._kept = [t.detach().contiguous() for t in w.tensors()]

    def __enter__(self) -> Any:
        # The order of the fields of `Weights` in block.h is that of BlockWeights.
        return (ctypes.c_void_p * len(self._kept))(*[t.data_ptr() for t in self._kept])

    def __exit__(self, *_: object) -> None:
        self._kept.clear()


def _shape(w: BlockWeights, batch: int, length: int, channels: slice, eps: float) -> _Shape:
    inner, d = w.fc1_weight.shape
    return _Shape(
        B=batch,
        L=length,
        D=d,
        I=inner,
        K=w.short_weight.shape[1],
        start=channels.start,
        count=channels.stop - channels.start,
        eps=eps,
        threads=torch.get_num_threads(),
    )


def _whole(w: BlockWeights, h: Tensor, eps: float) -> _Shape:
    return _shape(w, h.shape[0], h.shape[1], slice(0, h.shape[2]), eps)


def _library() -> Any:
    found = library()
    assert found is not None, "asked for native kernels where there are none"
    found.fft_length.restype = ctypes.c_int64
    found.fft_length.argtypes = [ctypes.c_int64]
    return found


def _call(name: str, shape: _Shape, *arguments: Any) -> None:
    """Calls the kernel of the tensors' type. Raises MemoryError when memory has run out."""
    tensors = [a for a in arguments if isinstance(a, Tensor)]
    kind = _NAMES[tensors[0].dtype]
    for tensor in tensors:
        assert tensor.is_contiguous(), f"{name}: a tensor of shape {tuple(tensor.shape)}"
    function: Callable[..., int] = getattr(_library(), f"{kind}_{name}")
    if function(ctypes.byref(shape), *_converted(arguments)):
        raise MemoryError(f"native kernel {name}: out of memory")


def _converted(arguments: Sequence[Any]) -> list[Any]:
    result: list[Any] = []
    for argument in arguments:
        if isinstance(argument, Tensor):
            result.append(ctypes.c_void_p(argument.data_ptr()))
        elif isinstance(argument, float):
            result.append(ctypes.c_double(argument))
        else:
            result.append(argument)
    return result
