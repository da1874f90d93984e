"""Embedding and loss as autograd Functions over the kernels; neither keeps more than its input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hyenadna.model.engine.alone import alone
from hyenadna.model.engine.kernels import Kernels


def embed_tokens(kernels: Kernels, table: Tensor, ids: Tensor) -> Tensor:
    """Rows of the table: (V, D), integer (B, L) -> (B, L, D)."""
    out: Tensor = _Embedding.apply(kernels, table, ids.contiguous())
    return out


def stream_nats(
    kernels: Kernels,
    h: Tensor,
    norm: tuple[Tensor, Tensor],
    eps: float,
    head: Tensor,
    targets: Tensor,
) -> Tensor:
    """Negative log-likelihood (B, L) of targets (B, L), 0 where ignored.

    h: the residual stream (B, L, D) after the blocks; norm: weight and bias of the final norm;
    head: (V, D). The gradients recompute norm and logits, so only h is kept.
    """
    out: Tensor = _Nats.apply(kernels, eps, h.contiguous(), *norm, head, targets)
    return out


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernels: Kernels, table: Tensor, ids: Tensor) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.kernels, ctx.rows = kernels, len(table)
        return kernels.embed(table, ids)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None]:
        (ids,) = ctx.saved_tensors
        with alone(ctx.kernels, ids.device.type):
            return None, ctx.kernels.embed_backward(ctx.rows, ids, grads[0].contiguous()), None


class _Nats(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        kernels: Kernels,
        eps: float,
        h: Tensor,
        weight: Tensor,
        bias: Tensor,
        head: Tensor,
        targets: Tensor,
    ) -> Tensor:
        ctx.kernels, ctx.eps = kernels, eps
        ctx.save_for_backward(h, weight, bias, head, targets)
        with alone(kernels, h.device.type):
            return kernels.nats(h, (weight, bias), eps, head, targets)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        h, weight, bias, head, targets = ctx.saved_tensors
        with alone(ctx.kernels, h.device.type):
            grad_h, grad_head, grad_weight, grad_bias = ctx.kernels.nats_backward(
                h, (weight, bias), ctx.eps, head, targets, grads[0]
            )
        return None, None, grad_h, grad_weight, grad_bias, grad_head, None
