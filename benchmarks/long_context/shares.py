"""The section of the page on the machine's limits and the share of them that each part reaches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.long_context.cells import cells, figure, table_head
from benchmarks.long_context.jobs import NAMES, Job
from benchmarks.long_context.limits import Work
from benchmarks.measurements import Record


def machine(records: Sequence[Record[Job]]) -> list[str]:
    """What the machine can do, and which share of it each part of a forward pass reaches."""
    found = next((r.result for r in records if r.job.task == "limits" and not r.failed), None)
    if not found:
        return []
    fft = {int(n): rate for n, rate in found["fft"].items()}
    lines = ["## The machine's limits", "", "Measured in the same run.", ""]
    lines += table_head(["limit", "rate", "by"])
    for kind in ("float32", "bfloat16"):
        best = found[kind]
        size = " × ".join(f"{n:,}" for n in best["size"])
        lines.append(cells([f"matrix products, {kind}", f"{best['rate'] / 1e9:,.0f} GF/s",
                             f"{best['by']}, {size}"]))  # fmt: skip
    rates = ", ".join(f"{rate / 1e9:.1f} at {n:,}" for n, rate in sorted(fft.items()))
    lines.append(cells(["torch's real FFTs, 2.5 n log2 n operations",
                         f"{max(fft.values()) / 1e9:.1f} GF/s", rates]))  # fmt: skip
    lines.append(cells(["copying", f"{found['copy'] / 1e9:.0f} GB/s", "read and written"]))
    for record in records:
        if record.job.task == "parts" and not record.failed:
            lines += ["", *_parts(record, found, max(fft.values()))]
            for name, profile in record.result["competitors"].items():
                if profile.get("kernels"):
                    lines += ["", *_kernels(record, name, profile["kernels"], found)]
    return lines


def _parts(record: Record[Job], limits: dict[str, Any], fft: float) -> list[str]:
    profiles: dict[str, Any] = record.result["competitors"]
    names = list(dict.fromkeys(part for p in profiles.values() for part in p["parts"]))
    job = record.job
    lines = [
        f"Forward pass of {job.shape} at {job.length:,} by torch's profiler. In brackets the share "
        "of the limit: of the matrix products' peak in their type; of torch's best FFT rate, "
        "always counting the original's three transforms of 2L samples for each channel; and for "
        "the whole, the time that products, FFTs and five passes over the residual stream in each "
        "block would need at these limits. More than 100 % means less work than that, as with a "
        "kept spectrum, or an FFT faster than torch's.",
        "",
        *table_head(["", *(NAMES[n] for n in profiles)]),
    ]
    lines.append(cells(["all, s", *(_whole(p, n, limits, fft) for n, p in profiles.items())]))
    for part in names:
        row = [_part(p, n, part, limits, fft) for n, p in profiles.items()]
        lines.append(cells([f"{part}, s", *row]))
    return lines


def _kernels(
    record: Record[Job], name: str, kernels: dict[str, Any], limits: dict[str, Any]
) -> list[str]:
    job, peak = record.job, _product_peak(name, limits)
    lines = [
        f"The kernels of {NAMES[name]} in a training step of {job.shape} at {job.length:,}, "
        "without the optimiser. Backward kernels compute the forward products again. "
        "Share: what the products alone would take at the peak, of the kernel's time.",
        "",
        *table_head(["kernel", "seconds", "products, GF", "FFT, GF", "both, GF/s", "share"]),
    ]
    for kernel, found in sorted(kernels.items(), key=lambda item: -item[1]["seconds"]):
        products, transforms, spent = found["products"], found["transforms"], found["seconds"]
        lines.append(cells([
            f"`{kernel}`", figure(spent), f"{products / 1e9:,.1f}", f"{transforms / 1e9:,.1f}",
            f"{(products + transforms) / spent / 1e9:,.0f}", f"{products / peak / spent:.0%}",
        ]))  # fmt: skip
    total = sum(found["seconds"] for found in kernels.values())
    products = sum(found["products"] for found in kernels.values())
    transforms = sum(found["transforms"] for found in kernels.values())
    lines.append(cells([
        "all", figure(total), f"{products / 1e9:,.1f}", f"{transforms / 1e9:,.1f}",
        f"{(products + transforms) / total / 1e9:,.0f}", f"{products / peak / total:.0%}",
    ]))  # fmt: skip
    return lines


def _whole(profile: dict[str, Any], name: str, limits: dict[str, Any], fft: float) -> str:
    work = Work(**profile["work"])
    need = work.products / _product_peak(name, limits)
    need += work.transforms / fft + work.traffic / limits["copy"]
    return f"{figure(profile['seconds'])} ({need / profile['seconds']:.0%})"


def _part(profile: dict[str, Any], name: str, part: str, limits: dict[str, Any], fft: float) -> str:
    seconds = profile["parts"].get(part)
    if not seconds:
        return ""
    work, share = Work(**profile["work"]), None
    if part == "matrix products" and name != "attention":
        share = work.products / seconds / _product_peak(name, limits)
    elif part == "FFT":
        share = work.transforms / seconds / fft
    return figure(seconds) + (f" ({share:.0%})" if share is not None else "")


def _product_peak(name: str, limits: dict[str, Any]) -> float:
    return float(limits["bfloat16" if name.endswith("bf16") else "float32"]["rate"])
