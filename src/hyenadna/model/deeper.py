"""A model of more blocks than the one it was made from, and at first the same function.

The new blocks lie above the old ones and write nothing into the residual stream: the weights and
biases of their last projections, `out_proj` and `fc2`, are zero. So the model starts where the old
one stopped, and training fills them in: the gradient of those projections is not zero.
"""

from __future__ import annotations

from torch import nn

from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA, rescale_filters
from hyenadna.model.filter import filters


def deeper(model: HyenaDNA, n_layer: int) -> HyenaDNA:
    """A copy of `n_layer` blocks, in evaluation mode; new weights come from torch's generator.

    Raises InputError where that is not more than the model has.
    """
    old = model.config.n_layer
    if n_layer <= old:
        raise InputError(
            f"--n-layer is {n_layer}, but the model has {old} blocks already; give more, or leave "
            "it out"
        )
    made = HyenaDNA(model.config.replace(n_layer=n_layer))
    rescale_filters(made)
    made.to(model.head_weight)
    made.load_state_dict(dict(model.named_parameters()), strict=False)
    below = list(model.backbone.layers)
    for at, block in enumerate(made.backbone.layers):
        # All filters read positions alike, also where the model keeps its own tables.
        _keep_tables(block, below[min(at, old - 1)])
        if at >= old:
            _silence(block)
    return made.eval()


def _keep_tables(block: nn.Module, like: nn.Module) -> None:
    for filter_fn, source in zip(filters(block).values(), filters(like).values(), strict=True):
        for name, stored in source.stored().items():
            filter_fn.keep_table(name, stored)


def _silence(block: nn.Module) -> None:
    """Zero what the block writes into the residual stream."""
    for name, module in block.named_modules():
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in ("out_proj", "fc2"):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
