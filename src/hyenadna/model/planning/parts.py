"""Memory of one rank by part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hyenadna.model.engine.plan import gpu_plan, make_plan
from hyenadna.model.engine.sizes import GROUP, Workload
from hyenadna.model.memory import FIRST_USE, keeps, table_bytes
from hyenadna.model.planning.context import context_inference, context_training
from hyenadna.model.planning.devices import DEVICES
from hyenadna.model.planning.held import BLOCK_SAMPLES, DEVICE_BLOCK_SAMPLES, Held
from hyenadna.model.planning.plain import PlainPass
from hyenadna.model.planning.setup import Setup

INTERPRETER: Final = 226 << 20
"""Python with torch loaded and no pass made (benchmarks/plan.py)."""
ATTENTION_USE: Final = 10 << 20
"""`FIRST_USE` of a Transformer without gradients: it has no FFTs."""
GLOO: Final = 10 << 20
"""More of it where there are several ranks."""
HEAP_STREAMS: Final = 5
"""Arrays of the residual stream that training by the engine leaves between others on the heap."""
PAGES: Final = 16 << 20
"""Bytes from which an array is not on the heap (`hyenadna.model.engine.pages.SMALLEST`)."""
GPU_CONTEXT: Final = 600 << 20
"""CUDA's context with the libraries' kernels; an assumption."""
NCCL: Final = 1 << 30
"""NCCL's channels, where there are several GPUs; an assumption."""
GPU_KEEPS: Final = 1.05
"""What torch's allocator on a GPU keeps beside tensors; an assumption."""

SMALLEST_GPU: Final = min(one.memory for one in DEVICES.values())
"""Bytes of a GPU where nothing is said of it."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank at the widest moment of a step or pass."""

    weights: float
    gradients: float
    moments: float
    average: float
    """The moving average of the weights."""
    exchanged: float
    """Buffers of what ranks tell each other: gradients (DDP), whole blocks (FSDP)."""
    tables: float
    """Features of all lags."""
    kept: float
    """Activations that wait for the backward pass; without one, the residual stream."""
    work: float
    """Temporaries of the widest moment."""
    loss: float
    """Logits and what the loss makes of them."""
    freed: float
    """What the allocator keeps of freed tensors, and pages of libraries."""
    process: float
    """The interpreter, or the GPU's context."""

    @property
    def total(self) -> float:
        """All of it."""
        return sum(vars(self).values())


def memory(setup: Setup, gpu_memory: float = SMALLEST_GPU) -> Memory:
    """Memory of a rank, of the one with most where they differ.

    gpu_memory: bytes of a GPU, by which the engine cuts its blocks there.
    """
    config = setup.config
    parameters = 4.0 * config.num_parameters()
    owned = parameters / setup.ranks if setup.fsdp else parameters
    training = float(setup.training)
    lasting = {
        "weights": owned,
        "gradients": training * owned,
        "moments": training * 2 * owned,
        "average": training * setup.average * owned,
        "exchanged": _exchanged(setup, parameters),
        "tables": float(table_bytes(config)),
    }
    held, factor = _held(setup, gpu_memory, sum(lasting.values()))
    return Memory(
        **lasting,
        kept=held.kept,
        work=held.work,
        loss=held.loss,
        freed=(factor - 1) * held.total + _libraries(setup),
        process=(GPU_CONTEXT + NCCL * (setup.ranks > 1)) if setup.gpu else INTERPRETER,
    )


def _libraries(setup: Setup) -> float:
    """Pages of libraries on a CPU, and what lies between the engine's arrays."""
    if setup.gpu:
        return 0.0
    first = FIRST_USE + GLOO * (setup.ranks > 1)
    if setup.config.mixer == "attention" and not setup.training:
        return ATTENTION_USE
    stream = 4 * setup.rows_at_once * setup.length * setup.config.d_model
    heap = setup.engine and setup.training and stream < PAGES
    return first + heap * HEAP_STREAMS * stream


def _exchanged(setup: Setup, parameters: float) -> float:
    """DDP: a copy of all gradients. FSDP: two whole blocks, and the gradients of one.

    Over several passes FSDP adds whole gradients up, for it parts them after the last.
    """
    if not setup.fsdp:
        return parameters if setup.training and setup.ranks > 1 else 0.0
    block = parameters / setup.config.n_layer
    if not setup.training:
        return 2 * block
    return 2 * block + (parameters if setup.passes > 1 else block)


def _held(setup: Setup, gpu_memory: float, lasting: float) -> tuple[Held, float]:
    """What a pass holds, and the memory that it takes as a multiple of it.

    lasting: bytes that are there before and after.
    """
    if setup.engine:
        return _engine(setup, gpu_memory, lasting), GPU_KEEPS if setup.gpu else 1.0
    samples = DEVICE_BLOCK_SAMPLES if setup.gpu else BLOCK_SAMPLES
    rows = setup.rows_at_once
    if setup.context > 1:
        count = context_training if setup.training else context_inference
        held = count(
            setup.config, batch=rows, length=setup.length, ranks=setup.context, gpu=setup.gpu
        )
        return held, GPU_KEEPS if setup.gpu else 1.0
    plain = PlainPass(
        setup.config, rows, setup.length, half=setup.half, checkpointing=setup.checkpointing,
        block_samples=samples,
    )  # fmt: skip
    held = plain.training() if setup.training else plain.inference()
    if setup.gpu:
        return held, GPU_KEEPS
    # as `pretrain` sets the allocator where memory matters more than time
    returns = setup.training and (setup.checkpointing or setup.fsdp)
    factor = keeps(setup.config, training=setup.training, half=setup.half, returns=returns)
    return held, factor


def _engine(setup: Setup, gpu_memory: float, lasting: float) -> Held:
    """The engine's buffers: streams wait for the backward pass, the rest is work."""
    work = Workload(
        setup.config, setup.rows_at_once, setup.length, training=setup.training,
        native=setup.native_engine, threads=1, gpu=setup.gpu,
        product_itemsize=2 if setup.gpu and setup.half else None,
    )  # fmt: skip
    if setup.gpu:
        plan = gpu_plan(work, int(gpu_memory), int(lasting))
    else:
        plan = make_plan(work, step=GROUP if setup.native_engine else 1)
    layers = setup.config.n_layer if setup.training else 1
    kept = layers * (work.stream + (work.mixed if setup.training and plan.keep_mixed else 0))
    return Held(kept, max(0, plan.total_bytes - kept))
