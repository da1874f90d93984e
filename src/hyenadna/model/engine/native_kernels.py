"""The kernels of a model in native code (src/hyenadna/native), on the CPU."""

from __future__ import annotations

import platform

import torch
from torch import Tensor

from hyenadna.config import ModelConfig
from hyenadna.model.engine import pages
from hyenadna.model.engine.filter_passes import FilterNetwork
from hyenadna.model.engine.kernels import Past
from hyenadna.model.engine.native_call import NAMES, Call, Shape, native_library
from hyenadna.model.engine.sizes import GROUP, native_fits
from hyenadna.model.engine.weights import BlockWeights, FilterWindow
from hyenadna.native import library


def available(config: ModelConfig, dtype: torch.dtype, gemm: torch.dtype | None = None) -> bool:
    """Whether there are native kernels for models of this shape and type on this machine.

    gemm: bfloat16 asks for matrix products in bf16: of AVX512-BF16, or on other x86 processors of
    rounded factors in float32, since there torch has no products in hardware either. Elsewhere it
    may have them.
    """
    if dtype not in NAMES or not native_fits(config) or library() is None:
        return False
    return gemm is None or (dtype == torch.float32 and (multiplies_bf16() or lacks_bf16()))


def multiplies_bf16() -> bool:
    """Whether native kernels make products of bf16 in hardware."""
    return library() is not None and bool(native_library().has_bf16())


def lacks_bf16() -> bool:
    """Whether this processor is known to have no products of bf16: then float32 is faster.

    On x86 whatever multiplies bf16 has AVX512-BF16 too.
    """
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return x86 and library() is not None and not multiplies_bf16()


