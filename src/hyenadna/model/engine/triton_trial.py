"""Whether Triton's kernels are right on the GPU at hand: tried once on a small case.

Kernels are compiled on the machine of the user, by the Triton that came with torch, for a GPU that
may be newer than both. A compiler that fails or is wrong must not cost a run, so `auto` first
compares a block and the loss, forward and backward, with the torch provider. Widths are those of
the model, so that some of what is compiled is used again; the sequence is short, so the kernels
that only long convolutions have are not tried.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from functools import lru_cache

import torch
from torch import Tensor

from hyenadna.alphabet import IGNORED
from hyenadna.config import ModelConfig
from hyenadna.model.engine.block import Layer, Pass, block_training
from hyenadna.model.engine.ends import stream_nats
from hyenadna.model.engine.filter_passes import FilterNetwork
from hyenadna.model.engine.kernels import Kernels
from hyenadna.model.engine.plan import Plan
from hyenadna.model.engine.spectra import FilterTables, SpectrumCache
from hyenadna.model.engine.torch_kernels import TorchKernels
from hyenadna.model.engine.weights import BlockWeights, FilterWindow

_log = logging.getLogger(__name__)
ROWS, LENGTH = 2, 200  # B and L of the trial
WORST = {None: 1e-3, torch.bfloat16: 0.2, torch.float16: 0.05}
"""Largest error of a tensor relative to its largest number, by the type of the products: far above
rounding, far below a wrong index."""


def why_wrong(config: ModelConfig, gemm: torch.dtype | None, device: torch.device) -> str | None:
    """What is wrong with the kernels on this device; None where nothing is. Warns once.

    gemm: type of the products, None for float32. Waits for the GPU the first time. Raises
    torch.OutOfMemoryError where even the trial finds no room, RuntimeError where the first pass of
    such a model is one that a CUDA graph captures, which may wait for nothing.
    """
    return _tried(_Case.of(config), gemm, device)


@dataclass(frozen=True)
class _Case:
    """The widths that kernels are compiled for, and eps: models alike in these share a trial."""

    width: int
    inner: int
    taps: int
    filter_width: int
    features: int
    depth: int
    classes: int
    eps: float

    @classmethod
    def of(cls, config: ModelConfig) -> _Case:
        return cls(
            config.d_model, config.inner_width, config.short_filter_order, config.filter_order,
            config.emb_dim, config.num_inner_mlps + 1, config.padded_vocab_size,
            config.layer_norm_epsilon,
        )  # fmt: skip


@lru_cache(maxsize=64)
def _tried(case: _Case, gemm: torch.dtype | None, device: torch.device) -> str | None:
    from hyenadna.model.engine.triton_kernels import TritonKernels

    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise RuntimeError("the engine: run the model once before a CUDA graph captures it")
    try:
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(device.type, enabled=False),
        ):
            wanted = _outcome(case, TorchKernels(), device)
            found = _outcome(case, TritonKernels(gemm), device)
            worst = max(_error(a, b) for a, b in zip(found, wanted, strict=True))
    except torch.OutOfMemoryError:  # says nothing about the kernels
        raise
    except Exception as error:  # whatever a compiler, a driver or a launch raises
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[0] if lines else ''}"
    else:
        if worst <= _limit(gemm):
            return None
        reason = f"a trial came out wrong, by {worst:.1g} of the largest number"
    _log.warning("Triton kernels are left out on %s, torch takes their place: %s", device, reason)
    return reason


def _limit(gemm: torch.dtype | None) -> float:
    # TF32, where torch was told to round float32 factors to it, has the digits of float16
    tf32 = torch.backends.cuda.matmul.fp32_precision == "tf32"
    return WORST[torch.float16 if gemm is None and tf32 else gemm]


def _error(found: Tensor, wanted: Tensor) -> float:
    """Largest difference relative to the largest number; infinite where one is not finite."""
    if not bool(found.isfinite().all()):
        return float("inf")
    return float((found.float() - wanted).abs().max() / wanted.abs().max().clamp_min(1e-6))


def _outcome(case: _Case, kernels: Kernels, device: torch.device) -> list[Tensor]:
    """Losses, and the gradients of everything, of one block and the end behind it.

    Types and devices are spelled out: torch may have been given other defaults.
    """
    generator = torch.Generator("cpu").manual_seed(0)

    def draw(*shape: int, scale: float) -> Tensor:
        drawn = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
        return (drawn * scale).to(device).requires_grad_()

    d, f = case.width, case.filter_width
    shapes: dict[str, tuple[int, ...]] = {
        "in_weight": (3 * d, d), "in_bias": (3 * d,), "short_weight": (3 * d, case.taps),
        "short_bias": (3 * d,), "last_weight": (d, f), "skip": (d,), "out_weight": (d, d),
        "fc1_weight": (case.inner, d), "fc1_bias": (case.inner,), "fc2_weight": (d, case.inner),
    }  # fmt: skip
    weights = BlockWeights(
        **{
            each.name: draw(*(shape := shapes.get(each.name, (d,))), scale=shape[-1] ** -0.5)
            for each in fields(BlockWeights)
        }
    )
    network = FilterNetwork(
        draw(1, f, scale=1.0),
        tuple(draw(f, f if i else case.features, scale=f**-0.5) for i in range(case.depth)),
        tuple(draw(f, scale=0.3) for _ in range(case.depth)),
    )
    z = draw(LENGTH, case.features, scale=1.0).detach()
    t = torch.linspace(0, 1, LENGTH, dtype=torch.float32, device=device)
    rates = torch.linspace(1, 9, d, dtype=torch.float32, device=device)
    window = FilterWindow(t, rates, 0.05)
    tables = FilterTables(0, z[None], t[None, :, None], window, ())
    h = draw(ROWS, LENGTH, d, scale=1.0)
    ends = [draw(d, scale=1.0), draw(d, scale=1.0), draw(case.classes, d, scale=d**-0.5)]
    targets = torch.randint(0, case.classes, (ROWS, LENGTH), generator=generator, device="cpu").to(
        device
    )
    targets[:, ::7] = IGNORED
    run = Pass(kernels, Plan(d, False, 0, 0), case.eps, SpectrumCache())
    out = block_training(run, Layer(weights, network, tables), h)
    nats = stream_nats(kernels, out, (ends[0], ends[1]), case.eps, ends[2], targets)
    trained = [h, *weights.tensors(), *network.tensors(), *ends]
    return [nats.detach(), *torch.autograd.grad(nats.mean(), trained)]
