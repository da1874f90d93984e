"""Memory that a model needs, by arithmetic: no torch, so that it can be printed at once.

Models of order 2 run through the engine on a CPU; `hyenadna.model.engine.sizes` counts its buffers.
For the others, and on a GPU, `hyenadna.model.planning.plain` counts the tensors of the plain
modules, and `hyenadna.model.planning.context` those of a rank that shares sequences. What the
allocator keeps of freed tensors is measured (benchmarks/plan.py): all figures are within 10 % of
the real peak. None counts the interpreter with torch loaded, about 0.3 GiB.
"""

from __future__ import annotations

from typing import Final

from hyenadna.config import ModelConfig
from hyenadna.model.engine.plan import make_plan
from hyenadna.model.engine.sizes import Workload, native_fits
from hyenadna.model.planning.context import context_training
from hyenadna.model.planning.plain import PlainPass
from hyenadna.native import expected

FIRST_USE: Final = 84 << 20
"""Pages of libraries that a pass is the first to touch."""
_BEHIND_OVERHEAD: Final = 1.35
"""Headroom over a plain pass: copies that the shared pass makes."""

KEEPS_TRAINING: Final = 1.33
KEEPS_ATTENTION: Final = 1.5
KEEPS_HALF: Final = 1.7
KEEPS_INFERENCE: Final = 1.45
"""Memory of a process beside its tensors' where glibc keeps what is freed, as commands have it: its
holes do not fit the next tensors. In training, of a Transformer, and of any model with products in
half precision; and without gradients."""
RETURNS: Final = 1.03
"""The same where freed memory goes back at once (`cli.process.return_freed_memory`)."""


def keeps(config: ModelConfig, *, training: bool, half: bool, returns: bool = False) -> float:
    """Memory of a process of plain modules as a multiple of its tensors'."""
    if returns:
        return RETURNS
    if not training:
        return KEEPS_INFERENCE
    if half:
        return KEEPS_HALF
    return KEEPS_ATTENTION if config.mixer == "attention" else KEEPS_TRAINING


def inference_bytes(config: ModelConfig, *, tokens: int, engine: bool | None = None) -> int:
    """Peak bytes of a float32 pass over `tokens` positions (batch x length): embeddings or loss.

    engine: whether the pass runs through the engine; left out, it does where the model can.
    """
    weights = 4 * config.num_parameters() + table_bytes(config)
    if _by_engine(config, engine):
        return weights + _engine_bytes(config, tokens, training=False)
    held = PlainPass(config, *_rows(config, tokens)).inference().total
    return int(weights + keeps(config, training=False, half=False) * held)


def prompted_bytes(config: ModelConfig, *, prompt: int, batch: int, length: int) -> int:
    """Peak bytes of a float32 pass over (B, L) positions behind a soft prompt of P vectors.

    Beside the weights; for hyena models. The vectors pass first, by themselves; what stays of them
    are the filters of all layers at P + L lags, and what they add to L positions. The rest: as for
    a plain pass in `inference_bytes`.
    """
    kept = 4 * config.n_layer * config.filter_channels * (prompt + 2 * length)
    tokens = max(prompt + length, batch * length)
    weights = 4 * config.num_parameters()
    held = kept + inference_bytes(config, tokens=tokens, engine=False) - weights
    return int(_BEHIND_OVERHEAD * held)


def training_bytes(
    config: ModelConfig,
    *,
    tokens: int,
    length: int | None = None,
    checkpointing: bool = False,
    precision: str = "float32",
    average: bool = False,
    engine: bool | None = None,
) -> int:
    """Peak bytes of a training step over `tokens` positions in one forward pass.

    Weights, gradients and two moments (16 bytes a parameter; 4 more for the moving average), plus
    what each block keeps for its backward pass. length: of a window; as long as the model reads
    when left out. engine: as for `inference_bytes`; the engine keeps
    a block's input only, so `checkpointing` and `precision` make no difference to it. With
    `checkpointing`, plain modules are counted in a process that gives freed memory back.
    """
    weights = config.num_parameters() * (20 if average else 16) + table_bytes(config)
    if _by_engine(config, engine):
        return weights + _engine_bytes(config, tokens, training=True)
    half = precision != "float32"
    batch, length = _rows(config, tokens, length)
    held = PlainPass(config, batch, length, half=half, checkpointing=checkpointing).training()
    factor = keeps(config, training=True, half=half, returns=checkpointing)
    return int(weights + factor * held.total)


def context_bytes(config: ModelConfig, *, batch: int, length: int, ranks: int) -> int:
    """Peak bytes of one rank in a float32 training step on (B, L) positions over `ranks` ranks.

    Beside the interpreter and the weights; for hyena models as `hyenadna.model.parallel` runs them.
    Measured: within 4 % for 262,144 bases on 1, 2 and 4 ranks, and for 2 and 4 million on 4
    (benchmarks/context_parallel.py).
    """
    held = context_training(config, batch=batch, length=length, ranks=ranks)
    return int(held.total) + table_bytes(config) + FIRST_USE


def table_bytes(config: ModelConfig) -> int:
    """Features of all lags, which a process holds once, whatever it reads."""
    return 4 * (config.emb_dim + 1) * config.max_seq_len if config.mixer == "hyena" else 0


def _by_engine(config: ModelConfig, engine: bool | None) -> bool:
    able = config.mixer == "hyena" and config.hyena_order == 2
    return able if engine is None else engine


def _engine_bytes(config: ModelConfig, tokens: int, *, training: bool) -> int:
    """Bytes of the engine's plan without a budget, for windows as long as the model reads."""
    batch, length = _rows(config, tokens)
    native = native_fits(config) and expected()
    work = Workload(config, batch, length, training=training, native=native)
    return make_plan(work).total_bytes


def _rows(config: ModelConfig, tokens: int, length: int | None = None) -> tuple[int, int]:
    """Windows of a length, of the longest that the model reads where it is left out; and that."""
    length = min(tokens, config.max_seq_len if length is None else length)
    return -(-tokens // length), length
