"""The token table with a backward pass by matrix products."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from hyenadna.model.engine.gemm import row_chunks
from hyenadna.model.engine.sizes import HEAD_ROWS


def embed_tokens(table: Tensor, tokens: Tensor) -> Tensor:
    """Rows of the table: (V, D), integer (B, L) -> (B, L, D).

    The gradient of the table is a product of one-hot rows and the gradient: torch's own scatters
    row by row.
    """
    out: Tensor = _Embedding.apply(table, tokens)
    return out


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, tokens: Tensor) -> Tensor:
        ctx.save_for_backward(tokens)
        ctx.table_rows = len(table)
        return functional.embedding(tokens, table)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (tokens,) = ctx.saved_tensors
        ids, rows_g = tokens.flatten(), grads[0].flatten(0, -2)
        out = rows_g.new_zeros(ctx.table_rows, rows_g.shape[1])
        every = torch.arange(ctx.table_rows, device=ids.device)[:, None]
        with torch.autocast(out.device.type, enabled=False):
            for rows in row_chunks(len(ids), HEAD_ROWS):
                out.addmm_((ids[rows] == every).to(out.dtype), rows_g[rows])
        return out, None
