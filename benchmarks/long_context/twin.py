"""The section of the page on growth with length, against the Transformer twin."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.long_context.cells import cells, duration, table_head
from benchmarks.long_context.jobs import NAMES
from benchmarks.long_context.summary import (
    LONG_FAMILY,
    MILLION,
    Row,
    crossover,
    exponent,
    extrapolate,
    series,
)

FIT_FROM = 16_384
"""Exponents are fitted over lengths from here on; the Transformer's over its last three."""


def growth(table: Sequence[Row]) -> list[str]:
    """Growth with length, crossover and extrapolation of the Transformer twin."""
    twin = series(table, "attention", **LONG_FAMILY)
    if len(twin) < 3:
        return []
    lines = ["## Growth with length, and the Transformer twin", ""]
    lines += ["Forward pass of 8 layers of width 256. Time grows as length to the power of:", ""]
    lines += table_head(["", "exponent", "fitted over"])
    for name in ("original", "torch", "native", "attention"):
        points = series(table, name, **LONG_FAMILY)
        fitted = points[-3:] if name == "attention" else [p for p in points if p[0] >= FIT_FROM]
        if len(fitted) >= 2:
            span = ", ".join(f"{n:,}" for n, _ in fitted)
            lines.append(cells([NAMES[name], f"{exponent(fitted):.2f}", span]))
    return [*lines, "", *_against_twin(table, twin)]


def _against_twin(table: Sequence[Row], twin: Sequence[tuple[int, float]]) -> list[str]:
    lines = []
    for name in ("native", "torch"):
        points = series(table, name, **LONG_FAMILY)
        ours = dict(points)
        shared = [n for n, _ in twin if n in ours]
        if not shared:
            continue
        last = shared[-1]
        meeting = crossover(twin, points)
        ratio = dict(twin)[last] / ours[last]
        where = (
            f"faster than the twin from about {meeting:,.0f} tokens on" if meeting
            else f"{'faster' if ratio > 1 else 'slower'} than the twin at every length measured"
        )  # fmt: skip
        text = f"- {NAMES[name]}: {where}; {ratio:.1f} times as fast at {last:,}"
        if MILLION in ours and last < MILLION:
            guess = extrapolate(twin[-3:], MILLION)
            text += (
                f". At {MILLION:,}, extrapolated and not measured: the twin would take "
                f"{guess / 3600:.1f} h, {guess / ours[MILLION]:,.0f} times our measured "
                f"{duration(ours[MILLION])}"
            )
        lines.append(text + ".")
    return lines
