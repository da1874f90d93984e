"""The long convolution between its two gates, behind one door."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hyenadna.conv import matrix_fft, trial
from hyenadna.conv.door import METHODS, long_convolution, with_skip
from hyenadna.conv.triton_launch import why_no_triton
from hyenadna.errors import InputError

GATED_METHODS: Final = ("auto", "matrix", *METHODS)
LONGEST_BY_MATRIX: Final = 1 << 23
"""`auto` takes the FFT for longer signals, on paper (docs/decisions/matrix-fft.md): the work of the
outer products grows with the square of the length."""


def gated_long_convolution(
    v: Tensor,
    k: Tensor,
    skip: Tensor | None = None,
    *,
    before: Tensor | None = None,
    after: Tensor | None = None,
    method: str = "auto",
) -> Tensor:
    """`after * (k conv (v * before) + skip (v * before))`, (B, C, L) in the type of v.

    v, before, after: (B, C, L), of one type; a gate may be left out. k: (C, L), float32 or float64;
    skip: (C,). Computes in the type of k, whatever autocast says. Only the arguments are kept for
    the backward pass by `matrix`, which has no second derivatives.

    method: `matrix` (see `matrix_fft`; needs an NVIDIA GPU with Triton, k in float32 and v in
    float32, bfloat16 or float16), `fft`, its slow twin `direct`, or `auto`: `matrix` where it can
    be, signals are not longer than LONGEST_BY_MATRIX and a trial came out right, else `fft`.

    Raises InputError for an unknown method, shapes that do not fit, or `matrix` where it cannot be.
    """
    if method not in GATED_METHODS:
        raise InputError(
            f"gated convolution: no method {method!r}; there are {', '.join(GATED_METHODS)}"
        )
    _check(v, k, skip, before, after)
    if method == "auto":
        length = v.shape[-1]
        able = v.is_cuda and 0 < length <= LONGEST_BY_MATRIX and _why_no_matrix(v, k) is None
        right = able and trial.is_right(_error, length, v.dtype, v.device)
        method = "matrix" if right else "fft"
    if method == "matrix":
        reason = _why_no_matrix(v, k)
        if reason is not None:
            raise InputError(
                f"gated convolution: no kernels for method 'matrix': {reason}; take method='fft'"
            )
        result: Tensor = _GatedConvolution.apply(v, k, skip, before, after)
        return result
    u = v.to(k.dtype)
    if before is not None:
        u = u * before.to(k.dtype)
    y = long_convolution(u, k, skip, method=method)
    if after is not None:
        y = y * after.to(k.dtype)
    return y.to(v.dtype)


def _check(
    v: Tensor, k: Tensor, skip: Tensor | None, before: Tensor | None, after: Tensor | None
) -> None:
    if v.dim() != 3 or k.shape != v.shape[1:]:
        raise InputError(
            f"gated convolution: signals of shape {tuple(v.shape)} and filters of shape "
            f"{tuple(k.shape)}; they must be (B, C, L) and (C, L)"
        )
    if skip is not None and skip.shape != k.shape[:1]:
        raise InputError(
            f"gated convolution: skip has shape {tuple(skip.shape)}; "
            f"{k.shape[0]} channels need {tuple(k.shape[:1])}"
        )
    for name, other in (("k", k), ("skip", skip), ("before", before), ("after", after)):
        if other is not None and other.device != v.device:
            raise InputError(
                f"gated convolution: {name} is on {other.device}, v on {v.device}; move one of them"
            )
    for name, gate in (("before", before), ("after", after)):
        if gate is not None and (gate.shape != v.shape or gate.dtype != v.dtype):
            raise InputError(
                f"gated convolution: {name} is {gate.dtype} of shape {tuple(gate.shape)}; "
                f"v is {v.dtype} of shape {tuple(v.shape)}"
            )


def _why_no_matrix(v: Tensor, k: Tensor) -> str | None:
    if k.dtype != torch.float32:
        return f"they need filters in float32, not {k.dtype}"
    if v.dtype not in matrix_fft.TYPES:
        return f"they need signals in float32, bfloat16 or float16, not {v.dtype}"
    return why_no_triton(v.device)


def _error(kind: trial.Kind) -> float:
    """Of values and gradients, beside the FFT."""
    (channels, batch), draw = kind.sizes, trial.drawn(kind.device)
    k, skip = trial.decaying_filters(draw, channels, kind.length), draw(channels)
    given = [draw(batch, channels, kind.length).to(kind.dtype) for _ in range(4)]

    def outcome(method: str) -> list[Tensor]:
        leaves = [t.detach().requires_grad_() for t in (given[0], k, skip, given[1], given[2])]
        v, own_k, own_skip, before, after = leaves
        y = gated_long_convolution(v, own_k, own_skip, before=before, after=after, method=method)
        return [y.detach(), *torch.autograd.grad(y, leaves, given[3])]

    return trial.largest_error(outcome("matrix"), [t.float() for t in outcome("fft")])


class _GatedConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, v: Tensor, k: Tensor, skip: Tensor | None, before: Tensor | None,
        after: Tensor | None,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(v, k, skip, before, after)
        shape = matrix_fft.shape_for(v.shape[-1], v.dtype, v.device)
        spectra = matrix_fft.spectrum(with_skip(k, skip), shape)
        y = torch.empty(v.shape, dtype=v.dtype, device=v.device)
        matrix_fft.convolve(shape, spectra, _signals(v, before, after), y.transpose(0, 1))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        v, k, skip, before, after = ctx.saved_tensors
        shape = matrix_fft.shape_for(v.shape[-1], v.dtype, v.device)
        spectra = matrix_fft.spectrum(with_skip(k, skip), shape)
        into = [
            None if x is None else torch.empty(v.shape, dtype=v.dtype, device=v.device)
            for x in (v, before, after)
        ]
        grad_k = matrix_fft.gradients(
            shape, spectra, _signals(v, before, after), _dense(grads[0]).transpose(0, 1),
            [_turned(x) for x in into],
        )  # fmt: skip
        grad_skip = None if skip is None else grad_k[:, 0].to(skip.dtype)
        found = (into[0], grad_k, grad_skip, into[1], into[2])
        return tuple(g if n else None for g, n in zip(found, ctx.needs_input_grad, strict=True))


def _signals(v: Tensor, before: Tensor | None, after: Tensor | None) -> matrix_fft.Signals:
    return matrix_fft.Signals(_dense(v).transpose(0, 1), _turned(before), _turned(after))


def _turned(x: Tensor | None) -> Tensor | None:
    """(B, C, L) -> (C, B, L), dense along L."""
    return None if x is None else _dense(x).transpose(0, 1)


def _dense(x: Tensor) -> Tensor:
    """x, or a copy where neighbours along L lie apart: kernels read them many times over."""
    return x if x.stride(-1) in (0, 1) else x.contiguous()
