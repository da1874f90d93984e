"""`hyenadna models`."""

from __future__ import annotations

from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from hyenadna.cli.console import make_console
from hyenadna.cli.units import bases, size
from hyenadna.config import PRESETS, PUBLISHED_NAMES
from hyenadna.model.memory import inference_bytes, training_bytes
from hyenadna.shipped import card, shipped_folder, shipped_names


def models(name: str | None = None, /) -> None:
    """List the models: those of this package, and the published shapes.

    Parameters
    ----------
    name
        A model of this package: show its card.
    """
    console = make_console()
    if name is not None:
        console.print(Markdown((shipped_folder(name) / "README.md").read_text()))
        return
    _print_shipped(console)
    _print_shapes(console)


def _print_shipped(console: Console) -> None:
    table = Table(title="Models of this package", caption=(
        "Bits per base on sequences that were held out, in brackets the best Markov model up to "
        "order 12. They load by name, without a network; hyenadna models NAME shows the card."
    ))  # fmt: skip
    table.add_column("name", no_wrap=True)
    for column in ("parameters", "longest input", "trained on", "human", "yeast", "E. coli"):
        table.add_column(column, justify="right")
    for name in shipped_names():
        values = card(name)
        measured = {row["genome"]: row for row in values["genomes"]}
        table.add_row(
            name,
            f"{values['parameters']:,}",
            f"{values['max_seq_len']:,}",
            bases(values["tokens"]),
            *(
                f"{row['bits_per_base']:.3f} ({row['best_markov']:.3f})"
                for row in (measured[genome] for genome in ("human", "yeast", "ecoli"))
            ),
        )
    console.print(table)


def _print_shapes(console: Console) -> None:
    wide = console.width >= 112
    table = Table(title="Published shapes", caption=(
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
