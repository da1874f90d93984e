"""Whether weights are the same: short names for all of them, and whether they were changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from hyenadna.model.backbone import Backbone, HyenaDNA


def weights_digest(model: HyenaDNA | Backbone, **others: Tensor) -> str:
    """SHA-256 (hex) of the shape and all tensors of a model, and of others by name."""
    return _digest(model.config.to_dict(), model.state_dict() | others)


_NOT_THE_FUNCTION: Final = (
    "embed_dropout", "resid_dropout", "hyena_dropout", "initializer_range", "tie_word_embeddings",
)  # fmt: skip


def function_digest(model: HyenaDNA) -> str:
    """SHA-256 (hex) of what a model computes: the same in any layout of its checkpoint.

    Unlike `weights_digest` it knows nothing of dropout, of first weights, or of whether a head that
    equals the token table is stored once or twice.
    """
    config = {k: v for k, v in model.config.to_dict().items() if k not in _NOT_THE_FUNCTION}
    config["d_inner"] = model.config.inner_width  # a default may be written out
    return _digest(config, model.backbone.state_dict() | {"head": model.head_weight})


def _digest(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256(repr(sorted(config.items())).encode())
    for name, tensor in sorted(tensors.items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def versions(*tensors: Tensor) -> list[tuple[int, int]]:
    """Changes when one of the tensors is replaced, converted or written to.

    For what is computed from weights and kept with them. In inference mode nobody tells of writing.
    """
    return [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors]
