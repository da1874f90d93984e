"""The original's algorithm in plain torch, computing with the parameters of one of our models.

What every speed here is measured against, and a slow twin: written from the description of the
reference (projections of the whole sequence, depthwise Conv1d padded on both sides and cut, filter
network and spectra computed again at every call, transforms of exactly 2L, torch's own autograd),
with none of our shortcuts. Formulas: arXiv 2306.15794, section 3; arXiv 2302.10866, section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from hyenadna.errors import InputError
from hyenadna.model.backbone import Block, HyenaDNA
from hyenadna.model.filter import ImplicitFilter
from hyenadna.model.operator import HyenaOperator


class Original(nn.Module):
    """The same function as `model`, of the same parameters, computed as the original does.

    model: a Hyena model without dropout after the embeddings; it is held, not copied, so that
    gradients arrive in its parameters. Raises InputError for another mixer or other dropout.
    """

    def __init__(self, model: HyenaDNA) -> None:
        super().__init__()
        config = model.config
        if config.mixer != "hyena" or config.resid_dropout or config.hyena_dropout:
            raise InputError(
                f"original: mixer {config.mixer!r} with resid_dropout {config.resid_dropout} and "
                f"hyena_dropout {config.hyena_dropout}; it takes 'hyena' without these two"
            )
        self.model = model
        self.blocks = [OriginalBlock(layer) for layer in model.backbone.layers]

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (B, L, V) of integer tokens (B, L)."""
        return functional.linear(self.embed(tokens), self.model.head_weight)

    def embed(self, tokens: Tensor) -> Tensor:
        """Hidden states (B, L, D) after the final norm."""
        backbone = self.model.backbone
        h = functional.embedding(tokens, backbone.embeddings.word_embeddings.weight)
        h = functional.dropout(h, backbone.dropout.p, self.training)
        for block in self.blocks:
            h = block(h)
        return _norm(backbone.ln_f, h)


class OriginalBlock:
    """One pre-norm block, (B, L, D) -> (B, L, D); `layer` is a block of our model."""

    def __init__(self, layer: nn.Module) -> None:
        assert isinstance(layer, Block) and isinstance(layer.mixer, HyenaOperator)
        self.layer, self.mixer = layer, layer.mixer
        self.filter = OriginalFilter(layer.mixer.filter_fn)

    def __call__(self, h: Tensor) -> Tensor:
        layer = self.layer
        h = h + self._mix(_norm(layer.norm1, h))
        hidden = functional.linear(_norm(layer.norm2, h), layer.mlp.fc1.weight, layer.mlp.fc1.bias)
        hidden = functional.gelu(hidden, approximate="tanh")
        return h + functional.linear(hidden, layer.mlp.fc2.weight, layer.mlp.fc2.bias)

    def _mix(self, n: Tensor) -> Tensor:
        mixer, length = self.mixer, n.shape[1]
        projected = functional.linear(n, mixer.in_proj.weight, mixer.in_proj.bias)
        projected = projected.transpose(1, 2)  # (B, (N+1) D, L)
        weight, bias = mixer.short_filter.weight, mixer.short_filter.bias
        short = functional.conv1d(
            projected, weight, bias, padding=weight.shape[-1] - 1, groups=weight.shape[0]
        )[..., :length]
        *gates, value = short.split(mixer.d_model, dim=1)
        kernels = self.filter(length).split(mixer.d_model)
        skips = mixer.filter_fn.bias.split(mixer.d_model)
        for kernel, skip, gate in zip(kernels, skips, reversed(gates[1:]), strict=True):
            value = fft_convolution(value * gate, kernel, skip)
        mixed = (value * gates[0]).transpose(1, 2)
        return functional.linear(mixed, mixer.out_proj.weight, mixer.out_proj.bias)


class OriginalFilter:
    """Filters (C, L) of one layer; the tables of positions are made once, as the original does."""

    def __init__(self, filter_fn: ImplicitFilter) -> None:
        self.network = filter_fn.implicit_filter
        self.shift = filter_fn.window_shift
        tables = filter_fn.tables()
        dtype = filter_fn.bias.dtype
        self.z = tables["pos_emb.z"].to(dtype)
        self.t = tables["pos_emb.t"].to(dtype)
        self.rates = tables["modulation.deltas"].to(dtype).abs()

    def __call__(self, length: int) -> Tensor:
        network = self.network(self.z[:, :length])  # (1, L, C)
        window = torch.exp(-self.t[:, :length] * self.rates) + self.shift
        kernels: Tensor = (network * window)[0].transpose(0, 1)
        return kernels


def fft_convolution(u: Tensor, k: Tensor, skip: Tensor) -> Tensor:
    """`y = k conv u + skip u` by transforms of exactly 2L, zero-padded.

    u: (B, D, L), transformed in the type of k; k: (D, L); skip: (D,); result (B, D, L).
    """
    length = u.shape[-1]
    size = 2 * length
    spectrum = torch.fft.rfft(u.to(k.dtype), n=size) * (torch.fft.rfft(k, n=size) / size)
    y = torch.fft.irfft(spectrum, n=size, norm="forward")[..., :length]
    return y + u * skip[:, None]


def _norm(norm: nn.LayerNorm, h: Tensor) -> Tensor:
    return functional.layer_norm(h, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
