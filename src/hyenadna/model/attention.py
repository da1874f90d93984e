"""Causal attention: the mixer of the Transformer baseline."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def rotate(x: Tensor, position: Tensor | None = None) -> Tensor:
    """Rotary positions (Su et al. 2021, arXiv 2104.09864) applied to x of shape (B, H, L, D_h).

    position: integers that broadcast to (B, H, L); 0..L-1 where left out.
    """
    length, width = x.shape[-2:]
    half = width // 2
    rate = 10000.0 ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    if position is None:
        position = torch.arange(length, device=x.device)
    angle = position.to(torch.float32)[..., None] * rate
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class CausalAttention(nn.Module):
    """Multi-head causal attention with rotary positions, by torch's scaled_dot_product_attention.

    Same projections as the Hyena operator of order 2: D -> 3 D -> D with biases.
    """

    def __init__(self, d_model: int, *, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.in_proj = nn.Linear(d_model, 3 * d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        heads = self.in_proj(x).unflatten(-1, (3, self.num_heads, -1)).transpose(1, 3)
        q, k, v = heads.unbind(2)  # each (B, H, L, D / H)
        mixed = nn.functional.scaled_dot_product_attention(
            rotate(q), rotate(k), v, is_causal=True, dropout_p=self.dropout * self.training
        )
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out
