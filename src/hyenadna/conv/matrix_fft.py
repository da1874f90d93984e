"""The causal long convolution and its gates as small matrix products on a GPU.

Spectra of filters are made once (`spectrum`) and used many times (`convolve`, `gradients`). All
signals are (C, B, L) by strides, of one type: float32, bfloat16 or float16. For float32 the factors
of all products are split in two, and results are as exact as those of a float32 FFT; for the 16-bit
types factors have 11 significant bits, well above the types' own 8 of bfloat16. Measured in
tests/conv/test_gated_convolution.py, with reasons in docs/decisions/matrix-fft.md.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from hyenadna.conv.matrix_tables import SMALL_SHARED, Shape, inner_tables, shape_of
from hyenadna.errors import InputError

LONGEST: Final = 1 << 24
"""Most samples of a signal."""
TYPES: Final = (torch.float32, torch.bfloat16, torch.float16)
PROGRAMS: Final = 2048
"""Programs that keep a large GPU busy; more rows than that are done one after the other."""
PADDING: Final = 16
"""Numbers behind each spectrum; the first is what the spectrum must be multiplied with."""


@lru_cache(maxsize=1)
def why_not() -> str | None:
    """What is missing for the kernels on any device, or None."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return "Triton is not installed"
    return None


def runs_on(device: torch.device) -> bool:
    """Whether the kernels run there: on NVIDIA GPUs, and anywhere in Triton's interpreter."""
    if why_not() is not None:
        return False
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    return interpreted or (device.type == "cuda" and torch.version.hip is None)


@lru_cache(maxsize=16)
def _largest(device: torch.device) -> int:
    """Most points that one program transforms there."""
    if device.type != "cuda":
        return 8192
    shared = torch.cuda.get_device_properties(device).shared_memory_per_block_optin
    return 8192 if shared >= 160 << 10 else SMALL_SHARED


def shape_for(length: int, device: torch.device, exact: bool) -> Shape:
    """The shape of transforms for a length; exact: with split factors.

    Raises InputError for a length that is too large.
    """
    if not 1 <= length <= LONGEST:
        raise InputError(
            f"matrix convolution: {length:,} samples; 1 to {LONGEST:,} are possible, "
            "take method='fft'"
        )
    largest = _largest(device)
    return shape_of(length, largest=min(largest, 4096) if exact else largest)


@dataclass(frozen=True)
class Short:
    """A short causal filter of all three signals, that the kernels apply as they read them.

    rows: (3, C, K + 1), float32 and contiguous, for after, before and v: K taps, the last of which
    meets the current sample, and the bias. lead: samples of the past that lie before each row.
    """

    rows: Tensor
    lead: int = 0

    @classmethod
    def of(cls, taps: Tensor, bias: Tensor, lead: int = 0) -> Short:
        """taps: (3, C, K); bias: (3, C)."""
        rows = torch.cat([taps, bias[..., None]], dim=2).float().contiguous()
        return cls(rows, lead)

    @property
    def taps(self) -> int:
        """K."""
        return self.rows.shape[2] - 1


def spectrum(k: Tensor, shape: Shape) -> Tensor:
    """Spectra (C, 2 m + PADDING) of filters k (C, L), float32, in the layout of the kernels.

    A skip term is the filter's own value at lag 0: add it before.
    """
    channels = k.shape[0]
    out = k.new_empty(channels, 2 * shape.m + PADDING)
    if channels:
        _spectra(k, shape, out)
        _bring_into_range(out, shape)
    return out


def _bring_into_range(out: Tensor, shape: Shape) -> None:
    """Scales spectra so that what they are multiplied into stays within float16, whatever comes.

    A signal of numbers up to 1 has a spectrum up to m in each part (inner of complex numbers up to
    1 each: 1.5 times that); a last product with an inner table sums up nb of the products.
    """
    parts = out[:, : 2 * shape.m]
    largest = parts.view(-1, 2, shape.m).square().sum(1).amax(1).sqrt_()
    largest = torch.where(largest > 0, largest, 1.0)
    limit = 2.0**13 / (shape.nb * shape.inner)
    parts *= (limit / largest)[:, None]
    out[:, 2 * shape.m :] = (largest / limit)[:, None]


