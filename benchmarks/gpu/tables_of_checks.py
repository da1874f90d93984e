"""Sections of the page on what is right: errors beside float64, tests, long training runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.gpu.accuracy import is_right
from benchmarks.gpu.jobs import precision_of
from benchmarks.gpu.summary import Measured, name_of, size, together
from benchmarks.gpu.tables import Lines
from benchmarks.long_context.cells import cells, duration, table_head


def suite(measured: Sequence[Measured]) -> Lines:
    """What pytest said, and the lines of what failed or was skipped."""
    lines: Lines = []
    for each in measured:
        if each.job.part == "suite":
            name = {"pytest": "`pytest -m gpu`", "kernels": "Tests of kernels"}[each.job.task]
            said = each.result.get("error") or each.result["last"]
            lines += [f"{name}: {said}.", ""]
            lines += [f"- `{line}`" for line in each.result.get("lines", [])]
            lines += [""] if each.result.get("lines") else []
    return lines[:-1]


def models(measured: Sequence[Measured]) -> Lines:
    """Errors of loss and gradients by engine and type."""
    table = together(measured, "accuracy", "model")
    if not table:
        return []
    lines = table_head(["model", "tokens", "kernels", "type", "loss", "gradients", ""])
    for each in table:
        job = each.job
        for name, row in each.rows.items():
            where = [job.shape, f"{job.batch} × {job.length:,}", name_of(name), precision_of(name)]
            if "error" in row:
                lines.append(cells([*where, "", "", row["error"]]))
            else:
                figures = [f"{row['loss_error']:.1e}", f"{row['gradient_error']:.1e}"]
                verdict = "" if is_right(row, precision_of(name)) else "**wrong**"
                lines.append(cells([*where, *figures, verdict]))
    return [
        "Relative error of the mean loss, and of all gradients together as a share of their norm, "
        "beside the plain modules in float64 on the same GPU.", "", *lines,
    ]  # fmt: skip


def convolutions(measured: Sequence[Measured]) -> Lines:
    """Errors of values and gradients of the gated convolution."""
    table = together(measured, "accuracy", "convolution")
    if not table:
        return []
    lines = table_head(["length", "method", "type", "values", "worst gradient", ""])
    for each in table:
        for name, row in each.rows.items():
            method = name.partition("+")[0]
            shown = "plain torch" if method == "plain" else name_of(method)
            where = [f"{each.job.length:,}", shown, precision_of(name)]
            if "error" in row:
                lines.append(cells([*where, "", "", row["error"]]))
                continue
            worst, off = max(row["gradient_errors"].items(), key=lambda item: item[1])
            lines.append(cells([*where, f"{row['value_error']:.1e}", f"{off:.1e} ({worst})", ""]))
    return [
        "The gated convolution `after * (k conv (before * v) + skip before v)`: error as a share "
        "of the norm, beside plain torch in float64 on the same rounded inputs.", "", *lines,
    ]  # fmt: skip


def stability(measured: Sequence[Measured]) -> Lines:
    """Losses that were not finite, steps that were left out, and where the runs came to."""
    table = together(measured, "stability")
    if not table:
        return []
    lines = table_head([
        "model", "type", "kernels", "steps", "losses not finite", "steps skipped",
        "bits at the end", "a step", "",
    ])  # fmt: skip
    for each in table:
        for name, row in each.rows.items():
            where = [f"{each.job.shape}, {each.job.length:,}", precision_of(name)]
            if "steps" not in row:
                lines.append(cells([*where, name_of(name), "", "", "", "", "",
                                    row.get("error", "")]))  # fmt: skip
                continue
            bits = row["final_bits"]
            lines.append(cells([
                *where, name_of(row["kernels"]), f"{row['steps']:,}", f"{row['not_finite']:,}",
                _skipped(row), "" if bits is None else f"{bits:.4f}", duration(each.seconds(name)),
                _ending(row),
            ]))  # fmt: skip
    return [
        "`hyenadna pretrain`'s own trainer on the generated genome of the demo, the defaults of "
        "`PretrainConfig`. In fp16 the first scales of the GradScaler are too large by design, "
        "and the steps that find that out are skipped.", "", *lines,
    ]  # fmt: skip


def _skipped(row: Mapping[str, Any]) -> str:
    count, steps = row["skipped_count"], row["skipped"]
    shown = ", ".join(map(str, steps[:8])) + (", …" if len(steps) > 8 else "")
    return f"{count:,}" + (f" (step {shown})" if steps else "")


def _ending(row: Mapping[str, Any]) -> str:
    if row["stopped"]:
        return str(row["stopped"])
    return "" if row["steps"] == row["wanted"] else f"ended early, of {row['wanted']:,}"


def failures(measured: Sequence[Measured]) -> Lines:
    """Everything that has no figure because something went wrong, with the reason."""
    rows = []
    for each in measured:
        if each.job.part == "suite":
            continue
        if "error" in each.result:
            rows.append((each.job.title(), str(each.result["error"])))
        if each.job.part in ("accuracy", "stability"):
            continue  # their tables say it
        for name, row in each.rows.items():
            if "error" in row:
                what = " ".join(filter(None, (each.job.task, each.job.shape, size(each.job))))
                rows.append((f"{each.job.part}, {what}: {name_of(name)}", row["error"]))
    if not rows:
        return []
    lines = ["## Without a figure", "", *table_head(["", "why"])]
    return [*lines, *(cells([what, why]) for what, why in rows)]
