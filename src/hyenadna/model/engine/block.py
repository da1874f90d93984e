"""A block of order 2, chunked over channels and positions, with a backward pass that recomputes.

Only the block's input is kept for the backward pass, and its mixed signal where the plan allows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hyenadna.model.engine import pages
from hyenadna.model.engine.alone import alone
from hyenadna.model.engine.filter_passes import FilterNetwork
from hyenadna.model.engine.kernels import Kernels, Past
from hyenadna.model.engine.offload import OffloadedTensor
from hyenadna.model.engine.plan import Plan
from hyenadna.model.engine.spectra import FilterState, FilterTables, LayerSpectra, SpectrumCache
from hyenadna.model.engine.weights import BlockWeights
from hyenadna.model.filter import no_tf32

_NAMES = [each.name for each in fields(BlockWeights)]
_COUNT, _FILTER = len(_NAMES), _NAMES.index("last_weight")  # skip follows last_weight


@dataclass(frozen=True)
class Pass:
    """What all blocks of one forward pass, and the backward pass that belongs to it, share."""

    kernels: Kernels
    plan: Plan
    eps: float
    cache: SpectrumCache
    offload: Path | None = None
    checked: dict[int, FilterState] = field(default_factory=dict)
    """Of each layer, the state that its cached spectra were found to belong to in this pass."""


@dataclass(frozen=True)
class Layer:
    """The tensors of one block; under autograd they carry its graph."""

    weights: BlockWeights
    network: FilterNetwork
    tables: FilterTables

    def spectra(self, run: Pass) -> LayerSpectra:
        """The filters' transforms in this pass."""
        if limit := run.plan.cache_bytes:
            run.cache.confirm(self.tables, self.trained, run.checked)
        return LayerSpectra(run.kernels, run.cache, limit, self.tables, self.weights, self.network)

    @property
    def trained(self) -> tuple[Tensor, ...]:
        """What the filters depend on besides their tables."""
        own = (self.weights.last_weight, self.weights.skip, self.tables.window.rates)
        return (*self.network.tensors(), *own)


def block_inference(
    run: Pass, layer: Layer, h: Tensor, y: Tensor, out: Tensor, past: Past | None = None
) -> None:
    """out becomes the output of the block for h (B, L, D); y is overwritten.

    y: from `Kernels.mixed_like`. out may be h, or y where that has the type of h.
    """
    _mix(run, layer, layer.spectra(run), h, y, past)
    run.kernels.finish(h, y, layer.weights, run.eps, out)


def block_training(run: Pass, layer: Layer, h: Tensor) -> Tensor:
    """The output of the block for h (B, L, D), with gradients of h and of the layer's tensors."""
    out: Tensor = _BlockFunction.apply(
        run, layer.tables, h, *layer.weights.tensors(), *layer.network.tensors()
    )
    return out


def _mix(
    run: Pass,
    layer: Layer,
    spectra: LayerSpectra,
    h: Tensor,
    y: Tensor,
    past: Past | None = None,
) -> None:
    for channels in run.plan.blocks(h.shape[-1]):
        run.kernels.mix(h, layer.weights, run.eps, spectra(channels), channels, y, past)


def _layer(tables: FilterTables, tensors: tuple[Tensor, ...]) -> Layer:
    return Layer(BlockWeights(*tensors[:_COUNT]), FilterNetwork.join(tensors[_COUNT:]), tables)


class _BlockFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Pass, tables: FilterTables, h: Tensor, *tensors: Tensor) -> Tensor:
        layer = _layer(tables, tensors)
        y = run.kernels.mixed_like(h)
        reused = y.dtype == h.dtype and not run.plan.keep_mixed
        out = y if reused else pages.empty_like(h)
        with alone(run.kernels, h.device.type):
            block_inference(run, layer, h, y, out)
        ctx.run, ctx.tables = run, tables
        ctx.file = None if run.offload is None else OffloadedTensor(h, run.offload)
        ctx.save_for_backward(
            h if ctx.file is None else None, y if run.plan.keep_mixed else None, *tensors
        )
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        h, y, *tensors = ctx.saved_tensors
        if ctx.file is not None:
            h = ctx.file.read()
        train_filter = any(ctx.needs_input_grad[3 + _FILTER : 5 + _FILTER]) or any(
            ctx.needs_input_grad[3 + _COUNT :]
        )
        with alone(ctx.run.kernels, h.device.type):
            grad = grads[0]
            if ctx.run.kernels.overwrites:
                # The gradient that comes in may be someone else's, and the saved y serves again
                # under retain_graph.
                grad = pages.copy_of(grad)
                y = None if y is None else pages.copy_of(y)
            grad, sums, network = _backward(
                ctx.run, _layer(ctx.tables, tuple(tensors)), h, y, grad, train_filter
            )
        if ctx.tables.layer == 0:  # the last one to come
            ctx.run.kernels.release()
        found = (grad, *sums.tensors(), *network.tensors())
        wanted = ctx.needs_input_grad[2:]
        return None, None, *(g if need else None for g, need in zip(found, wanted, strict=True))


def _backward(
    run: Pass, layer: Layer, h: Tensor, y: Tensor | None, grad: Tensor, train_filter: bool
) -> tuple[Tensor, BlockWeights, FilterNetwork]:
    """Gradients of h and of the layer's tensors from that of the block's output."""
    w, kernels, tables = layer.weights, run.kernels, layer.tables
    spectra = layer.spectra(run)
    if y is None:
        y = kernels.mixed_like(h)
        _mix(run, layer, spectra, h, y)
    sums = w.zeros()
    blocks = list(run.plan.blocks(h.shape[-1]))
    grad, grad_y = kernels.finish_backward(h, y, w, run.eps, grad, sums)
    del y
    grad_n = kernels.norm_gradient(h, len(blocks))
    grad_hidden = pages.empty_like(spectra.hidden).zero_() if train_filter else None
    for channels in blocks:
        k = kernels.mix_backward(h, w, run.eps, spectra(channels), channels, grad_y, grad_n, sums)
        if grad_hidden is not None:
            with no_tf32(h.device):
                kernels.filters_backward(
                    k, spectra.hidden, w, tables.window, channels, sums, grad_hidden
                )
    kernels.norm_backward(h, run.eps, grad_n, grad)
    del grad_n, grad_y
    if grad_hidden is None:
        return grad, sums, layer.network
    with no_tf32(h.device):
        return grad, sums, kernels.hidden_backward(layer.network, tables.z[0], grad_hidden)
