"""Whether Triton's kernels are right on the GPU at hand: see `hyenadna.conv.trial`.

`auto` first compares a block between table and loss, forward and backward, with the torch provider.
Widths are those of the model, so that some of what is compiled is used again; sequences are short.
The long convolution has kernels of its own for each kind of length, and is tried at the first of
each kind, beside cuFFT.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

import torch
from torch import Tensor

from hyenadna.alphabet import IGNORED
from hyenadna.config import ModelConfig
from hyenadna.conv.trial import (
    WORST,
    Kind,
    decaying_filters,
    drawn,
    is_right,
    largest_error,
    verdict,
)
from hyenadna.model.engine.block import Layer, Pass, block_training
from hyenadna.model.engine.ends import embed_tokens, stream_nats
from hyenadna.model.engine.filter_passes import FilterNetwork
from hyenadna.model.engine.kernels import Kernels
from hyenadna.model.engine.plan import Plan
from hyenadna.model.engine.spectra import FilterTables, SpectrumCache
from hyenadna.model.engine.torch_kernels import TorchKernels
from hyenadna.model.engine.triton_convolution import GatedConvolution, TransformedConvolution
from hyenadna.model.engine.triton_gates import Gated
from hyenadna.model.engine.triton_matrix import MatrixConvolution
from hyenadna.model.engine.weights import BlockWeights, FilterWindow

ROWS, LENGTH = 2, 200  # B and L of the trial
ALIGNED = 1024  # another L, on GPUs: Triton compiles kernels of their own for multiples of 16
TAPS = 3  # of the short filter beside a long convolution, as all published shapes have


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

    def trial() -> float:
        return max(
            largest_error(
                _outcome(case, TritonKernels(gemm), device, length),
                _outcome(case, TorchKernels(), device, length),
            )
            for length in ((LENGTH, ALIGNED) if device.type == "cuda" else (LENGTH,))
        )

    return verdict(trial, _limit(gemm), device, "Triton kernels")


def matrix_is_right(length: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the convolution by matrix products is, at such a length and type of projections."""
    return is_right(_matrix_error, length, dtype, device)


def _matrix_error(kind: Kind) -> float:
    """Of the operator and its gradients, beside those by cuFFT."""
    (c, batch), length, draw = kind.sizes, kind.length, drawn(kind.device)
    p = draw(3, c, batch, length).to(kind.dtype)
    k, grad = decaying_filters(draw, c, length), draw(batch, length, c).to(kind.dtype)
    gated = Gated(p, draw(3, c), draw(3, c, TAPS), draw(3, c))

    def outcome(convolution: GatedConvolution) -> list[Tensor]:
        y, dp = torch.empty_like(grad), torch.empty_like(p)
        spectrum = convolution.spectrum(k.clone())
        convolution.forward(gated, spectrum, y, 0, None, None)
        return [y, *convolution.backward(gated, spectrum, grad, 0, dp), dp]

    found = outcome(MatrixConvolution(length, kind.dtype, kind.device))
    wanted = outcome(TransformedConvolution(length, kind.device))
    return largest_error(found, [t.float() for t in wanted])


def _limit(gemm: torch.dtype | None) -> float:
    # TF32, where torch was told to round float32 factors to it, has the digits of float16
    tf32 = torch.backends.cuda.matmul.fp32_precision == "tf32"
    return WORST[torch.float16 if gemm is None and tf32 else gemm or torch.float32]


def _outcome(case: _Case, kernels: Kernels, device: torch.device, length: int) -> list[Tensor]:
    """Losses, and the gradients of everything, of one block between the table and the loss.

    And the final norm as inference has it.
    """
    numbers, generator = drawn(device), torch.Generator("cpu").manual_seed(0)

    def draw(*shape: int, scale: float) -> Tensor:
        return numbers(*shape, scale=scale).requires_grad_()

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
    z = draw(length, case.features, scale=1.0).detach()
    t = torch.linspace(0, 1, length, dtype=torch.float32, device=device)
    rates = torch.linspace(1, 9, d, dtype=torch.float32, device=device)
    window = FilterWindow(t, rates, 0.05)
    tables = FilterTables(0, z[None], t[None, :, None], window, ())
    h = draw(ROWS, length, d, scale=1.0)
    ends = [draw(d, scale=1.0), draw(d, scale=1.0), draw(case.classes, d, scale=d**-0.5)]
    targets = torch.randint(0, case.classes, (ROWS, length), generator=generator, device="cpu").to(
        device
    )
    targets[:, ::7] = IGNORED
    run = Pass(kernels, Plan(d, False, 0, 0), case.eps, SpectrumCache())
    ids = targets.clamp_min(0)
    embedded = embed_tokens(kernels, ends[2], ids)
    out = block_training(run, Layer(weights, network, tables), h + embedded)
    nats = stream_nats(kernels, out, (ends[0], ends[1]), case.eps, ends[2], targets)
    trained = [h, *weights.tensors(), *network.tensors(), *ends]
    normed = out.detach().clone()
    with torch.no_grad():
        kernels.norm(normed, ends[0], ends[1], case.eps)
    return [nats.detach(), normed, *torch.autograd.grad(nats.mean(), trained)]
