"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685) through the package `peft`.

add_lora(model, rank=8)     # the backbone is frozen but for the adapters
...                         # train; the plain modules run, since the engine knows no adapters
merge_lora(model)           # same outputs, plain weights, and the engine runs them again
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

from torch import nn

from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA

LORA_TARGETS: Final = ("in_proj", "out_proj", "fc1", "fc2")
"""The four linear maps of a block. The filter network is none of them: it is evaluated at lags, not
at tokens, and a small change of it is a change of every distance at once."""


def add_lora(
    model: HyenaDNA,
    *,
    rank: int = 8,
    alpha: float = 16.0,
    dropout: float = 0.0,
    targets: Sequence[str] = LORA_TARGETS,
) -> None:
    """Freeze the backbone and put adapters on its linear maps, which are then all that is trained.

    `W x` becomes `W x + (alpha / rank) B A x`. B starts at 0, so that no output changes. A is drawn
    from torch's global generator. rank: at least 1. dropout: on x before A. targets: some of
    `LORA_TARGETS`. The modules run as they are, without the engine and its `max_memory`, until
    `merge_lora`.

    Raises InputError without `peft`, for a value out of range, and where there are adapters.
    """
    _check_options(model, rank, alpha, dropout, targets)
    try:
        peft: Any = importlib.import_module("peft")
    except ImportError as error:
        raise InputError(
            f"LoRA needs the package peft ({error}); pip install peft, or train without LoRA"
        ) from error
    config = peft.LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(targets)
    )
    model.requires_grad_(False)
    peft.inject_adapter_in_model(config, model.backbone)


def has_adapters(model: nn.Module) -> bool:
    """Whether any module has an adapter on it."""
    return next(_adapted(model), None) is not None


def merge_lora(model: HyenaDNA) -> None:
    """Add the adapters to the weights that they sit on, and take them away: W + (alpha / rank) B A.

    Outputs stay the same up to rounding. The backbone is then made of plain modules, all of whose
    parameters are trained. A model without adapters is left as it is.
    """
    found = list(_adapted(model))
    for name, module in found:
        module.merge(safe_merge=True)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, module.get_base_layer())
    if found:
        # peft leaves its configuration on what it was given
        model.backbone.__dict__.pop("peft_config", None)
        model.requires_grad_(True)


def merged(model: HyenaDNA) -> HyenaDNA:
    """The model itself, or where it has adapters a copy that has them merged."""
    if not has_adapters(model):
        return model
    model = copy.deepcopy(model)
    merge_lora(model)
    return model


def _adapted(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Names and modules of peft's layers, told by their methods so that peft is not imported."""
    for name, module in model.named_modules():
        if hasattr(module, "get_base_layer") and hasattr(module, "merge"):
            yield name, cast(Any, module)


def _check_options(
    model: HyenaDNA, rank: int, alpha: float, dropout: float, targets: Sequence[str]
) -> None:
    if rank < 1:
        raise InputError(f"LoRA: rank is {rank}; it must be at least 1")
    if not alpha > 0:
        raise InputError(f"LoRA: alpha is {alpha}; it must be above 0")
    if not 0 <= dropout < 1:
        raise InputError(f"LoRA: dropout is {dropout}; it must be in [0, 1)")
    wrong = [target for target in targets if target not in LORA_TARGETS]
    if wrong or not targets:
        raise InputError(
            f"LoRA: targets are {list(targets)}; give some of {', '.join(LORA_TARGETS)}"
        )
    if has_adapters(model):
        raise InputError("LoRA: the model has adapters already; merge them first (merge_lora)")
