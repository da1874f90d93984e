"""`hyenadna models`."""

from __future__ import annotations

from rich.table import Table

from hyenadna.cli.console import make_console
from hyenadna.cli.units import size
from hyenadna.config import PRESETS, PUBLISHED_NAMES
from hyenadna.model.memory import inference_bytes, training_bytes


def models() -> None:
    """List the shapes: parameters, longest input, memory at that length."""
    console = make_console()
    wide = console.width >= 112
    table = Table(title="HyenaDNA models", caption=(
        "Memory on the CPU for one sequence of the longest input, float32, beside about 0.3 GiB "
        "for the interpreter. Each is published as LongSafari/hyenadna-SIZE-seqlen and, in another "
        "layout, with -hf behind; both load by name or by preset. xlarge-1m has no published "
        "weights: it is a shape to pretrain over many devices (docs/scale.md)."
    ))  # fmt: skip
    table.add_column("preset", no_wrap=True)
    if wide:
        table.add_column("published as", no_wrap=True)
    for column in ("layers", "width", "parameters", "longest input", "to run", "to train"):
        table.add_column(column, justify="right")
    for name, config in PRESETS.items():
        length = config.max_seq_len
        table.add_row(
            name,
            *([PUBLISHED_NAMES.get(name, "not published")] if wide else []),
            str(config.n_layer),
            str(config.d_model),
            f"{config.num_parameters():,}",
            f"{length:,}",
            size(inference_bytes(config, tokens=length)),
            size(training_bytes(config, tokens=length)),
        )
    console.print(table)
