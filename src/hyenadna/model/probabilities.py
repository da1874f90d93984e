"""What outputs of a task model say."""

from __future__ import annotations

from torch import Tensor

from hyenadna.task_kinds import TaskKind


def probabilities(kind: TaskKind, outputs: Tensor) -> Tensor:
    """Probabilities of logits (..., T), of the same shape and type; values as they are.

    classes and tokens: softmax over the last axis; labels: sigmoid of each.
    """
    if kind in ("classes", "tokens"):
        return outputs.softmax(dim=-1)
    return outputs.sigmoid() if kind == "labels" else outputs
