"""A forward pass through all blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hyenadna.model.engine import pages
from hyenadna.model.engine.alone import alone
from hyenadna.model.engine.block import Layer, Pass, block_inference, block_training
from hyenadna.model.engine.choose import EngineSettings
from hyenadna.model.engine.filter_passes import FilterNetwork
from hyenadna.model.engine.kernels import Kernels, Past
from hyenadna.model.engine.plan import SMALL_PASS, Plan, gpu_plan, gpu_rooms, make_plan
from hyenadna.model.engine.sizes import Workload, resident_bytes
from hyenadna.model.engine.spectra import FilterTables, SpectrumCache
from hyenadna.model.engine.weights import BlockWeights, FilterWindow
from hyenadna.model.filter import ImplicitFilter
from hyenadna.model.operator import HyenaOperator

if TYPE_CHECKING:
    from hyenadna.model.backbone import Block


def make_pass(
    kernels: Kernels,
    settings: EngineSettings,
    work: Workload,
    cache: SpectrumCache,
    device: torch.device,
    held: int,
    besides: int = 0,
) -> Pass:
    """What the blocks of one pass share, planned within the budget of the settings.

    Or, on a GPU without a budget, within its memory. Lets go of cached spectra that the plan has no
    room for. held: bytes that the plan counts and that are allocated already. besides: bytes that
    others will take by then. Raises InputError where the budget is too small.
    """

    def taken() -> int:
        if device.type == "cpu":
            pages.give_back_heap()
        counted = held + cache.bytes + kernels.kept_bytes()
        return max(0, held_bytes(device) - counted) + besides

    plan = _plan(work, kernels.channel_step(), settings.max_memory, device_memory(device), taken)
    cache.shrink(plan.cache_bytes)
    offload = settings.offload if work.training else None
    return Pass(kernels, plan, work.config.layer_norm_epsilon, cache, offload)


def _plan(
    work: Workload, step: int, budget: int | None, total: int | None, taken: Callable[[], int]
) -> Plan:
    """The plan within a budget, a GPU's memory of `total` bytes, or neither.

    taken: bytes that others have by then; asked for where they matter, for it takes its time.
    """
    rooms = None if total is None else gpu_rooms(total)
    if budget is not None:
        return make_plan(work, step=step, max_memory=budget, resident=taken(), rooms=rooms)
    plan = make_plan(work, step=step, rooms=rooms)
    if total is None or plan.total_bytes * SMALL_PASS <= total:
        return plan
    return gpu_plan(work, total, taken(), step=step)


def held_bytes(device: torch.device) -> int:
    """Memory that is taken now: of the process on a CPU, of tensors on a GPU."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else resident_bytes()


def device_memory(device: torch.device) -> int | None:
    """Bytes of a GPU; None on a CPU."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.get_device_properties(device).total_memory)


def run_blocks(run: Pass, blocks: Sequence[Block], h: Tensor) -> Tensor:
    """The residual stream after all blocks; h (B, L, D) is overwritten where nothing is trained."""
    training = needs_gradients(blocks, h)
    y = None if training else run.kernels.mixed_like(h)
    for layer in layers_of(run, blocks, h.shape[1], training=training):
        h = _run_block(run, layer, h, y, h)
    run.kernels.release()
    return h


def run_states(run: Pass, blocks: Sequence[Block], h: Tensor) -> list[Tensor]:
    """The residual stream after each block, each (B, L, D); h is left as it is."""
    training, states = needs_gradients(blocks, h), [h]
    for layer in layers_of(run, blocks, h.shape[1], training=training):
        y = None if training else run.kernels.mixed_like(h)
        out = y if y is None or y.dtype == h.dtype else pages.empty_like(h)
        states.append(_run_block(run, layer, states[-1], y, out))
    run.kernels.release()
    return states[1:]


def continue_blocks(run: Pass, blocks: Sequence[Block], h: Tensor, pasts: Sequence[Past]) -> Tensor:
    """The residual stream after all blocks at positions that follow others, without a graph.

    h: (B, L, D), overwritten; pasts: one for each block.
    """
    y = run.kernels.mixed_like(h)
    layers = layers_of(run, blocks, h.shape[1], training=False)
    for layer, past in zip(layers, pasts, strict=True):
        with alone(run.kernels, h.device.type):
            block_inference(run, layer, h, y, h, past)
    run.kernels.release()
    return h


def _run_block(run: Pass, layer: Layer, h: Tensor, y: Tensor | None, out: Tensor | None) -> Tensor:
    """The block's output for h (B, L, D): with a graph where y is None, else in `out` through y."""
    if y is None or out is None:
        return block_training(run, layer, h)
    with alone(run.kernels, h.device.type):
        block_inference(run, layer, h, y, out)
    return out


def layers_of(run: Pass, blocks: Sequence[Block], length: int, *, training: bool) -> list[Layer]:
    """The tensors of the blocks of a pass over `length` positions, from the first.

    On a GPU, where every look at a value waits for all work before it, the filters of all layers
    are compared with those of the cached spectra at once; not in training, where each pass makes
    its own.
    """
    layers = [layer_of(index, block, length) for index, block in enumerate(blocks)]
    if layers and run.plan.cache_bytes and not training and layers[0].weights.skip.is_cuda:
        run.checked.update(run.cache.check_together([(x.tables, x.trained) for x in layers]))
    return layers


def needs_gradients(blocks: Sequence[Block], h: Tensor) -> bool:
    """Whether autograd wants the graph of a pass over h."""
    return torch.is_grad_enabled() and (
        h.requires_grad or any(p.requires_grad for block in blocks for p in block.parameters())
    )


def layer_of(index: int, block: Block, length: int) -> Layer:
    """The tensors of a block of order 2, as they are now, for passes over `length` positions."""
    mixer, mlp = block.mixer, block.mlp
    assert isinstance(mixer, HyenaOperator)
    last = mixer.filter_fn.implicit_filter[-1].weight
    assert isinstance(last, Tensor)
    weights = BlockWeights(
        norm1_weight=block.norm1.weight,
        norm1_bias=block.norm1.bias,
        in_weight=mixer.in_proj.weight,
        in_bias=mixer.in_proj.bias,
        short_weight=mixer.short_filter.weight[:, 0],
        short_bias=mixer.short_filter.bias,
        last_weight=last,
        skip=mixer.filter_fn.bias,
        out_weight=mixer.out_proj.weight,
        out_bias=mixer.out_proj.bias,
        norm2_weight=block.norm2.weight,
        norm2_bias=block.norm2.bias,
        fc1_weight=mlp.fc1.weight,
        fc1_bias=mlp.fc1.bias,
        fc2_weight=mlp.fc2.weight,
        fc2_bias=mlp.fc2.bias,
    )
    tables = _tables(index, mixer.filter_fn, length)
    return Layer(weights.contiguous(), FilterNetwork.of(mixer.filter_fn), tables)


def _tables(index: int, filter_fn: ImplicitFilter, length: int) -> FilterTables:
    tables = filter_fn.tables()
    z, t = tables["pos_emb.z"], tables["pos_emb.t"]
    dtype = filter_fn.bias.dtype
    window = FilterWindow(
        t[0, :length, 0].to(dtype),
        tables["modulation.deltas"][0, 0].to(dtype).abs(),
        filter_fn.window_shift,
    )
    identity = tuple((id(table), _version(table)) for table in (z, t))
    return FilterTables(index, z, t, window, (*identity, filter_fn.window_shift))


def _version(table: Tensor) -> int:
    return 0 if table.is_inference() else table._version
