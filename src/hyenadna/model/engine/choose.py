"""Which kernels a pass runs on, if the engine can run it at all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

import torch
from torch import Tensor, nn

from hyenadna.config import ModelConfig
from hyenadna.conv.triton_launch import why_no_triton
from hyenadna.errors import InputError
from hyenadna.model.engine.kernels import Kernels
from hyenadna.model.engine.plan import parse_memory
from hyenadna.model.engine.sizes import product_rows
from hyenadna.model.engine.torch_kernels import TorchKernels

Choice = Literal["auto", "native", "triton", "torch", "plain"]
CHOICES: Final[tuple[str, ...]] = get_args(Choice)


@dataclass(frozen=True)
class EngineSettings:
    """What `set_engine` was told."""

    kernels: Choice = "auto"
    max_memory: int | None = None
    offload: Path | None = None

    @classmethod
    def of(
        cls, kernels: Choice, max_memory: str | int | None, offload: str | Path | None
    ) -> EngineSettings:
        """Checked settings. Raises InputError for an unknown name, size or folder."""
        if kernels not in CHOICES:
            raise InputError(f"engine: no kernels {kernels!r}; there are {', '.join(CHOICES)}")
        budget = None if max_memory is None else parse_memory(max_memory)
        folder = None if offload is None else Path(offload)
        if folder is not None and not folder.is_dir():
            raise InputError(f"engine: offload={str(offload)!r} is not a folder; make it first")
        return cls(kernels, budget, folder)


def choose_kernels(settings: EngineSettings, config: ModelConfig, h: Tensor) -> Kernels | None:
    """Kernels for a pass over h under the present autocast state; None for the plain modules.

    `auto` takes Triton on an NVIDIA GPU, where it also computes in fp16, and native code on a CPU;
    torch where those are not or do not fit, since it too keeps a block's input alone for the
    backward pass, where the plain modules keep a dozen arrays. Devices of other makers keep the
    plain modules: the engine is not tried there.

    Raises InputError where native or Triton kernels are asked for and there are none.
    """
    wanted, device = settings.kernels, h.device.type
    asked = wanted in ("torch", "triton") or (wanted == "auto" and device == "cuda")
    if wanted == "plain" or (device != "cpu" and not asked):
        return None
    if h.dtype not in (torch.float32, torch.float64) or _traced(h):
        return None
    gemm = None
    if torch.is_autocast_enabled(device) and h.dtype == torch.float32:
        gemm = torch.get_autocast_dtype(device)
        half = (torch.bfloat16, torch.float16)
        if gemm not in (half if device == "cuda" or wanted == "triton" else half[:1]):
            return None
    if wanted == "triton":
        require_triton(config, h.dtype, h.device)
        return triton_kernels(gemm)
    if device == "cuda":
        able = wanted == "auto" and why_no_triton_kernels(config, h.dtype, h.device) is None
        if able and right_on(config, gemm, h.device):
            return triton_kernels(gemm)
        return TorchKernels(gemm, rows=product_rows(config.inner_width))
    if wanted in ("auto", "native"):
        native = native_kernels(config, h.dtype, gemm)
        if native is not None:
            return native
        if wanted == "native":
            require_native(config, h.dtype, gemm)
    return TorchKernels(gemm)


def native_kernels(
    config: ModelConfig, dtype: torch.dtype, gemm: torch.dtype | None
) -> Kernels | None:
    """Native kernels for this shape and type, where there are any."""
    from hyenadna.model.engine.native_kernels import NativeKernels, available

    return NativeKernels(gemm) if available(config, dtype, gemm) else None


def require_native(
    config: ModelConfig, dtype: torch.dtype, gemm: torch.dtype | None = None
) -> None:
    """Raises InputError where there are no native kernels for this shape and type."""
    from hyenadna.model.engine.native_kernels import available
    from hyenadna.native import why_not

    if not available(config, dtype, gemm):
        products = "" if gemm is None else f" with products in {gemm}"
        reason = why_not() or f"not on this machine for d_model {config.d_model}, {dtype}{products}"
        raise InputError(f"engine: no native kernels: {reason}; take kernels='auto' or 'torch'")


def triton_kernels(gemm: torch.dtype | None) -> Kernels:
    """Triton kernels with products in this type; only where `why_no_triton_kernels` knows none."""
    from hyenadna.model.engine.triton_kernels import TritonKernels

    return TritonKernels(gemm)


def right_on(config: ModelConfig, gemm: torch.dtype | None, device: torch.device) -> bool:
    """Whether a trial of the Triton kernels on this device came out right; tried once."""
    from hyenadna.model.engine.triton_trial import why_wrong

    return why_wrong(config, gemm, device) is None


def require_triton(
    config: ModelConfig, dtype: torch.dtype, device: torch.device | None = None
) -> None:
    """Raises InputError where `why_no_triton_kernels` knows a reason."""
    reason = why_no_triton_kernels(config, dtype, device)
    if reason is not None:
        raise InputError(f"engine: no Triton kernels: {reason}; take kernels='auto' or 'torch'")


def why_no_triton_kernels(
    config: ModelConfig, dtype: torch.dtype, device: torch.device | None = None
) -> str | None:
    """What keeps Triton kernels from models of this shape and type on this device, if anything.

    device: any when left out.
    """
    reason = why_no_triton(device)
    if reason is not None:
        return reason
    if dtype != torch.float32:
        return f"they are for float32 models (also under autocast), this one is {dtype}"
    from hyenadna.model.engine.triton_kernels import fits

    return None if fits(config) else f"not for a model of this shape (d_model {config.d_model})"


def untouched(module: nn.Module, types: frozenset[type]) -> bool:
    """Whether a module and all inside it are of these very types, without hooks or adapters.

    The engine reads their weights and calls none of them, so whatever was added to one would be
    passed over.
    """
    return all(type(m) in types and not expects_call(m) for m in module.modules())


def expects_call(module: nn.Module) -> bool:
    """Whether somebody wants to know when this module is called: hooks, or a forward of its own."""
    everywhere = torch.nn.modules.module
    return bool(
        "forward" in module.__dict__
        or module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or everywhere._global_forward_hooks
        or everywhere._global_forward_pre_hooks
        or everywhere._global_backward_hooks
        or everywhere._global_backward_pre_hooks
    )


def all_like(h: Tensor, tensors: Iterable[Tensor]) -> bool:
    """Whether all tensors are ordinary ones of the type and device of h."""
    return all(
        type(t) in (nn.Parameter, Tensor) and t.dtype == h.dtype and t.device == h.device
        for t in tensors
    )


def _traced(h: Tensor) -> bool:
    ordinary = type(h) in (nn.Parameter, Tensor)
    forward_mode = torch.autograd.forward_ad._current_level >= 0
    return not ordinary or forward_mode or torch.compiler.is_compiling() or torch.jit.is_tracing()
