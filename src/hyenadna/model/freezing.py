"""Which parameters are trained, and how fast each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from torch import nn

from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.filter import ImplicitFilter
from hyenadna.model.heads import TaskModel

ParameterKind = Literal["matrix", "plain", "filter"]


def freeze(model: HyenaDNA) -> None:
    """No parameter of the backbone is trained any more; it is put in evaluation mode."""
    model.requires_grad_(False)
    model.eval()


def train_all(model: HyenaDNA) -> None:
    """Every parameter of the backbone is trained."""
    model.requires_grad_(True)


def train_last_blocks(model: HyenaDNA, count: int) -> None:
    """The last `count` blocks and the final norm are trained, the rest of the backbone is not.

    count: 1 .. n_layer; the token table is never among them. Raises InputError out of range.
    """
    layers = model.backbone.layers
    if not 1 <= count <= len(layers):
        raise InputError(
            f"train: {count} last blocks; this model has {len(layers)}, so give 1 to "
            f"{len(layers)}, or freeze the backbone"
        )
    freeze(model)
    for layer in [*list(layers)[-count:], model.backbone.ln_f]:
        layer.requires_grad_(True)


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are trained alike."""

    names: tuple[str, ...]
    """As in `task_model.named_parameters()`."""
    lr_scale: float
    """Factor on the learning rate, in (0, 1]."""
    kind: ParameterKind
    """matrix: weights of linear maps and the token table. plain: biases, norms, short filters,
    skips, the attention query. filter: the networks that compute the long filters, which the paper
    trains without weight decay."""


def layer_groups(task_model: TaskModel, *, decay: float = 1.0) -> list[ParameterGroup]:
    """Groups of all parameters that are trained, by learning rate and kind, from the top down.

    decay: factor on the learning rate from one block to the one below, in (0, 1] (layer-wise
    decay, Howard and Ruder 2018, arXiv 1801.06146). Head, pooling and final norm have 1, the top
    block `decay`, the token table `decay ** (n_layer + 1)`. An untied language-model head is in no
    group: a task does not use it.

    Raises InputError for a decay out of range.
    """
    if not 0 < decay <= 1:
        raise InputError(f"layer groups: decay is {decay}; it must be in (0, 1]")
    n_layer = task_model.model.config.n_layer
    kinds = _kinds(task_model)
    groups: dict[tuple[int, ParameterKind], list[str]] = {}
    for name, parameter in task_model.named_parameters():
        if parameter.requires_grad and not name.startswith(_UNUSED):
            key = (_depth(name, n_layer) if decay < 1 else 0, kinds.get(name, "plain"))
            groups.setdefault(key, []).append(name)
    return [
        ParameterGroup(tuple(names), decay**depth, kind)
        for (depth, kind), names in sorted(groups.items())
    ]


_UNUSED: Final = "model.lm_head."
_BLOCK: Final = re.compile(r"^model\.backbone\.layers\.(\d+)\.")


def _depth(name: str, n_layer: int) -> int:
    """Steps below the head: 0 for what stands above the blocks, n_layer + 1 for the table."""
    block = _BLOCK.match(name)
    if block:
        return n_layer - int(block[1])
    return n_layer + 1 if name.startswith("model.backbone.embeddings.") else 0


def _kinds(model: nn.Module) -> dict[str, ParameterKind]:
    """Kinds by name, of those parameters that are not plain."""
    kinds: dict[str, ParameterKind] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            kinds.setdefault(f"{name}.weight", "matrix")
        if isinstance(module, ImplicitFilter):
            for inner, _ in module.implicit_filter.named_parameters():
                kinds[f"{name}.implicit_filter.{inner}"] = "filter"
    return kinds
