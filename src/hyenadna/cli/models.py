"""`hyenadna models`."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from hyenadna.cli.units import size
from hyenadna.config import PRESETS, PUBLISHED_NAMES
from hyenadna.model.memory import inference_bytes, training_bytes


def models() -> None:
    """List the published shapes: parameters, longest input, memory at that length."""
    table = Table(title="Published HyenaDNA models", caption=(
        "Memory: one sequence of the longest length, float32; training with gradient checkpointing. "
        "Load by name (`hyenadna.load`) or train the shape anew (`pretrain --preset`)."
    ))  # fmt: skip
    for column in ("preset", "published as LongSafari/…"):
        table.add_column(column, no_wrap=True)
    for column in ("layers", "width", "parameters", "longest input", "to run", "to train"):
        table.add_column(column, justify="right")
    for name, config in PRESETS.items():
        length = config.max_seq_len
        table.add_row(
            name,
            PUBLISHED_NAMES[name],
            str(config.n_layer),
            str(config.d_model),
            f"{config.num_parameters():,}",
            f"{length:,}",
            size(inference_bytes(config, tokens=length)),
            size(training_bytes(config, tokens=length, checkpointing=True)),
        )
    Console().print(table)
