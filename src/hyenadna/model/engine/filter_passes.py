"""The implicit filter in chunks of lags, forward and backward, without a graph.

`k[l, c] = (last_weight[c] . hidden[l]) (exp(-t_l rate_c) + shift)`, plus `skip[c]` at lag 0; hidden
is the output of the filter network's last sine. Formulas: `hyenadna.model.filter`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from hyenadna.model.engine import pages
from hyenadna.model.engine.gemm import Gemm, row_chunks
from hyenadna.model.engine.sizes import DEVICE_FILTER_ROWS, FILTER_ROWS
from hyenadna.model.engine.weights import BlockWeights, FilterWindow
from hyenadna.model.filter import ImplicitFilter


@dataclass(frozen=True)
class FilterNetwork:
    """The filter network up to its last sine, `x <- sin(freq (W x + b))` over its layers."""

    freq: Tensor  # (1, F), shared by all layers
    weights: tuple[Tensor, ...]  # (F, E) or (F, F)
    biases: tuple[Tensor, ...]  # (F,)

    @classmethod
    def of(cls, filter_fn: ImplicitFilter) -> FilterNetwork:
        """The tensors that the filter holds now."""
        layers = list(filter_fn.implicit_filter)[:-1]
        linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
        freq = layers[1].freq
        assert isinstance(freq, Tensor)
        return cls(
            freq.contiguous(),
            tuple(x.weight.contiguous() for x in linear),
            tuple(x.bias.contiguous() for x in linear),
        )

    @classmethod
    def join(cls, tensors: tuple[Tensor, ...]) -> FilterNetwork:
        """What `tensors` took apart."""
        depth = len(tensors) // 2
        return cls(tensors[0], tensors[1 : 1 + depth], tensors[1 + depth :])

    def tensors(self) -> tuple[Tensor, ...]:
        """All of them in one row: freq, weights, biases."""
        return (self.freq, *self.weights, *self.biases)


def hidden_at_lags(network: FilterNetwork, z: Tensor, length: int) -> Tensor:
    """Output of the last sine at lags 0..length-1, (L, F), in the type of the weights.

    z: features (M, E) of the lags.
    """
    like = network.weights[0]
    out = pages.empty_like(like, length, like.shape[0])
    for rows in row_chunks(length, _chunk(like)):
        x = z[rows].to(like.dtype)
        for weight, bias in zip(network.weights, network.biases, strict=True):
            x = functional.linear(x, weight, bias).mul_(network.freq).sin_()
        out[rows] = x
    return out


def network_backward(network: FilterNetwork, z: Tensor, grad_hidden: Tensor) -> FilterNetwork:
    """Gradients of freq, weights and biases from that of `hidden_at_lags`, (L, F)."""
    sums = FilterNetwork.join(tuple(torch.zeros_like(t) for t in network.tensors()))
    for rows in row_chunks(len(grad_hidden), _chunk(grad_hidden)):
        inputs, sums_in = [z[rows].to(grad_hidden.dtype)], []
        for weight, bias in zip(network.weights, network.biases, strict=True):
            sums_in.append(functional.linear(inputs[-1], weight, bias))
            inputs.append(torch.sin(network.freq * sums_in[-1]))
        grad = grad_hidden[rows]
        for i in reversed(range(len(network.weights))):
            grad = grad * torch.cos(network.freq * sums_in[i])
            sums.freq.add_((grad * sums_in[i]).sum(0))
            grad *= network.freq
            sums.weights[i].add_(grad.T @ inputs[i])
            sums.biases[i].add_(grad.sum(0))
            if i:
                grad = grad @ network.weights[i]
    return sums


def filters_at_lags(
    hidden: Tensor, w: BlockWeights, window: FilterWindow, channels: slice, gemm: Gemm
) -> Tensor:
    """Filters (c, L) of a block of channels, the skip term at lag 0. hidden: (L, F)."""
    last, rates = w.last_weight[channels], window.rates[channels, None]
    k = pages.empty_like(hidden, len(last), len(hidden))
    for rows in row_chunks(len(hidden), _chunk(hidden)):
        decay = torch.exp(-rates * window.t[rows]).add_(window.shift)
        torch.mul(gemm.linear(last, hidden[rows]), decay, out=k[:, rows])
    k[:, 0] += w.skip[channels]
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
    """Adds to sums.last_weight and sums.skip, and to grad_hidden (L, F).

    grad_k: gradient of `filters_at_lags`, laid out (L, c).
    """
    rates = window.rates[channels]
    last = w.last_weight[channels]
    for rows in row_chunks(len(hidden), _chunk(hidden)):
        decay = torch.exp(-window.t[rows, None] * rates).add_(window.shift)
        grad = decay.mul_(grad_k[rows])
        sums.last_weight[channels].addmm_(grad.T, hidden[rows])
        grad_hidden[rows].addmm_(grad, last)
    sums.skip[channels].add_(grad_k[0])


def _chunk(like: Tensor) -> int:
    return DEVICE_FILTER_ROWS if like.is_cuda else FILTER_ROWS
