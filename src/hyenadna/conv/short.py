"""The short causal filter as shifted multiply-adds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def short_convolution(p: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Depthwise causal filter of a few taps: `s[t] = bias + sum_j weight[j] p[t - (K-1) + j]`.

    p: (B, C, L); weight: (C, K), the last tap multiplies the current sample; bias: (C,); result
    (B, C, L) in the dtype of p. Samples before the start are zero.

    Not a depthwise `Conv1d`: its backward pass on two CPU threads beside another busy process was
    seen to take 49 s instead of 0.03 s (spinning thread barriers).
    """
    result: Tensor = _ShortConvolution.apply(p, weight.to(p.dtype), bias.to(p.dtype))
    return result


class _ShortConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, p: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(p, weight)
        last = weight.shape[-1] - 1
        out = torch.addcmul(bias[:, None], p, weight[:, last, None])
        for back in range(1, min(last, p.shape[-1] - 1) + 1):
            out[..., back:].addcmul_(p[..., :-back], weight[:, last - back, None])
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (grad,) = grads
        p, weight = ctx.saved_tensors
        last = weight.shape[-1] - 1
        grad_p = grad * weight[:, last, None]
        grad_w = torch.zeros_like(weight)
        grad_w[:, last] = _channel_dot(grad, p)
        for back in range(1, min(last, p.shape[-1] - 1) + 1):
            grad_p[..., :-back].addcmul_(grad[..., back:], weight[:, last - back, None])
            grad_w[:, last - back] = _channel_dot(grad[..., back:], p[..., :-back])
        return grad_p, grad_w, grad.sum((0, 2))


def _channel_dot(a: Tensor, b: Tensor) -> Tensor:
    """Sum over batch and length of a * b: (B, C, L), (B, C, L) -> (C,)."""
    return (a * b).sum((0, 2))
