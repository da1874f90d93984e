"""Losses of labelled sequences, missing targets left out."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from hyenadna.alphabet import IGNORED
from hyenadna.errors import InputError
from hyenadna.task_kinds import TASK_KINDS, TaskKind


def task_loss(
    kind: TaskKind,
    outputs: Tensor,
    targets: Tensor,
    class_weights: Tensor | None = None,
    *,
    huber_delta: float | None = None,
) -> Tensor:
    """Mean loss over the targets that count: float32 (float64 for float64 outputs), a scalar.

    0, with gradients of 0, where none counts. kind: see `loss_parts`, also for the arguments and
    the errors. To put several batches together, add their parts instead of averaging means.
    """
    total, weight = loss_parts(kind, outputs, targets, class_weights, huber_delta=huber_delta)
    return total / torch.where(weight > 0, weight, 1)


def loss_parts(
    kind: TaskKind,
    outputs: Tensor,
    targets: Tensor,
    class_weights: Tensor | None = None,
    *,
    huber_delta: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Sum of the losses of all targets that count, and the sum of their weights: two scalars.

        kind     outputs    targets                      loss
        classes  (B, T)     int (B,), -100 missing       cross-entropy, in nats
        tokens   (B, L, T)  int (B, L), -100 missing     cross-entropy, in nats
        labels   (B, T)     0 .. 1 (B, T), NaN missing   binary cross-entropy of logits, in nats
        values   (B, T)     (B, T), NaN missing          squared error; Huber's with `huber_delta`

    class_weights: (T,), each above 0. A target of class c counts `class_weights[c]` times, in the
    sum and in the weight; for labels it multiplies the loss of the positives alone (`pos_weight`
    of torch). huber_delta: error from which the loss grows linearly (Huber 1964), above 0.

    Raises InputError for shapes that do not go together, a target out of range (on the CPU: on a
    GPU the look would stop the device), and options that are not of this kind.
    """
    if kind not in TASK_KINDS:
        raise InputError(f"loss: no kind of task {kind!r}; there are {', '.join(TASK_KINDS)}")
    _check_shapes(kind, outputs, targets)
    _check_options(kind, outputs, class_weights, huber_delta)
    outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
    if class_weights is not None:
        class_weights = class_weights.to(outputs)
    if kind in ("classes", "tokens"):
        flat = outputs.flatten(0, -2)
        return _class_parts(flat, targets.flatten().long(), class_weights)
    known = ~targets.isnan()
    targets = targets.to(outputs.dtype)
    if kind == "labels":
        losses = functional.binary_cross_entropy_with_logits(
            outputs, targets.masked_fill(~known, 0), pos_weight=class_weights, reduction="none"
        )
    else:
        # the output itself stands in for a missing target: an error of 0, without a gradient
        wanted = torch.where(known, targets, outputs.detach())
        if huber_delta is None:
            losses = functional.mse_loss(outputs, wanted, reduction="none")
        else:
            losses = functional.huber_loss(outputs, wanted, delta=huber_delta, reduction="none")
    return losses.masked_fill(~known, 0).sum(), known.sum().to(outputs.dtype)


def _class_parts(outputs: Tensor, targets: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Of outputs (n, T) and targets (n,)."""
    counted = targets != IGNORED
    if targets.device.type == "cpu":
        wrong = targets[counted & ((targets < 0) | (targets >= outputs.shape[1]))]
        if len(wrong):
            raise InputError(
                f"loss: target {int(wrong[0])}, but there are {outputs.shape[1]} classes; targets "
                f"are 0 .. {outputs.shape[1] - 1}, or {IGNORED} where none is known"
            )
    total = functional.cross_entropy(
        outputs, targets, weight=weights, ignore_index=IGNORED, reduction="sum"
    )
    if weights is None:
        return total, counted.sum().to(outputs.dtype)
    return total, (weights[targets.clamp_min(0)] * counted).sum()


def _check_shapes(kind: TaskKind, outputs: Tensor, targets: Tensor) -> None:
    axes = {"classes": 1, "tokens": 2, "labels": 2, "values": 2}[kind]
    by_class = kind in ("classes", "tokens")
    expected = outputs.shape[:-1] if by_class else outputs.shape
    if targets.ndim != axes or targets.shape != expected:
        raise InputError(
            f"loss: {kind} targets have shape {tuple(targets.shape)}, but the outputs "
            f"{tuple(outputs.shape)}; give targets of shape {tuple(expected)}"
        )
    if by_class and targets.is_floating_point():
        raise InputError(f"loss: {kind} targets are {targets.dtype}; give integer classes")
    if not by_class and not targets.is_floating_point():
        raise InputError(f"loss: {kind} targets are {targets.dtype}; give floats, NaN where none")
    if not by_class and targets.device.type == "cpu":
        low, high = (0.0, 1.0) if kind == "labels" else (-_LARGEST, _LARGEST)
        wrong = targets[(targets < low) | (targets > high)]
        if len(wrong):
            rule = "in 0 .. 1" if kind == "labels" else "finite"
            raise InputError(
                f"loss: target {float(wrong[0])}; {kind} are {rule}, or NaN where none is known"
            )


_LARGEST: Final = torch.finfo(torch.float32).max


def _check_options(
    kind: TaskKind, outputs: Tensor, class_weights: Tensor | None, huber_delta: float | None
) -> None:
    if class_weights is not None:
        if kind == "values":
            raise InputError("loss: class weights with values, which have no classes; leave out")
        if class_weights.shape != outputs.shape[-1:]:
            raise InputError(
                f"loss: class weights of shape {tuple(class_weights.shape)}; give one for each of "
                f"the {outputs.shape[-1]} outputs"
            )
    if huber_delta is not None and (kind != "values" or not huber_delta > 0):
        raise InputError(
            f"loss: huber_delta is {huber_delta} for {kind}; it is for values, and above 0"
        )
