"""Sections of the page on speed. Each gives the lines of its body, none where nothing is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from benchmarks.gpu.jobs import MILLION, engine_of
from benchmarks.gpu.published import (
    FLASH_FFT_CONV,
    FLASH_PYTORCH,
    PAPER_RATIO,
    PAPER_TOKENS_PER_SECOND,
)
from benchmarks.gpu.roofline import Limits
from benchmarks.gpu.summary import (
    OURS,
    TWINS,
    Measured,
    least,
    limits_of,
    name_of,
    rates_of,
    size,
    together,
    work_of,
)
from benchmarks.long_context.cells import cells, duration, figure, gib, table_head

Lines = list[str]
TASKS: Final[Mapping[str, str]] = {
    "step": "training step",
    "infer": "loss, no gradients",
    "compile": "training step, no recomputing",
}


def limits(measured: Sequence[Measured]) -> Lines:
    """What the machine did at most beside its data sheet."""
    found = rates_of(measured)
    if not found:
        return []
    result, sheet = found
    lines = table_head(["", "measured", "data sheet"])
    for name, rate in result["products"].items():
        peak = sheet and (sheet.vector if name == "float32" else sheet.products)
        lines.append(cells([f"matrix products, {name}", tera(rate), tera(peak) if peak else ""]))
    bandwidth = f"{sheet.bandwidth / 1e12:.2f} TB/s" if sheet else ""
    lines.append(cells(["copy, bytes read and written", f"{result['copy'] / 1e12:.2f} TB/s",
                        bandwidth]))  # fmt: skip
    for n, rate in result["fft"].items():
        lines.append(cells([f"real FFTs of {int(n):,}", tera(rate), ""]))
    lines.append(cells(["between the starts of two kernels", micro(result["launch"]), ""]))
    return lines


def tera(rate: float) -> str:
    """Operations a second."""
    return f"{figure(rate / 1e12)} TFLOP/s"


def micro(seconds: float) -> str:
    """Microseconds."""
    return f"{figure(seconds * 1e6)} µs"


def training(measured: Sequence[Measured]) -> Lines:
    """A step against length, with both ratios."""
    table = together(measured, "training")
    if not table:
        return []
    names = [name for name in _names(table) if any(m.seconds(name) is not None for m in table)]
    lines = [
        "Forward and backward pass, batch 1, 2 layers of width 128, all contestants in bf16 and "
        "with recomputed blocks, no optimiser. In brackets: seconds as a multiple of those of the "
        "fastest of ours (bold). What ran out of memory, or was wrong, is below.", "",
        *table_head(["length", *(name_of(n) for n in names), "peak, fastest of ours"]),
    ]  # fmt: skip
    for each in table:
        best = each.best(OURS)
        row = [f"{each.job.length:,}", *(_against(each, name, best) for name in names)]
        lines.append(cells([*row, gib(each.rows[best[0]].get("peak")) if best else ""]))
    return [*lines, "", *_twins(table)]


def _names(table: Sequence[Measured]) -> list[str]:
    return list(dict.fromkeys(name for each in table for name in each.rows))


def _against(each: Measured, name: str, best: tuple[str, float] | None) -> str:
    seconds = each.seconds(name)
    if seconds is None:
        return ""
    if best is None:
        return duration(seconds)
    if name == best[0]:
        return f"**{duration(seconds)}**"
    return f"{duration(seconds)} ({figure(seconds / best[1])}×)"


def _twins(table: Sequence[Measured]) -> Lines:
    """What attention was the fastest, and how far the Transformer was measured."""
    lines = []
    for twin in TWINS:
        rows = [(m, n) for m in table for n in m.rows if engine_of(n) == twin]
        timed = [(m, n) for m, n in rows if m.seconds(n) is not None]
        if not timed:
            continue
        chosen = ", ".join(f"{m.rows[n].get('backend', '?')} at {m.job.length:,}" for m, n in timed)
        last, name = timed[-1]
        lines.append(f"- {name_of(name)}: the fastest attention was {chosen}.")
        if last.job.length < MILLION:
            why = [str(m.rows[n]["error"]) for m, n in rows if "error" in m.rows[n]][-1:]
            lines[-1] += f" {last.job.length:,} is the longest that was measured" + (
                f" ({why[0]})." if why else "."
            )
    lines.append(
        f"- The paper says {PAPER_RATIO} times as fast as a Transformer at 1M, on an A100 and "
        "beside the FlashAttention of 2022: another GPU and another attention, not to be compared "
        "with the ratios here."
    )
    return lines


def large(measured: Sequence[Measured]) -> Lines:
    """Tokens a second and peak memory of large-1m."""
    table = together(measured, "large")
    if not table:
        return []
    lines = table_head(["task", "", "time", "tokens a second", "peak", "share of the limit"])
    limits = limits_of(measured)
    for each in table:
        tokens = each.job.batch * each.job.length
        for name in each.rows:
            seconds = each.seconds(name)
            if seconds is not None:
                lines.append(cells([
                    f"{TASKS[each.job.task]}, {each.job.length:,}", name_of(name),
                    duration(seconds), f"{tokens / seconds:,.0f}", gib(each.rows[name].get("peak")),
                    share(each, name, seconds, limits),
                ]))  # fmt: skip
    return [
        *lines, "",
        f"Beside it stands about {PAPER_TOKENS_PER_SECOND:,.0f} tokens a second in training on one "
        "A100-80GB, a figure that is derived and not published: 2 T tokens in 4 weeks on up to 8 "
        "of them (arXiv 2306.15794). The step has AdamW; inference keeps the spectra of the "
        "filters from pass to pass.",
    ]  # fmt: skip


def share(each: Measured, name: str, seconds: float, limits: Limits | None) -> str:
    """The least time of a contestant as a share of the measured one, and what sets it."""
    found = least(each, name, limits)
    return f"{found.seconds / seconds:.0%} ({found.by})" if found else ""


def convolutions(measured: Sequence[Measured]) -> Lines:
    """Milliseconds for B 64 and H 768, measured in part and scaled, beside those published."""
    table = together(measured, "convolution")
    if not table:
        return []
    names = _names(table)
    heads = [{"plain": "plain torch"}.get(n, name_of(n)) for n in names]
    lines = table_head([
        "length", "measured of 768 channels", *heads, "FlashFFTConv, H100", "its PyTorch, H100",
        "FlashFFTConv over the best here", "share of the limit, best",
    ])  # fmt: skip
    limits = limits_of(measured)
    for each in table:
        job, best = each.job, each.best(("matrix", "fft", "plain"))
        times = [each.seconds(name) for name in names]
        scale = job.whole / job.channels
        lines.append(cells([
            f"{job.length:,}", f"{job.channels}",
            *(duration(None if t is None else t * scale) for t in times),
            duration(FLASH_FFT_CONV.get(job.length)), duration(FLASH_PYTORCH.get(job.length)),
            _over(FLASH_FFT_CONV.get(job.length), best[1] * scale if best else None),
            share(each, *best, limits) if best else "",
        ]))  # fmt: skip
    return [
        "Forward pass of the gated convolution, B 64, H 768, bf16 in and out. Where the second "
        "column has fewer than 768 channels the whole does not fit into memory: so many were "
        "measured with all 64 sequences, and the time is scaled by their number.", "", *lines, "",
        "The published figures are of another GPU, an H100, in the README of FlashFFTConv; it "
        "leaves open whether a length is that of the sequence or of its transform of twice the "
        "length. Here it is that of the sequence.",
    ]  # fmt: skip


def _over(theirs: float | None, ours: float | None) -> str:
    return "" if theirs is None or ours is None else f"{figure(theirs / ours)}×"


def roofline(measured: Sequence[Measured]) -> Lines:
    """Operations and bytes of each job, the least time, and the share reached by the fastest."""
    limits = limits_of(measured)
    shown = [
        m for part in ("training", "large", "convolution", "launches", "accuracy")
        for m in together(measured, part)
    ]  # fmt: skip
    lines: Lines = []
    for each in shown:
        best = each.best((*OURS, "matrix", "fft", "compiled"))
        if best is None:
            continue
        work, found, job = work_of(each, best[0]), least(each, best[0], limits), each.job
        if work is None or found is None:
            continue
        what = f"{job.part}, {job.task} {job.shape}".strip()
        lines.append(cells([
            f"{what}, {size(job)}", giga(work.products), giga(work.transforms),
            gib(int(work.traffic)), duration(found.seconds), found.by,
            f"{name_of(best[0])}, {duration(best[1])}", f"{found.seconds / best[1]:.0%}",
        ]))  # fmt: skip
    if not lines:
        return []
    head = table_head(["job", "products", "FFTs", "bytes", "least time", "set by", "fastest",
                       "share reached"])  # fmt: skip
    return [
        "The least that the fastest contestant must compute and move (`benchmarks/gpu/roofline.py`)"
        ", at the measured rates of bf16 products and of copies, and at the data sheet's rate of "
        "float32 for FFTs. FFTs of long signals pass through memory several times, which it does "
        "not count; the convolution as matrix products is counted with all its passes.",
        "", *head, *lines,
    ]  # fmt: skip


def giga(operations: float) -> str:
    """Operations."""
    return f"{figure(operations / 1e9)} G" if operations else ""


def kernels(measured: Sequence[Measured]) -> Lines:
    """Kernels of a training step by their share of it."""
    lines: Lines = []
    for each in together(measured, "profile"):
        for name, row in each.rows.items():
            if "kernels" not in row:
                continue
            total, launched = (sum(k[i] for k in row["kernels"]) for i in (1, 2))
            lines += [
                f"{each.job.shape}, {each.job.length:,}, {name_of(name)}: a step of "
                f"{duration(each.seconds(name))}, {launched:,} launches that take "
                f"{duration(total)} together.", "",
                *table_head(["kernel", "time", "share", "launches"]),
            ]  # fmt: skip
            for kernel, seconds, count in row["kernels"]:
                lines.append(cells([f"`{kernel}`", duration(seconds), f"{seconds / total:.0%}",
                                    f"{count:,}"]))  # fmt: skip
            lines.append("")
    return lines[:-1]


def launches(measured: Sequence[Measured]) -> Lines:
    """Short sequences with and without CUDA graphs and torch.compile."""
    table = together(measured, "launches")
    if not table:
        return []
    lines = table_head(["task", "tokens", "", "time", "tokens a second", "beside plain modules"])
    for each in table:
        plain = each.seconds("plain+bf16")
        for name in each.rows:
            seconds = each.seconds(name)
            if seconds is None:
                continue
            tokens = each.job.batch * each.job.length
            ratio = f"{figure(plain / seconds)}×" if plain else ""
            lines.append(cells([
                f"{TASKS[each.job.task]}, {each.job.shape}", size(each.job),
                name_of(name), duration(seconds), f"{tokens / seconds:,.0f}", ratio,
            ]))  # fmt: skip
    return [
        "A training step is forward and backward pass and AdamW, in bf16; as a CUDA graph all of "
        "it is one launch. Losses of five steps on changing tokens are those of the plain modules.",
        "", *lines,
    ]  # fmt: skip


def generation(measured: Sequence[Measured]) -> Lines:
    """Steps a second."""
    table = together(measured, "generation")
    if not table:
        return []
    lines = table_head(["model", "rows", "prompt", "prefill", "a step", "steps a second",
                        "bases a second"])  # fmt: skip
    for each in table:
        for name, row in each.rows.items():
            seconds, job = each.seconds(name), each.job
            if seconds is not None:
                step = seconds / job.steps
                lines.append(cells([
                    job.shape, f"{job.batch:,}", f"{job.length:,}", duration(row["prefill"]),
                    duration(step), f"{1 / step:,.0f}", f"{job.batch / step:,.0f}",
                ]))  # fmt: skip
    return lines
