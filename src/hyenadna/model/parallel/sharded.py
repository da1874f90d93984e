"""A model whose parameters lie in parts on all ranks (FSDP2), and its first weights.

Nothing here holds more than one block of the model at a time: the model is made without memory, its
parameters are dealt out, and then each rank fills its own part of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from torch import nn

from hyenadna.config import ModelConfig
from hyenadna.model.backbone import Block, Embeddings, HyenaDNA, initialise_module, rescale_filters
from hyenadna.model.filter import Sine
from hyenadna.model.heads import TaskModel
from hyenadna.model.parallel.parts import put


def empty_model(config: ModelConfig) -> HyenaDNA:
    """A model of this shape without memory, for `shard`."""
    with torch.device("meta"):
        return HyenaDNA(config)


def shard(model: HyenaDNA, device: torch.device) -> None:
    """Deal the parameters of an `empty_model` out to all ranks, in place, a block at a time.

    Each rank has memory for its own rows then, with anything in them: `draw_weights` or
    `hyenadna.checkpoint.load.fill` comes next.
    """
    _deal_out(model, model.backbone.layers, device)
    model.to_empty(device=device)
    for module in model.modules():
        if isinstance(module, Sine) and not isinstance(module.freq, nn.Parameter):
            module.freq.fill_(model.config.activation_freq)


def shard_task(model: TaskModel) -> None:
    """Deal the parameters of a task model that every rank has whole out to all ranks, in place."""
    # nothing changes the outputs in place
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    # a gathered copy that stayed would outlive a change of weights, as by a moving average
    _deal_out(model, model.model.backbone.layers, model.device, reshard_after_forward=True)


def _deal_out(
    model: nn.Module,
    blocks: nn.ModuleList,
    device: torch.device,
    *,
    reshard_after_forward: bool | None = None,
) -> None:
    """FSDP2 over all ranks: a block at a time, and the rest of the model with it.

    reshard_after_forward: whether the rest is dealt out again behind each pass; torch's choice
    where left out.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=reshard_after_forward)


@torch.no_grad()
def draw_weights(model: HyenaDNA, *, rescaled: bool) -> None:
    """First weights for a model in parts: those that one process draws, from the same generator.

    rescaled: whether `rescale_filters` follows. Every rank draws all of them, one block at a time
    and in the order of one process, and keeps its own part.
    """
    config = model.config
    for name, part in _made(config):
        _keep(model, name, part, lambda module, _: True)
    for name, part in _made_empty(config):
        for inner, module in part.named_modules(prefix=name):
            initialise_module(inner, module, config)
        _keep(model, name, part, _is_initialised)
    if rescaled:
        for name, part in _made_empty(config):
            rescale_filters(part)
            _keep(model, name, part, _is_rescaled)


def _made(config: ModelConfig) -> Iterator[tuple[str, nn.Module]]:
    """The parts of a model with their names, each made when it is asked for, in its order."""
    yield "backbone.embeddings", Embeddings(config)
    for i in range(config.n_layer):
        yield f"backbone.layers.{i}", Block(config)
    yield "backbone.ln_f", nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
    if not config.tie_word_embeddings:
        yield "lm_head", nn.Linear(config.d_model, config.padded_vocab_size, bias=False)


def _made_empty(config: ModelConfig) -> Iterator[tuple[str, nn.Module]]:
    """As `_made`, without any random numbers: anything is in them."""
    with torch.device("meta"):
        parts = list(_made(config))
    for name, part in parts:
        yield name, part.to_empty(device="cpu")
        part.to(device="meta")  # its memory goes


def _is_initialised(module: nn.Module, _: str) -> bool:
    return isinstance(module, nn.Linear | nn.Embedding | nn.LayerNorm)


def _is_rescaled(module: nn.Module, path: str) -> bool:
    return isinstance(module, nn.Linear) and ".implicit_filter." in path and path.endswith("weight")


def _keep(
    model: HyenaDNA, name: str, part: nn.Module, wanted: Callable[[nn.Module, str], bool]
) -> None:
    """Take over this rank's rows of the parameters of a part: those of the wanted modules."""
    for parameter_name, parameter in part.named_parameters(prefix=name):
        owner, _, _ = parameter_name.removeprefix(f"{name}.").rpartition(".")
        if wanted(part.get_submodule(owner), parameter_name):
            put(model.get_parameter(parameter_name), parameter.__getitem__)
