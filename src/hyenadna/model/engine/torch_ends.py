"""What lies before and behind the blocks, in torch: the token table, the final norm, the loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from hyenadna.alphabet import IGNORED
from hyenadna.model.engine import pages
from hyenadna.model.engine.gemm import Gemm, row_chunks
from hyenadna.model.engine.norm import standardise, standardise_backward
from hyenadna.model.engine.sizes import ROWS


class TorchEnds:
    """The part of `Kernels` outside the blocks. rows: positions of a chunk."""

    def __init__(self, rows: int = ROWS) -> None:
        self.rows = rows
        self.exact = Gemm(None)

    def embed(self, table: Tensor, ids: Tensor) -> Tensor:
        """See `Kernels.embed`."""
        h = pages.empty_like(table, *ids.shape, table.shape[1])
        torch.index_select(table, 0, ids.flatten(), out=h.view(-1, table.shape[1]))
        return h

    def embed_backward(self, rows: int, ids: Tensor, grad: Tensor) -> Tensor:
        """See `Kernels.embed_backward`.

        A product of one-hot rows and the gradient: torch's own scatters row by row.
        """
        flat, rows_g = ids.flatten(), grad.flatten(0, -2)
        out = grad.new_zeros(rows, grad.shape[-1])
        every = torch.arange(rows, device=ids.device)[:, None]
        for chunk in row_chunks(len(flat), self.rows):
            out.addmm_((flat[chunk] == every).to(out.dtype), rows_g[chunk])
        return out

    def norm(self, h: Tensor, weight: Tensor, bias: Tensor, eps: float) -> None:
        """See `Kernels.norm`."""
        flat = h.view(-1, h.shape[-1])
        for rows in row_chunks(len(flat), self.rows):
            flat[rows] = functional.layer_norm(flat[rows], flat.shape[1:], weight, bias, eps)

    def nats(
        self, h: Tensor, norm: tuple[Tensor, Tensor], eps: float, head: Tensor, targets: Tensor
    ) -> Tensor:
        """See `Kernels.nats`."""
        flat, wanted = h.view(-1, h.shape[-1]), targets.flatten()
        out = h.new_empty(len(flat))
        for rows in row_chunks(len(flat), self.rows):
            x = functional.layer_norm(flat[rows], flat.shape[1:], *norm, eps)
            out[rows] = functional.cross_entropy(
                self.exact.linear(x, head), wanted[rows], ignore_index=IGNORED, reduction="none"
            )
        return out.view(targets.shape)

    def nats_backward(
        self,
        h: Tensor,
        norm: tuple[Tensor, Tensor],
        eps: float,
        head: Tensor,
        targets: Tensor,
        grad: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See `Kernels.nats_backward`."""
        flat, wanted, g = h.view(-1, h.shape[-1]), targets.flatten(), grad.flatten()
        grad_h = pages.empty_like(flat)
        sums = [torch.zeros_like(t) for t in (head, *norm)]
        for rows in row_chunks(len(flat), self.rows):
            n, mean, rstd = standardise(flat[rows], eps)
            x = n * norm[0] + norm[1]
            counted = wanted[rows] != IGNORED
            d = torch.softmax(self.exact.linear(x, head), dim=1)
            index = torch.where(counted, wanted[rows], 0)[:, None]
            d.scatter_add_(1, index, d.new_full((1, 1), -1.0).expand_as(index))
            d *= torch.where(counted, g[rows], 0)[:, None]
            grad_x = d @ head
            sums[0].addmm_(d.T, x)
            sums[1].add_((grad_x * n).sum(0))
            sums[2].add_(grad_x.sum(0))
            grad_h[rows] = standardise_backward(grad_x * norm[0], flat[rows], mean, rstd)
        return grad_h.view_as(h), sums[0], sums[1], sums[2]
