"""How well a model predicts given targets, in nats."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from hyenadna.alphabet import IGNORED
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.engine.choose import all_like, expects_call
from hyenadna.model.engine.ends import stream_nats


def target_nats(model: HyenaDNA, inputs: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of every target, (B, L), 0 where the target is ignored.

    float32, or float64 in a float64 model. inputs, targets: integer (B, L) on the model's device;
    `targets[b, t]` is the token that should follow `inputs[b, :t+1]`, or -100. All V classes
    compete, as in the published losses. Where the engine runs the model, final norm, logits and
    loss are computed in chunks of positions and again for the gradients, never held whole.

    Errors as for `model(inputs)`; InputError for targets of another shape or out of range.
    """
    _check_targets(model, inputs, targets)
    backbone, head = model.backbone, model.head_weight
    if expects_call(model) or expects_call(backbone):
        logits = model(inputs)
    else:
        h, run = model.residual_stream(inputs)
        usual = head.shape == (model.vocab_rows, h.shape[-1]) and all_like(h, [head])
        if run is not None and usual and backbone.plain_norm(h):
            norm = (backbone.ln_f.weight, backbone.ln_f.bias)
            eps = backbone.ln_f.eps
            return stream_nats(run.kernels, h, norm, eps, head, targets.long())
        logits = model.logits(backbone.norm(h, run))
    return torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), targets, ignore_index=IGNORED, reduction="none"
    )


def _check_targets(model: HyenaDNA, inputs: Tensor, targets: Tensor) -> None:
    if inputs.shape != targets.shape or inputs.ndim != 2:
        raise InputError(
            f"loss: targets have shape {tuple(targets.shape)}, but the inputs "
            f"{tuple(inputs.shape)}; give both as (B, L), one target for each token"
        )
    if targets.device.type == "cpu":
        wrong = targets[(targets != IGNORED) & ((targets < 0) | (targets >= model.vocab_rows))]
        if len(wrong):
            raise InputError(
                f"loss: target {int(wrong[0])}; targets are token ids in 0 .. "
                f"{model.vocab_rows - 1}, or {IGNORED} where none counts"
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
