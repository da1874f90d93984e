"""Decoding states in files: safetensors, with the weights that they belong to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hyenadna.conv.online import OnlineFilter
from hyenadna.errors import InputError
from hyenadna.model.backbone import Backbone
from hyenadna.model.decoding.state import AttentionState, DecodingState, HyenaState, LayerState

FORMAT: Final = "hyenadna decoding state 1"


def write_state(state: DecodingState, weights: str, path: str | Path) -> None:
    """Writes a state beside its file and renames it. Settles the state; its values stay.

    weights: digest of the model. Raises InputError where it cannot be written.
    """
    state.settle()
    tensors = {"logits": state.logits, "lengths": state.lengths}
    for i, layer in enumerate(state.layers):
        tensors |= {f"layers.{i}.{name}": t for name, t in layer.tensors().items()}
    path = Path(path)
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is no ordinary file; give another name")
    beside = path.with_name(path.name + ".part")
    metadata = {"format": FORMAT, "weights": weights}
    try:
        save_file({name: t.contiguous().cpu() for name, t in tensors.items()}, beside, metadata)
        beside.replace(path)
    except (OSError, SafetensorError) as error:
        beside.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot write the state: {error}") from None


def read_state(
    path: str | Path,
    backbone: Backbone,
    weights: str,
    filters: Sequence[Sequence[OnlineFilter]],
    device: torch.device,
) -> DecodingState:
    """The state of a file that `write_state` wrote.

    Raises InputError where it is no such file, or one of a model of other weights.
    """
    try:
        with safe_open(path, "pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            # copies, since what comes is mapped from the file and would change with it
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: not a decoding state: {reason}") from None
    if metadata.get("format") != FORMAT:
        given = json.dumps(metadata.get("format"))
        raise InputError(f"{path}: not a decoding state of this version (format {given})")
    if metadata.get("weights") != weights:
        raise InputError(
            f"{path}: a state of a model of other weights; load it with the model that made it, "
            "or prefill again"
        )
    layers: list[LayerState] = []
    for i in range(backbone.config.n_layer):
        own = _of_layer(tensors, i)
        layers.append(
            HyenaState.restore(own, filters[i]) if filters else AttentionState.restore(own)
        )
    return DecodingState(layers, backbone, tensors["logits"], tensors["lengths"])


def _of_layer(tensors: dict[str, Tensor], layer: int) -> dict[str, Tensor]:
    prefix = f"layers.{layer}."
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
