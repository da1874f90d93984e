"""A short name for the weights of a model: equal for equal weights, wherever they lie."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from hyenadna.model.backbone import Backbone, HyenaDNA


def weights_digest(model: HyenaDNA | Backbone, **others: Tensor) -> str:
    """SHA-256 (hex) of the shape and all tensors of a model, and of others by name."""
    total = hashlib.sha256(repr(sorted(model.config.to_dict().items())).encode())
    for name, tensor in sorted((model.state_dict() | others).items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()
