"""The tables of docs/scale_study.md: pretraining at 1, 4 and 16 million bases on 8 to 1024 GPUs.

    python -m benchmarks.scale_study [--accuracy]

Writes each table between its marks in the page, from `hyenadna.model.planning`: arithmetic,
nothing is run on a GPU. With `--accuracy` also measures float32 FFTs and lags on this machine, some
minutes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks.long_context.cells import cells, table_head

from hyenadna.config import ModelConfig, preset
from hyenadna.model.planning.devices import DEVICES, Device
from hyenadna.model.planning.forecast import PAPER, Forecast, forecast
from hyenadna.model.planning.setup import Setup

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "scale_study.md"
MILLION: Final = 1 << 20
LENGTHS: Final = (MILLION, 4 * MILLION, 16 * MILLION)
GPUS: Final = (8, 32, 128, 256, 512, 1024)
STEP: Final = 128 * MILLION
"""Bases of a step at most: 128 sequences of a million, as the original's configuration."""
LARGE: Final = preset("large-1m")
WIDE: Final = preset("xlarge-1m")
"""1.3 billion parameters: `xlarge-1m`."""


def main() -> None:
    """Write the tables."""
    text = PAGE.read_text()
    for name, lines in tables():
        text = put(text, name, lines)
    if "--accuracy" in sys.argv:
        text = put(text, "accuracy", accuracy())
    PAGE.write_text(text)


def put(text: str, name: str, lines: Sequence[str]) -> str:
    """The text with the lines between the marks of a table."""
    marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    assert marks.search(text), name
    return marks.sub(lambda found: found[1] + "\n".join(["", *lines, "", ""]) + found[2], text)


def tables() -> Iterator[tuple[str, list[str]]]:
    """Every table that is arithmetic, by name."""
    for name, config in (("large", LARGE), ("wide", WIDE)):
        yield f"{name} memory", memory_table(config)
        yield f"{name} scaling", scaling_table(config)
        yield f"{name} exchanges", exchange_table(config)
    yield "parts", parts_table()
    yield "noise", noise_table()


def setup(config: ModelConfig, length: int, ranks: int, context: int, batch: int) -> Setup:
    """In bf16, with FSDP and checkpointing, one sequence at once."""
    return Setup(
        config=config.replace(max_seq_len=length + 2), length=length, batch=batch, at_once=1,
        ranks=ranks, context=context, fsdp=ranks > 1, precision="bf16", checkpointing=True,
    )  # fmt: skip


