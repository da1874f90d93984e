"""Pictures of training and evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hyenadna.errors import InputError

# names of classes and labels may hold dollar signs, which are no formulas
matplotlib.rcParams["text.parse_math"] = False

INK, BLUE, ORANGE, GREY = "#222222", "#2a6fdb", "#e07b1f", "#8a8f98"


def new_axes(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e8eb", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def in_legend(name: str) -> str:
    """The name as a label that a legend shows: matplotlib leaves out those that begin with `_`."""
    return f"\u200b{name}" if name.startswith("_") else name


def save_figure(figure: Figure, path: Path) -> None:
    """Write beside and rename, so that a picture is whole or absent."""
    beside = path.with_name(f".{path.name}.part{path.suffix}")
    try:
        figure.savefig(beside, dpi=150)
        beside.replace(path)
    except (OSError, ValueError) as error:
        beside.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot write the picture ({error})") from error
    finally:
        plt.close(figure)


def training_curve(entries: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Bits per base against bases seen, from the entries of a run's log.jsonl.

    Valid-split values are dots; dotted lines mark a change of sequence length. Writes nothing when
    the log holds no step.
    """
    steps = [e for e in entries if e.get("loss") is not None]  # a skipped step has none
    if not steps:
        return
    tokens = [e["tokens"] / 1e6 for e in steps]
    smooth = _running_mean([e["bits_per_base"] for e in steps], 0.97)
    figure, axes = new_axes("Training", "million bases seen", "bits per base")
    axes.plot(tokens, smooth, color=BLUE, linewidth=1.4, label="training (running mean)")
    seen = {e["step"]: e["tokens"] / 1e6 for e in steps}
    valid = [(seen[e["step"]], e["valid"]) for e in entries if "valid" in e and e["step"] in seen]
    if valid:
        axes.plot(*zip(*valid, strict=True), "o-", color=ORANGE, markersize=4, label="valid")
    for before, after in pairwise(steps):
        if before["length"] != after["length"]:
            axes.axvline(before["tokens"] / 1e6, color=GREY, linewidth=0.7, linestyle=":")
            axes.annotate(
                f"{after['length']:,}", (before["tokens"] / 1e6, 1), xytext=(3, -3), fontsize=7,
                xycoords=("data", "axes fraction"), textcoords="offset points", color=GREY,
                rotation=90, va="top",  # stages may be short
            )  # fmt: skip
    low = min([*smooth, *(v for _, v in valid)])
    axes.set_ylim(low - 0.03, min(max(smooth), max(2.02, low + 0.1)) + 0.02)
    axes.legend(frameon=False)
    save_figure(figure, path)


def _running_mean(values: Sequence[float], decay: float) -> list[float]:
    out: list[float] = []
    mean, weight = 0.0, 0.0
    for value in values:
        mean, weight = decay * mean + (1 - decay) * value, decay * weight + 1 - decay
        out.append(mean / weight)
    return out


def context_curve(
    contexts: Sequence[float],
    bits: Sequence[float],
    path: Path,
    *,
    title: str,
    markov: tuple[str, float] | None,
    bound: Sequence[float] | None = None,
) -> None:
    """Bits per base of a model against how many bases it has seen, beside a Markov model.

    `contexts`, `bits`: bin centres and values. `markov`: name and bits per base of the best one.
    `bound`: the exact entropy over the same bins, for a genome whose source is known.
    """
    figure, axes = new_axes(title, "bases of context", "bits per base")
    axes.set_xscale("log", base=2)
    axes.plot(contexts, bits, "o-", color=BLUE, markersize=4, label="this model", zorder=3)
    if markov:
        axes.axhline(
            markov[1], color=ORANGE, linewidth=1.4, label=f"best Markov model ({markov[0]})"
        )
    if bound is not None:
        axes.plot(contexts, bound, ".--", color=INK, linewidth=1, label="true bound")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    axes.legend(frameon=False)
    save_figure(figure, path)
