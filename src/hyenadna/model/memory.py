"""Memory that a model needs, by arithmetic: no torch, so that it can be printed at once.

Models of order 2 run through the engine on a CPU; `hyenadna.model.engine.sizes` counts its buffers.
For the others, and on a GPU, the counts follow the tensors that the plain modules hold; there the
factors for temporaries and for what the allocator keeps are measured (float32 and bf16, tiny-1k at
16 x 1,024 and small-32k at 8,192 and 32,768 tokens, on the CPU): within 30 % of the real peak.
Neither counts the interpreter with torch loaded, about 0.3 GiB.
"""

from __future__ import annotations

from typing import Final

from hyenadna.config import ModelConfig
from hyenadna.model.engine.plan import make_plan
from hyenadna.model.engine.sizes import Workload

_RUN_OVERHEAD: Final = 1.8
_TRAIN_OVERHEAD: Final = 1.5
MIXED: Final = 1 << 19
"""Numbers (positions x channels) that a rank mixes at once, if that is a channel for each rank."""
_MIXED_ARRAYS: Final = 50
"""Arrays of these in a backward pass."""
_FIRST_USE: Final = 16 << 20
"""Pages of libraries that a pass is the first to touch."""
_BEHIND_OVERHEAD: Final = 1.3
"""Headroom over a plain pass: copies that the shared pass makes, and what the allocator keeps."""


def inference_bytes(config: ModelConfig, *, tokens: int, engine: bool | None = None) -> int:
    """Peak bytes of a float32 pass over `tokens` positions (batch x length): embeddings or loss.

    engine: whether the pass runs through the engine; left out, it does where the model can. Without
    it, counts per position the residual stream, the widest moment of one block (projections before
    and after the short filter, or the MLP's hidden layer twice), and the logits; and per lag of the
    longest sequence the filter of one layer.
    """
    if _by_engine(config, engine):
        return 4 * config.num_parameters() + _engine_bytes(config, tokens, training=False)
    d, inner = config.d_model, config.inner_width
    mixer = 2 * _projected_width(config) + 2 * d
    per_token = 2 * d + max(mixer, 2 * inner) + config.padded_vocab_size
    filters = 4 * config.filter_channels if config.mixer == "hyena" else 0
    held = tokens * per_token + min(tokens, config.max_seq_len) * filters
    return int(4 * (config.num_parameters() + _RUN_OVERHEAD * held))


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
    checkpointing: bool = False,
    precision: str = "float32",
    average: bool = False,
    engine: bool | None = None,
) -> int:
    """Peak bytes of a training step over `tokens` positions in one forward pass.

    Weights, gradients and two moments (16 bytes a parameter; 4 more for the moving average), plus
    what each block keeps for its backward pass. engine: as for `inference_bytes`; the engine keeps
    a block's input only, so `checkpointing` and `precision` make no difference to it.
    """
    weights = config.num_parameters() * (20 if average else 16)
    if _by_engine(config, engine):
        return weights + _engine_bytes(config, tokens, training=True)
    d, inner = config.d_model, config.inner_width
    width = _projected_width(config)
    # residual stream twice, both norms, projections before and after the short filter, gated input,
    # convolution, last product (twice), MLP hidden before and after GELU
    kept = 4 * d + 2 * width + 4 * d + 2 * inner
    size = 4 if precision == "float32" else 3  # about half of it is kept in half precision
    block = tokens * kept * size
    if checkpointing:
        activations = config.n_layer * tokens * 2 * d * 4 + block
    else:
        activations = config.n_layer * block
    activations += tokens * (2 * inner + 2 * width) * 4 + tokens * config.padded_vocab_size * 12
    lags = min(tokens, config.max_seq_len)
    activations += (
        config.n_layer * lags * (config.filter_channels * 3 + config.filter_order * 8) * 4
    )
    return int(weights + _TRAIN_OVERHEAD * activations)


def context_bytes(config: ModelConfig, *, batch: int, length: int, ranks: int) -> int:
    """Peak bytes of one rank in a float32 training step on (B, L) positions over `ranks` ranks.

    Beside the interpreter and the weights; for hyena models as `hyenadna.model.parallel` runs them.
    Each block keeps its input, the norm's output, what stands between mixer and MLP, and the filter
    network's last layer; the gradients beside it are four arrays, the logits one. The work space is
    that of the channels that are mixed at once. Measured: within 2 % for 262,144
    bases on 1, 2 and 4 ranks, 14 % too much for 2,097,152 on 4 (benchmarks/context_parallel.py).
    """
    d = config.d_model
    here = batch * -(-length // ranks)
    kept = config.n_layer * (3 * d + config.filter_order) + 4 * d + config.padded_vocab_size
    mixed = max(MIXED, ranks * here)
    return 4 * (here * kept + _MIXED_ARRAYS * mixed) + _FIRST_USE


def _by_engine(config: ModelConfig, engine: bool | None) -> bool:
    able = config.mixer == "hyena" and config.hyena_order == 2
    return able if engine is None else engine


def _engine_bytes(config: ModelConfig, tokens: int, *, training: bool) -> int:
    """Bytes of the engine's plan without a budget, for windows as long as the model reads."""
    length = min(tokens, config.max_seq_len)
    batch = -(-tokens // length)
    return make_plan(Workload(config, batch, length, training=training)).total_bytes


def _projected_width(config: ModelConfig) -> int:
    """Channels of a mixer's input projection."""
    return (config.hyena_order + 1 if config.mixer == "hyena" else 3) * config.d_model