def convolve(
    shape: Shape,
    spectra: Tensor,
    v: Tensor,
    y: Tensor,
    before: Tensor | None = None,
    after: Tensor | None = None,
    short: Short | None = None,
) -> None:
    """Fills y with `after * (k conv (v * before))`. v, before, after, y: (C, B, L) by strides.

    spectra: of the C filters. With `short` the signals are filtered as they are read.
    """
    if not v.numel():
        return
    from hyenadna.conv import triton_fft

    channels, batch, length = v.shape
    rows = _rows(channels, batch)
    matrices, twiddles = inner_tables(shape, v.device)
    with _on(v.device):
        triton_fft.convolve_kernel[(channels * -(-batch // rows),)](
            *_signals(v, before, after, short),
            *(y, *y.stride()),
            spectra, matrices, twiddles, batch, length, 0 if short is None else short.lead, rows,
            **_constants(shape, v, before, after, short),
        )  # fmt: skip


def gradients(
    shape: Shape,
    spectra: Tensor,
    v: Tensor,
    grad: Tensor,
    into: Sequence[Tensor | None],
    before: Tensor | None = None,
    after: Tensor | None = None,
    short: Short | None = None,
) -> Tensor:
    """Fills `into` with gradients of v, before and after; returns that of the filters, (C, L).

    grad: gradient of y, (C, B, L) by strides, as are v, before and after. into: as many tensors,
    all with the same strides and the last dimension dense. With `short` they are the gradients of
    the signals behind the short filter.
    """
    channels, batch, length = v.shape
    grad_k = torch.empty(channels, length, dtype=torch.float32, device=v.device)
    if not v.numel():
        return grad_k.zero_()
    from hyenadna.conv import triton_fft

    rows = _rows(channels, batch)
    parts = -(-batch // rows)
    matrices, twiddles = inner_tables(shape, v.device)
    sums = torch.empty(channels * parts, 2 * shape.m, dtype=torch.float32, device=v.device)
    d_v, d_before, d_after = into
    assert d_v is not None and d_v.stride(2) == 1
    constants = _constants(shape, v, before, after, short)
    with _on(v.device):
        triton_fft.gradients_kernel[(channels * parts,)](
            *_signals(v, before, after, short),
            *(grad, *grad.stride()),
            d_v, _or(d_before, d_v), _or(d_after, d_v), *d_v.stride()[:2],
            sums, spectra, matrices, twiddles, batch, length, 0 if short is None else short.lead,
            rows, **constants,
        )  # fmt: skip
        triton_fft.filter_kernel[(channels,)](
            sums, parts, grad_k, *grad_k.stride(), matrices, twiddles, length, 1.0 / shape.m,
            N1=shape.na, N2=shape.nb, SPLIT=constants["SPLIT"], num_warps=shape.warps,
            num_stages=1,
        )  # fmt: skip
    return grad_k


def _spectra(k: Tensor, shape: Shape, out: Tensor) -> None:
    from hyenadna.conv import triton_fft

    matrices, twiddles = inner_tables(shape, k.device)
    with _on(k.device):
        triton_fft.spectrum_kernel[(len(k),)](
            k, *k.stride(), out, out.stride(0), matrices, twiddles, k.shape[1], 1.0 / shape.m,
            N1=shape.na, N2=shape.nb, SPLIT=True, num_warps=shape.warps, num_stages=1,
        )  # fmt: skip


def _rows(channels: int, batch: int) -> int:
    """Rows of the batch that one program does. Of shapes alone, so that sums are reproducible."""
    return -(-channels * batch // PROGRAMS) if channels * batch > PROGRAMS else 1


def _or(one: Tensor | None, other: Tensor) -> Tensor:
    """Kernels want a tensor for each argument, also for one that they do not touch."""
    return other if one is None else one


def _signals(
    v: Tensor, before: Tensor | None, after: Tensor | None, short: Short | None
) -> list[Tensor | int]:
    """v, before and after as arguments: each with its strides and its short filter."""
    out: list[Tensor | int] = []
    for signal, place in ((v, 2), (before, 1), (after, 0)):
        present = _or(signal, v)
        out += [present, *present.stride()]
        out.append(present if short is None else short.rows[place])
    return out


def _constants(
    shape: Shape, v: Tensor, before: Tensor | None, after: Tensor | None, short: Short | None
) -> dict[str, int | bool]:
    return {
        "N1": shape.na, "N2": shape.nb, "TAPS": 0 if short is None else short.taps,
        "BEFORE": before is not None, "AFTER": after is not None,
        "SPLIT": v.dtype == torch.float32, "num_warps": shape.warps, "num_stages": 1,
    }  # fmt: skip


def _on(device: torch.device) -> AbstractContextManager[object]:
    """Triton launches on the current device, whatever its arguments are on."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
