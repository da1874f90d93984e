"""The implicit filter on a GPU: sines and window in one pass each around its small products.

Formulas and arguments as in `hyenadna.model.engine.filter_passes`, the slow twin.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from hyenadna.conv.triton_launch import launch, programs_and_steps, tile
from hyenadna.model.engine.filter_passes import FilterNetwork
from hyenadna.model.engine.gemm import row_chunks
from hyenadna.model.engine.sizes import DEVICE_FILTER_ROWS
from hyenadna.model.engine.triton_gates import rows_tile
from hyenadna.model.engine.weights import BlockWeights, FilterWindow, zeros_together


@triton.jit
def window_kernel(
    k, t, rates, skip, C, length, shift, SKIP: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr
):
    """k (c, L) times `exp(-t rate) + shift`; with SKIP, plus skip at lag 0."""
    channel = (tl.program_id(0) * R + tl.arange(0, R))[:, None]
    lag = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
    here = channel < C
    inside = here & (lag < length)
    at = channel.to(tl.int64) * length + lag
    decay = tl.load(rates + channel, mask=here, other=0.0) * tl.load(t + lag, mask=lag < length)
    value = tl.load(k + at, mask=inside, other=0.0) * (tl.exp(-decay) + shift)
    if SKIP:
        own = tl.load(skip + channel, mask=here, other=0.0)
        value += tl.where(lag == 0, own, 0.0)
    tl.store(k + at, value, mask=inside)


@triton.jit
def sine_kernel(x, freq, rows, F: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr):
    """x becomes `sin(freq x)`."""
    row = tl.program_id(0) * R + tl.arange(0, R)
    col = tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (col < F)[None, :]
    at = row.to(tl.int64)[:, None] * F + col[None, :]
    f = tl.load(freq + col, mask=col < F, other=0.0)
    value = tl.load(x + at, mask=inside, other=0.0)
    tl.store(x + at, tl.sin(f[None, :] * value), mask=inside)


@triton.jit
def sine_backward_kernel(
    x, grad, freq, sums, rows, steps: tl.constexpr, F: tl.constexpr, R: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """grad, of `sin(freq x)`, becomes that of x; sums over rows of it and of freq's gradient."""
    col = tl.arange(0, BLOCK)
    f = tl.load(freq + col, mask=col < F, other=0.0)
    of_x = tl.zeros([BLOCK], dtype=tl.float32)
    of_f = tl.zeros([BLOCK], dtype=tl.float32)
    for step in range(steps):
        row = (tl.program_id(0) * steps + step) * R + tl.arange(0, R)
        inside = (row < rows)[:, None] & (col < F)[None, :]
        at = row.to(tl.int64)[:, None] * F + col[None, :]
        value = tl.load(x + at, mask=inside, other=0.0)
        d = tl.load(grad + at, mask=inside, other=0.0) * tl.cos(f[None, :] * value)
        of_f += tl.sum(d * value, 0)
        d *= f[None, :]
        of_x += tl.sum(d, 0)
        tl.store(grad + at, d, mask=inside)
    at = sums + tl.program_id(0) * (2 * F) + col
    tl.store(at, of_x, mask=col < F)
    tl.store(at + F, of_f, mask=col < F)


def hidden_at_lags(network: FilterNetwork, z: Tensor, length: int) -> Tensor:
    """See `filter_passes.hidden_at_lags`."""
    width = network.freq.numel()
    out = torch.empty(length, width, dtype=torch.float32, device=z.device)
    layers = list(zip(network.weights, network.biases, strict=True))
    for rows in row_chunks(length, DEVICE_FILTER_ROWS):
        x = z[rows].float()
        for i, (weight, bias) in enumerate(layers):
            into = out[rows] if i + 1 == len(layers) else x.new_empty(len(x), width)
            x = torch.addmm(bias, x, weight.T, out=into)
            _sine(x, network.freq)
    return out


def network_backward(network: FilterNetwork, z: Tensor, grad_hidden: Tensor) -> FilterNetwork:
    """See `filter_passes.network_backward`; grad_hidden is overwritten."""
    sums = FilterNetwork.join(tuple(zeros_together(network.tensors())))
    for rows in row_chunks(len(grad_hidden), DEVICE_FILTER_ROWS):
        inputs, before = [z[rows].float()], []
        for weight, bias in zip(network.weights, network.biases, strict=True):
            before.append(torch.addmm(bias, inputs[-1], weight.T))
            inputs.append(before[-1].clone())
            _sine(inputs[-1], network.freq)
        grad = grad_hidden[rows]
        for i in reversed(range(len(network.weights))):
            of_x, of_freq = _sine_backward(before[i], grad, network.freq)
            sums.freq.add_(of_freq)
            sums.weights[i].addmm_(grad.T, inputs[i])
            sums.biases[i].add_(of_x)
            if i:
                grad = grad @ network.weights[i]
    return sums


def filters_at_lags(
    hidden: Tensor, w: BlockWeights, window: FilterWindow, channels: slice
) -> Tensor:
    """See `filter_passes.filters_at_lags`."""
    k = torch.mm(w.last_weight[channels], hidden.T)
    _window(k, window, channels, w.skip)
    return k


def filters_backward(
    grad_k: Tensor,
    hidden: Tensor,
    w: BlockWeights,
    window: FilterWindow,
    channels: slice,
    sums: BlockWeights,
    grad_hidden: Tensor,
) -> None:
    """See `filter_passes.filters_backward`; grad_k, a transposed (c, L), is overwritten."""
    d = grad_k.T
    sums.skip[channels].add_(d[:, 0])
    _window(d, window, channels, None)
    sums.last_weight[channels].addmm_(d, hidden)
    grad_hidden.addmm_(d.T, w.last_weight[channels])


def _window(k: Tensor, window: FilterWindow, channels: slice, skip: Tensor | None) -> None:
    width, length = k.shape
    shape, rates = rows_tile(length), window.rates[channels]
    grid = (-(-width // shape["R"]), -(-length // shape["BLOCK"]))
    launch(
        window_kernel, grid, k, k, window.t, rates, rates if skip is None else skip[channels],
        width, length, float(window.shift), SKIP=skip is not None, **shape,
    )  # fmt: skip


def _sine(x: Tensor, freq: Tensor) -> None:
    rows, width = x.shape
    shape = tile(width, 1024)
    grid = (-(-rows // shape["R"]),)
    launch(sine_kernel, grid, x, x, freq, rows, F=width, **shape)


def _sine_backward(x: Tensor, grad: Tensor, freq: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over rows, (F,), of the gradients of x and of freq; grad (L, F) becomes that of x."""
    rows, width = x.shape
    shape = tile(width, 1024)
    count, steps = programs_and_steps(-(-rows // shape["R"]))
    sums = x.new_empty(count, 2, width)
    launch(
        sine_backward_kernel, (count,), x, x, grad, freq, sums, rows, steps, F=width, **shape,
    )  # fmt: skip
    of_x, of_freq = sums.sum(0)
    return of_x, of_freq
