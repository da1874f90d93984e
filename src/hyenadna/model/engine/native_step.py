"""One token of each growing sequence through a whole model, in native code."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hyenadna.errors import InputError
from hyenadna.model.engine.native_call import NAMES, Call, Shape, native_library
from hyenadna.model.engine.weights import BlockWeights


class _Layer(ctypes.Structure):
    """`StepLayer` of native/step.h."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("halo", "recent", "settled", "taps")]


class _Steps(ctypes.Structure):
    """`Steps` of native/step.h."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("B", "now", "start", "recent_batch", "settled_batch", "threads")
    ]


class StepLayer:
    """The tensors of one layer's state; all contiguous, but for `settled` along the batch.

    halo (B, K-1, 3D); recent (B, capacity, D); settled (1 or B, room, D); taps (block, D).
    """

    def __init__(self, halo: Tensor, recent: Tensor, settled: Tensor, taps: Tensor) -> None:
        assert halo.is_contiguous() and recent.is_contiguous() and taps.is_contiguous()
        assert settled[0].is_contiguous()
        self.tensors = (halo, recent, settled, taps)


class StepAddresses:
    """Where the state of all layers lies in memory. Keeps the tensors alive."""

    def __init__(self, layers: Sequence[StepLayer], block: int, threads: int) -> None:
        self.layers, self.block = layers, block
        _, recent, settled, _ = layers[0].tensors
        self.array = (_Layer * len(layers))(
            *(_Layer(*(t.data_ptr() for t in layer.tensors)) for layer in layers)
        )
        self.steps = _Steps(
            B=len(recent),
            recent_batch=recent.stride(0),
            settled_batch=settled.stride(0) if len(settled) > 1 else 0,
            threads=threads,
        )

    def at(self, now: int) -> Any:
        """The struct `Steps` for the sample that comes as number `now`."""
        self.steps.now, self.steps.start = now, now - now % self.block
        return ctypes.byref(self.steps)


class NativeStepper:
    """The weights of a model of order 2 as they were, packed for single steps.

    weights: of all blocks. head: (V, D); norm: weight and bias of the final norm; table: (V, D).
    Raises MemoryError.
    """

    def __init__(
        self,
        weights: Sequence[BlockWeights],
        eps: float,
        head: Tensor,
        norm: tuple[Tensor, Tensor],
        table: Tensor,
        *,
        bf16: bool = False,
    ) -> None:
        first = weights[0]
        inner, d_model = first.fc1_weight.shape
        self.rows, self.dtype = len(table), table.dtype
        taps = first.short_weight.shape[1]
        self.shape = (len(weights), taps - 1, 3 * d_model)
        shape = Shape(D=d_model, I=inner, K=taps, count=d_model, eps=eps, bf16=bf16)
        call, library, name = Call(self.dtype), native_library(), NAMES[self.dtype]
        blocks = [call.weights(w) for w in weights]
        array = (ctypes.c_void_p * len(blocks))(*(ctypes.addressof(b) for b in blocks))
        make = getattr(library, f"{name}_stepper")
        make.restype = ctypes.c_void_p
        self._stepper = make(
            ctypes.byref(shape), ctypes.c_int64(len(blocks)), array, call.head(head, norm),
            ctypes.c_void_p(call.address(table)),
        )  # fmt: skip
        if not self._stepper:
            raise MemoryError("native stepper: out of memory")
        free = getattr(library, f"{name}_stepper_free")
        # not at exit, when threads may still be stepping
        weakref.finalize(self, free, ctypes.c_void_p(self._stepper)).atexit = False
        self._step = getattr(library, f"{name}_step")
        self._step.argtypes = [ctypes.c_void_p] * 5

    def require(self, layers: int, halo: Tensor) -> None:
        """Raises InputError for a state that is not of a model of this shape and type."""
        found = (layers, *halo.shape[1:])
        if found != self.shape or halo.dtype != self.dtype or not halo.is_cpu:
            raise InputError(
                f"decoding: a state of {layers} layers in {halo.dtype} on {halo.device} for a "
                f"model of {self.shape[0]} in {self.dtype}; prefill with this decoder"
            )

    def step(self, addresses: StepAddresses, now: int, ids: Tensor) -> Tensor:
        """Logits (B, V) after tokens ids (B,), int64 and contiguous; changes the layers' tensors.

        Raises InputError for an id outside the table.
        """
        logits = torch.empty(len(ids), self.rows, dtype=self.dtype)
        failed = self._step(
            self._stepper, addresses.at(now), addresses.array, ids.data_ptr(), logits.data_ptr()
        )
        if failed == 2:
            raise InputError(
                f"decoding: tokens have token ids {int(ids.min())} to {int(ids.max())}; they must "
                f"be in 0 .. {self.rows - 1} (hyenadna.encode makes them)"
            )
        if failed:
            raise MemoryError("native step: out of memory")
        return logits
