"""A short name for the weights of a model: equal for equal weights, wherever they lie."""

from __future__ import annotations

import hashlib

from hyenadna.model.backbone import Backbone, HyenaDNA


def weights_digest(model: HyenaDNA | Backbone) -> str:
    """SHA-256 (hex) of the shape and all tensors of a model."""
    total = hashlib.sha256(repr(sorted(model.config.to_dict().items())).encode())
    for name, tensor in sorted(model.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()
