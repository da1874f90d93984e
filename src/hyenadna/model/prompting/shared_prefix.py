"""Sequences behind one prefix: the prefix passes through the model once, whatever the batch.

The model is causal, so no position of the prefix knows what follows it. A layer's convolution is
linear in its input, so that what the prefix adds to later positions is one tensor (L, D) for all
sequences: the tail of the convolution of the prefix alone. B sequences of L tokens behind P vectors
cost P + B L positions instead of B (P + L). All of it is differentiable, in the prefix too.

The slow twin puts the prefix in front of every sequence: `joint_states`.
"""

from __future__ import annotations

import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from hyenadna.conv import long_convolution, short_convolution
from hyenadna.model.backbone import Backbone, Block
from hyenadna.model.operator import HyenaOperator


def joint_states(backbone: Backbone, prefix: Tensor, tokens: Tensor) -> Tensor:
    """Final states (B, L, D) of embedded tokens (B, L, D), each row behind the prefix (P, D)."""
    rows = prefix.to(tokens.dtype).expand(len(tokens), -1, -1)
    states: Tensor = backbone(torch.cat([rows, tokens], dim=1))
    return states[:, prefix.shape[0] :]


def shared_states(
    backbone: Backbone, prefix: Tensor, tokens: Tensor, *, recompute: bool = False
) -> Tensor:
    """What `joint_states` gives, up to rounding, with one pass of the prefix for all rows.

    For models of hyena blocks, run as modules. prefix: (P, D), P at least 1. tokens: embedded,
    (B, L, D). recompute: keep the input of each block for the backward pass and nothing else.
    """
    first, rows = backbone.dropout(prefix.to(tokens.dtype)[None]), backbone.dropout(tokens)
    for layer in backbone.layers:
        assert isinstance(layer, Block)
        if recompute and torch.is_grad_enabled():
            first, rows = torch.utils.checkpoint.checkpoint(
                _through_block, layer, first, rows, use_reentrant=False
            )
        else:
            first, rows = _through_block(layer, first, rows)
    out: Tensor = backbone.ln_f(rows)
    return out


def _through_block(block: Block, first: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """As `Block.forward`, of prefix (1, P, D) and rows (B, L, D)."""
    assert isinstance(block.mixer, HyenaOperator)
    mixed = _mix(block.mixer, block.norm1(first), block.norm1(rows))
    out = []
    for h, y in zip((first, rows), mixed, strict=True):
        h = h + block.dropout(y).to(h.dtype)
        out.append(h + block.dropout(block.mlp(block.norm2(h))).to(h.dtype))
    return out[0], out[1]


def _mix(mixer: HyenaOperator, first: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """As `HyenaOperator.forward`, of prefix (1, P, D) and rows (B, L, D)."""
    before, after = _channels_first(mixer.in_proj, first), _channels_first(mixer.in_proj, rows)
    past, length = before.shape[2], after.shape[2]
    *gates_first, value_first = mixer.short_filter(before).split(mixer.d_model, dim=1)
    *gates, value = _short_after(mixer, before, after).split(mixer.d_model, dim=1)
    kernels = mixer.filter_fn(past + length).split(mixer.d_model)
    skips = mixer.filter_fn.bias.split(mixer.d_model)
    for o in range(mixer.order - 1):
        u_first, u = value_first * gates_first[-1 - o], value * gates[-1 - o]
        # of the prefix alone, at its own positions and at those that come after
        whole = long_convolution(
            nn.functional.pad(u_first, (0, length)), kernels[o], skips[o], method=mixer.conv_method
        )
        own = long_convolution(u, kernels[o][:, :length], skips[o], method=mixer.conv_method)
        value_first, value = whole[..., :past], own + whole[..., past:]
    gated = value_first * gates_first[0], value * gates[0]
    y_first, y = (
        mixer.out_proj(v.transpose(1, 2).to(h.dtype))
        for v, h in zip(gated, (first, rows), strict=True)
    )
    return y_first, y


def _channels_first(in_proj: nn.Module, x: Tensor) -> Tensor:
    """Projections (B, W, L), at least float32, for the reasons given in `HyenaOperator`."""
    projected = in_proj(x).transpose(1, 2)
    dtype = torch.promote_types(projected.dtype, torch.float32)
    out: Tensor = projected.to(dtype, memory_format=torch.contiguous_format)
    return out


def _short_after(mixer: HyenaOperator, before: Tensor, after: Tensor) -> Tensor:
    """The short filter at positions (B, W, L), which reaches back into (1, W, P)."""
    short = mixer.short_filter
    reach = min(short.weight.shape[-1] - 1, before.shape[2])
    halo = before[..., before.shape[2] - reach :].expand(len(after), -1, -1)
    filtered = short_convolution(torch.cat([halo, after], dim=2), short.weight[:, 0], short.bias)
    return filtered[..., reach:]
