"""Matrix products of the engine: the fastest that torch offers for the type and the device."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

_log = logging.getLogger(__name__)


def row_chunks(total: int, rows: int) -> Iterator[slice]:
    """Slices of at most `rows` that cover 0..total-1 in order."""
    for start in range(0, total, rows):
        yield slice(start, min(start + rows, total))


class Gemm:
    """Products `x w^T + b` of operands that are cast to `dtype` (None: left in their own type).

    On a CPU, float32 and bf16 go to oneDNN's fused linear, which at these shapes is measured at 2
    to 3 times the speed of torch's default path; anything else goes to
    `torch.nn.functional.linear`.
    """

    def __init__(self, dtype: torch.dtype | None) -> None:
        self.dtype = dtype

    def operand(self, x: Tensor) -> Tensor:
        """x in the type of the products."""
        return x if self.dtype is None else x.to(self.dtype)

    def linear(self, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
        """`x w^T + bias`, (R, O), in the type of the products. x: (R, I); w: (O, I); bias: (O,)."""
        x, w = self.operand(x), self.operand(w)
        bias = None if bias is None else self.operand(bias)
        if fused_linear_works(x.device.type, x.dtype):
            out: Tensor = torch.ops.mkldnn._linear_pointwise(x, w, bias, "none", [], "")
            return out
        return torch.nn.functional.linear(x, w, bias)

    def linear_gelu(self, x: Tensor, w: Tensor, bias: Tensor) -> Tensor:
        """Tanh form of GELU of `linear(x, w, bias)`."""
        x, w, bias = self.operand(x), self.operand(w), self.operand(bias)
        if fused_linear_works(x.device.type, x.dtype):
            out: Tensor = torch.ops.mkldnn._linear_pointwise(x, w, bias, "gelu", [], "tanh")
            return out
        return torch.nn.functional.gelu(torch.nn.functional.linear(x, w, bias), approximate="tanh")


@lru_cache(maxsize=16)
@torch.no_grad()
def fused_linear_works(device: str, dtype: torch.dtype) -> bool:
    """Whether oneDNN's fused linear is there and right for this type: tried once on a small case.

    It is an internal operator of torch, which a release may change or leave out, and a build or a
    global setting may let it round float32 operands to bf16.
    """
    if device != "cpu" or dtype not in (torch.float32, torch.bfloat16):
        return False
    if not torch.backends.mkldnn.is_available() or not hasattr(
        torch.ops.mkldnn, "_linear_pointwise"
    ):
        return False
    grid = torch.arange(24.0, dtype=torch.float64)
    x = torch.sin(grid * 0.7 + 1).reshape(4, 6).to(dtype)
    w = torch.cos(grid * 1.3 + 2).reshape(4, 6).to(dtype)
    bias = x[:, 0].contiguous()
    exact = x.double() @ w.double().T + bias.double()
    wanted = torch.nn.functional.gelu(exact, approximate="tanh")
    # transposed views as well: the backward passes hand them in
    turned = x.T.contiguous().T
    try:
        with torch.autocast("cpu", enabled=False):
            plain = torch.ops.mkldnn._linear_pointwise(turned, w, bias, "none", [], "")
            fused = torch.ops.mkldnn._linear_pointwise(x, w, bias, "gelu", [], "tanh")
    except RuntimeError as refusal:  # what torch raises for another signature or type
        reason = str(refusal).splitlines()[0]
        _log.warning("oneDNN's fused linear is left out for %s: %s", dtype, reason)
        return False
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    error = max((plain - exact).abs().max().item(), (fused - wanted).abs().max().item())
    return error < tolerance