def least_context(config: ModelConfig, length: int, ranks: int, device: Device) -> int | None:
    """Ranks that a sequence must lie over to fit, a power of two; None where none does."""
    context = 1
    while context <= ranks and config.d_model % context == 0:
        if forecast(setup(config, length, ranks, context, ranks // context), device).fits:
            return context
        context *= 2
    return None


def best(config: ModelConfig, length: int, ranks: int, device: Device) -> Forecast | None:
    """The fastest way that fits with `STEP` bases a step at most."""
    found = []
    context = least_context(config, length, ranks, device)
    while context is not None and context <= ranks and config.d_model % context == 0:
        groups = ranks // context
        most = max(1, STEP // length)
        if groups <= most:
            rows = max(1, most // groups)
            found.append(forecast(setup(config, length, ranks, context, groups * rows), device))
        context *= 2
    fitting = [one for one in found if one.fits]
    return max(fitting, key=lambda one: one.tokens_per_second, default=None)


def memory_table(config: ModelConfig) -> list[str]:
    """GiB of a rank by length and context ranks."""
    ways = [n for n in (1, 2, 4, 8, 16, 32, 64, 128, 256) if config.d_model % n == 0]
    lines = table_head(["bases", *(f"{n} rank{'s' * (n > 1)}" for n in ways)])
    for length in LENGTHS:
        row = [f"{length:,}"]
        for context in ways:
            ranks = max(context, 8)
            found = forecast(
                setup(config, length, ranks, context, ranks // context), DEVICES["h100"]
            )
            size = found.memory.total / 2**30
            row.append(f"**{size:,.0f}**" if found.fits else f"{size:,.0f}")
        lines.append(cells(row))
    return lines


def scaling_table(config: ModelConfig) -> list[str]:
    """The fastest way by length and number of GPUs, H100 and H200."""
    lines = table_head([
        "bases", "GPUs", "over", "sequences a step", "GiB", "step, s", "bound by", "exchanges",
        "M bases/s", "of 8 GPUs' rate", "days for 2 T", "H200: M bases/s",
    ])  # fmt: skip
    for length in LENGTHS:
        first = None
        for ranks in GPUS:
            found = best(config, length, ranks, DEVICES["h100"])
            other = best(config, length, ranks, DEVICES["h200"])
            on_other = "-" if other is None else f"{other.tokens_per_second / 1e6:,.2f}"
            if found is None:
                lines.append(cells([f"{length:,}", str(ranks), *["-"] * 9, on_other]))
                continue
            rate = found.tokens_per_second / ranks
            first = rate if first is None else first
            lines.append(cells([
                f"{length:,}", str(ranks), str(found.setup.context), str(found.setup.batch),
                f"{found.memory.total / 2**30:.0f}", f"{found.time.total:.2f}", found.time.bound,
                f"{found.time.exchanges / found.time.total:.0%}",
                f"{found.tokens_per_second / 1e6:,.2f}", f"{rate / first:.0%}",
                f"{found.days(PAPER):,.1f}", on_other,
            ]))  # fmt: skip
    return lines


def exchange_table(config: ModelConfig) -> list[str]:
    """One sequence of a million: what goes inside a machine and across, and how long it takes."""
    lines = table_head([
        "over", "positions a rank", "channels a rank", "sent a rank, GB", "of it across", "calls",
        "exchanges, s", "all else, s", "exchanges' share",
    ])  # fmt: skip
    for context in (2, 4, 8, 16, 32, 64, 128, 256):
        if config.d_model % context:
            continue
        found = forecast(setup(config, MILLION, context, context, 1), DEVICES["h100"])
        sent, time = found.traffic, found.time
        across = max(0, context - 8) / (context - 1)
        lines.append(cells([
            str(context), f"{found.setup.here:,}", str(config.d_model // context),
            f"{(sent.exchanges + sent.halos) / 1e9:.2f}", f"{across:.0%}", f"{sent.meetings:,.0f}",
            f"{time.exchanges:.3f}", f"{time.total - time.exchanges:.3f}",
            f"{time.exchanges / time.total:.0%}",
        ]))  # fmt: skip
    return lines


def parts_table() -> list[str]:
    """Bytes, operations and network volume of a step on one sequence, by part."""
    lines = table_head([
        "model", "bases", "over", "weights and moments", "kept", "work space", "tables of lags",
        "products, T", "FFTs, T", "moved, TB", "exchanged, GB", "FSDP, GB",
    ])  # fmt: skip
    for name, config in (("large-1m", LARGE), ("1.3 B", WIDE)):
        for length, context in zip(LENGTHS, (8, 32, 128), strict=True):
            found = forecast(setup(config, length, context, context, 1), DEVICES["h100"])
            held, todo, sent = found.memory, found.work, found.traffic
            owned = held.weights + held.gradients + held.moments + held.exchanged
            lines.append(cells([
                name, f"{length:,}", str(context), *(f"{part / 2**30:.2f} GiB" for part in (
                    owned, held.kept, held.work, held.tables)),
                f"{todo.products / 1e12:,.1f}", f"{todo.transforms / 1e12:.2f}",
                f"{(todo.traffic + todo.transform_bytes) / 1e12:.2f}",
                f"{sent.exchanges / 1e9:.1f}", f"{(sent.gradients + sent.parameters) / 1e9:.2f}",
            ]))  # fmt: skip
    return lines


def noise_table() -> list[str]:
    """Steps that a budget leaves, by the size of a step."""
    lines = table_head(["bases of a step", "sequences of 1 M", "of 4 M", "of 16 M",
                        "steps for 2 T", "steps for one genome"])  # fmt: skip
    for sequences in (1, 8, 32, 128, 512, 1024):
        tokens = sequences * MILLION
        lines.append(cells([
            f"{tokens:,}", str(sequences), *(
                str(sequences // n) if sequences >= n else "-" for n in (4, 16)
            ), f"{PAPER / tokens:,.0f}", f"{3.1e9 / tokens:,.0f}",
        ]))  # fmt: skip
    return lines


def accuracy() -> list[str]:
    """Measured here: float32 convolutions against float64, and lags that float32 can tell apart."""
    import torch

    from hyenadna.conv.fft import fft_long_convolution
    from hyenadna.model.filter import lag_features

    torch.set_num_threads(1)
    lines = table_head(["bases", "error of a convolution, rms", "largest", "different lags t",
                        "different rows of features"])  # fmt: skip
    for length in (65536, *LENGTHS):
        generator = torch.Generator().manual_seed(0)
        u = torch.randn(1, 1, length, generator=generator, dtype=torch.float64)
        lag = torch.arange(length, dtype=torch.float64) / (length - 1)
        # a filter as the slowest channel's window leaves it, of noise
        k = torch.randn(1, length, generator=generator, dtype=torch.float64)
        k *= torch.exp(-3.07 * lag) + 0.05
        with torch.inference_mode():
            exact = fft_long_convolution(u, k)
            off = fft_long_convolution(u.float(), k.float()).double() - exact
        scale = exact.square().mean().sqrt()
        z, t = lag_features(length, 5, u.device, length)
        lags = int((t[0, 1:, 0] != t[0, :-1, 0]).sum()) + 1
        rows = int((z[0, 1:] != z[0, :-1]).any(1).sum()) + 1
        lag_features.cache_clear()
        lines.append(cells([
            f"{length:,}", f"{float(off.square().mean().sqrt() / scale):.1e}",
            f"{float(off.abs().max() / scale):.1e}", f"{lags / length:.0%}", f"{rows / length:.0%}",
        ]))  # fmt: skip
    return lines


if __name__ == "__main__":
    main()
