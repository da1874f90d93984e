"""How well a model predicts given targets, in nats."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from hyenadna.alphabet import IGNORED
from hyenadna.model.backbone import HyenaDNA


def target_nats(model: HyenaDNA, inputs: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of every target, float32 (B, L), 0 where the target is ignored.

    inputs, targets: integer (B, L) on the model's device; `targets[b, t]` is the token that should
    follow `inputs[b, :t+1]`, or -100. All V classes compete, as in the published losses.
    """
    logits = model(inputs)
    return torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), targets, ignore_index=IGNORED, reduction="none"
    )


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
