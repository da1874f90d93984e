"""How well a model predicts given targets, in nats."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hyenadna.alphabet import IGNORED
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.engine.gemm import row_chunks
from hyenadna.model.engine.sizes import HEAD_ROWS


def target_nats(model: HyenaDNA, inputs: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of every target, float32 (B, L), 0 where the target is ignored.

    inputs, targets: integer (B, L) on the model's device; `targets[b, t]` is the token that should
    follow `inputs[b, :t+1]`, or -100. All V classes compete, as in the published losses. Logits are
    made and used in chunks of positions (except with kernels="plain"). In a float64 model float64.
    Errors as for `model(inputs)`; InputError where the shapes differ.
    """
    if inputs.shape != targets.shape:
        raise InputError(
            f"loss: targets have shape {tuple(targets.shape)}, but the inputs {tuple(inputs.shape)}; "
            "give one target for each token"
        )
    if model.backbone.engine.kernels == "plain":
        return cross_entropy(model(inputs).transpose(1, 2), targets)
    return head_nats(model.embed(inputs), model.head_weight, targets)


def head_nats(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood (B, L) of targets (B, L) under `softmax(hidden weight^T)`.

    hidden: (B, L, D); weight: (V, D). Computed in float32, or float64 where hidden is float64; holds
    the logits of one chunk of positions, and computes them again for the gradients.
    """
    out: Tensor = _HeadNats.apply(hidden, weight, targets)
    return out


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """-log softmax of the targets, of their shape; 0 where ignored. logits: classes in axis 1."""
    return torch.nn.functional.cross_entropy(
        logits, targets, ignore_index=IGNORED, reduction="none"
    )


class _HeadNats(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight, targets)
        flat, wanted = hidden.flatten(0, -2), targets.flatten()
        dtype = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        out = hidden.new_empty(len(flat), dtype=dtype)
        with torch.autocast(hidden.device.type, enabled=False):
            for rows in row_chunks(len(flat), HEAD_ROWS):
                logits = flat[rows].to(dtype) @ weight.to(dtype).T
                out[rows] = cross_entropy(logits, wanted[rows])
        return out.view(targets.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden, weight, targets = ctx.saved_tensors
        flat, wanted, g = hidden.flatten(0, -2), targets.flatten(), grads[0].flatten()
        w = weight.to(g.dtype)
        grad_h, grad_w = torch.empty_like(flat), torch.zeros_like(w)
        with torch.autocast(hidden.device.type, enabled=False):
            for rows in row_chunks(len(flat), HEAD_ROWS):
                x = flat[rows].to(g.dtype)
                d = torch.softmax(x @ w.T, dim=1)
                counted = wanted[rows] != IGNORED
                one = torch.where(counted, wanted[rows], 0)[:, None]
                d.scatter_add_(1, one, -torch.ones_like(d[:, :1]))
                d *= torch.where(counted, g[rows], 0)[:, None]
                grad_h[rows] = d @ w
                grad_w.addmm_(d.T, x)
        return grad_h.view_as(hidden), grad_w.to(weight.dtype), None


@torch.inference_mode()
def mean_nats(
    model: HyenaDNA,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    precision: torch.dtype | None = None,
) -> tuple[float, int]:
    """Mean loss in nats per counted target over all batches, and how many targets counted.

    Runs the model in evaluation mode and puts it back as it was. The sum is kept in float64, so the
    result does not depend on how targets fall into batches (beyond float32 rounding of the model).
    """
    device = model.head_weight.device
    was_training = model.training
    model.eval()
    total = 0.0
    count = 0
    try:
        for inputs, targets in batches:
            with torch.autocast(device.type, dtype=precision, enabled=precision is not None):
                nats = target_nats(model, inputs.to(device), targets.to(device))
            total += float(nats.cpu().double().sum())
            count += int((targets != IGNORED).sum())
    finally:
        model.train(was_training)
    return (total / count if count else float("nan")), count