class NativeKernels:
    """Native code behind the `Kernels` protocol. All tensors: contiguous, on the CPU, of one type.

    gemm: bfloat16 rounds the factors of the blocks' matrix products to bf16; sums stay float32.
    threads: as many as torch would use when left out.
    """

    name = layout = "native"
    overwrites = True

    def __init__(self, gemm: torch.dtype | None = None, threads: int | None = None) -> None:
        self._bf16 = gemm == torch.bfloat16
        self._threads = threads or torch.get_num_threads()

    def release(self) -> None:
        """See `Kernels.release`."""
        pages.release()
        native_library().release()

    def kept_bytes(self) -> int:
        """See `Kernels.kept_bytes`."""
        return pages.kept_bytes() + int(native_library().kept())

    def channel_step(self) -> int:
        """Channel blocks are multiples of 16."""
        return GROUP

    def mixed_like(self, h: Tensor) -> Tensor:
        """See `Kernels.mixed_like`: as the residual stream is."""
        return pages.empty_like(h)

    def norm_gradient(self, h: Tensor, blocks: int) -> Tensor:
        """See `Kernels.norm_gradient`: zeros that every block adds to."""
        return pages.empty_like(h).zero_()

    def hidden(self, network: FilterNetwork, z: Tensor, length: int) -> Tensor:
        """See `Kernels.hidden`."""
        out = pages.work_space("hidden", network.freq, length, network.freq.numel())
        self._fill_hidden(network, z, out)
        return out

    def kept_hidden(self, network: FilterNetwork, z: Tensor, length: int) -> Tensor:
        """As `hidden`, in memory of its own."""
        out = pages.empty_like(network.freq, length, network.freq.numel())
        self._fill_hidden(network, z, out)
        return out

    def _fill_hidden(self, network: FilterNetwork, z: Tensor, out: Tensor) -> None:
        call, length = Call(out.dtype), len(out)
        features = z[:length].to(call.dtype)
        call("sine_network", call.network(network), length, self._threads, features, out)

    def hidden_backward(
        self, network: FilterNetwork, z: Tensor, grad_hidden: Tensor
    ) -> FilterNetwork:
        """See `Kernels.hidden_backward`."""
        call = Call(grad_hidden.dtype)
        sums = FilterNetwork.join(
            tuple(torch.zeros(t.shape, dtype=t.dtype) for t in network.tensors())
        )
        length = len(grad_hidden)
        features = z[:length].to(call.dtype)
        call(
            "sine_network_backward", call.network(network), length, self._threads, features,
            grad_hidden, call.sums(sums.weights), call.sums(sums.biases), sums.freq,
        )  # fmt: skip
        return sums

    def spectrum(
        self,
        hidden: Tensor,
        w: BlockWeights,
        window: FilterWindow,
        channels: slice,
        *,
        kept: bool = True,
    ) -> Tensor:
        """See `Kernels.spectrum`. Result: (channels / 16, N, 2, 16)."""
        call = Call(hidden.dtype)
        groups = (channels.stop - channels.start) // GROUP
        size = (groups, native_library().fft_length(len(hidden)), 2, GROUP)
        if kept:
            out = pages.empty_like(hidden, *size)
        else:
            out = pages.work_space("spectrum", hidden, *size)
        shape = self._shape(w, 1, len(hidden), channels)
        call("spectrum", shape, call.weights(w), call.filter(hidden, window), out)
        return out

    def filters_backward(
        self,
        grad_k: Tensor,
        hidden: Tensor,
        w: BlockWeights,
        window: FilterWindow,
        channels: slice,
        sums: BlockWeights,
        grad_hidden: Tensor,
    ) -> None:
        """See `Kernels.filters_backward`."""
        call = Call(hidden.dtype)
        shape = self._shape(w, 1, len(hidden), channels)
        call(
            "filter_backward", shape, call.weights(w), call.filter(hidden, window), grad_k,
            grad_hidden, call.sums(sums.tensors()),
        )  # fmt: skip

    def mix(
        self,
        h: Tensor,
        w: BlockWeights,
        eps: float,
        spectrum: Tensor,
        channels: slice,
        y: Tensor,
        past: Past | None = None,
    ) -> None:
        """See `Kernels.mix`."""
        call = Call(h.dtype)
        batch, length, _ = h.shape
        groups = (channels.stop - channels.start) // GROUP
        gated = pages.work_space("gated", h, batch, groups, length, GROUP)
        shape = self._shape(w, batch, length, channels, eps)
        self._require(spectrum, groups, length)
        before = None if past is None else call.past(past, length)
        call("mix", shape, call.weights(w), h, spectrum, before, gated, y)
        if past is not None:
            past.keep(channels, gated.transpose(1, 2))

    def settle(
        self,
        samples: Tensor,
        hidden: Tensor,
        w: BlockWeights,
        window: FilterWindow,
        channels: slice,
        effect: Tensor,
    ) -> None:
        """Fills `effect[..., channels]` (B, room, D) with the effect of samples on what follows.

        samples: what `Past.keep` is called with, (B, L, groups, 16). hidden: at the first L + room
        lags, or as many as there are. See `hyenadna.conv.online.settle`.
        """
        call, gated = Call(effect.dtype), samples.transpose(1, 2)
        batch, length = samples.shape[:2]
        shape = self._shape(w, batch, length, channels)
        call(
            "settle", shape, call.weights(w), call.filter(hidden, window), len(hidden), gated,
            effect.shape[1], effect,
        )  # fmt: skip

    def finish(self, h: Tensor, y: Tensor, w: BlockWeights, eps: float, out: Tensor) -> None:
        """See `Kernels.finish`."""
        call = Call(h.dtype)
        call("finish", self._whole(w, h, eps), call.weights(w), h, y, out)

    def finish_backward(
        self, h: Tensor, y: Tensor, w: BlockWeights, eps: float, grad: Tensor, sums: BlockWeights
    ) -> tuple[Tensor, Tensor]:
        """See `Kernels.finish_backward`."""
        call = Call(h.dtype)
        shape = self._whole(w, h, eps)
        call("finish_backward", shape, call.weights(w), h, y, grad, call.sums(sums.tensors()))
        return grad, y

    def mix_backward(
        self,
        h: Tensor,
        w: BlockWeights,
        eps: float,
        spectrum: Tensor,
        channels: slice,
        grad_y: Tensor,
        grad_n: Tensor,
        sums: BlockWeights,
    ) -> Tensor:
        """See `Kernels.mix_backward`."""
        call = Call(h.dtype)
        batch, length, _ = h.shape
        count = channels.stop - channels.start
        self._require(spectrum, count // GROUP, length)
        projected = pages.work_space("projected", h, batch, count // GROUP, length, 3 * GROUP)
        grad_k = pages.work_space("grad_k", h, length, count)
        call(
            "mix_backward", self._shape(w, batch, length, channels, eps), call.weights(w), h,
            spectrum, grad_y, projected, grad_k, grad_n, call.sums(sums.tensors()),
        )  # fmt: skip
        return grad_k

    def norm_backward(self, h: Tensor, eps: float, grad_n: Tensor, grad: Tensor) -> None:
        """See `Kernels.norm_backward`."""
        Call(h.dtype)("norm_backward", self._rows(h, eps), h, grad_n, grad)

    def embed(self, table: Tensor, ids: Tensor) -> Tensor:
        """See `Kernels.embed`."""
        h = pages.empty_like(table.detach(), *ids.shape, table.shape[1])
        Call(h.dtype)("embed", self._rows(h), ids.contiguous(), table.detach().contiguous(), h)
        return h

    def embed_backward(self, rows: int, ids: Tensor, grad: Tensor) -> Tensor:
        """See `Kernels.embed_backward`."""
        out = grad.new_zeros(rows, grad.shape[-1])
        Call(grad.dtype)("embed_backward", self._rows(grad), ids.contiguous(), rows, grad, out)
        return out

    def norm(self, h: Tensor, weight: Tensor, bias: Tensor, eps: float) -> None:
        """See `Kernels.norm`."""
        Call(h.dtype)("norm", self._rows(h, eps), weight.detach(), bias.detach(), h, h)

    def nats(
        self, h: Tensor, norm: tuple[Tensor, Tensor], eps: float, head: Tensor, targets: Tensor
    ) -> Tensor:
        """See `Kernels.nats`."""
        call = Call(h.dtype)
        out = h.new_empty(targets.shape)
        call("nats", self._rows(h, eps), call.head(head, norm), h, targets.contiguous(), out)
        return out

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
        call = Call(h.dtype)
        grad_h = pages.empty_like(h)
        sums = [torch.zeros(t.shape, dtype=t.dtype) for t in (head, *norm)]
        call(
            "nats_backward", self._rows(h, eps), call.head(head, norm), h, targets.contiguous(),
            grad.contiguous(), grad_h, *sums,
        )  # fmt: skip
        return grad_h, sums[0], sums[1], sums[2]

    def _require(self, spectrum: Tensor, groups: int, length: int) -> None:
        """The kernels read the whole of it."""
        wanted = (groups, native_library().fft_length(length), 2, GROUP)
        assert spectrum.shape == wanted, f"spectrum {tuple(spectrum.shape)}, not {wanted}"

    def _rows(self, h: Tensor, eps: float = 0.0) -> Shape:
        length = h.shape[1]
        return Shape(B=h.shape[0], L=length, D=h.shape[2], eps=eps, threads=self._threads)

    def _shape(
        self, w: BlockWeights, batch: int, length: int, channels: slice, eps: float = 0.0
    ) -> Shape:
        inner, d = w.fc1_weight.shape
        return Shape(
            B=batch,
            L=length,
            D=d,
            I=inner,
            K=w.short_weight.shape[1],
            F=w.last_weight.shape[1],
            start=channels.start,
            count=channels.stop - channels.start,
            eps=eps,
            threads=self._threads,
            bf16=self._bf16,
        )

    def _whole(self, w: BlockWeights, h: Tensor, eps: float) -> Shape:
        return self._shape(w, h.shape[0], h.shape[1], slice(0, h.shape[2]), eps)
