"""docs/benchmarks/prompting.md: one section for each task, one for the costs."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

from benchmarks.measurements import processor_of
from benchmarks.pages import write_sections
from benchmarks.prompting.plan import MODEL, TASKS, Plan, Task

from hyenadna.cli.units import bases, duration, size


def write_page(
    out: Path, docs: Path, *, model: Path, host: dict[str, Any], note: str, plan: Plan
) -> None:
    """Write the page of what there is in `out`, with the pictures of the runs."""
    docs.mkdir(parents=True, exist_ok=True)
    sections = [_head(model, host, note)]
    for task in TASKS:
        place = out / task.name
        sections += [_prompts(task, place, docs), _shots(task, place, docs)]
    sections.append(_costs(out / "costs.json"))
    write_sections(docs / "prompting.md", sections)


def _head(model: Path, host: dict[str, Any], note: str) -> list[str]:
    run = json.loads((model / "run.json").read_text()) if (model / "run.json").exists() else {}
    lines = [
        "# Soft prompts and few shots",
        "",
        "Written by `python -m benchmarks.prompting --data DATA --model RUN --out DIR`. Guides: "
        "[soft prompts](../prompts.md), [few shots](../fewshot.md). The model is frozen but where "
        "a row says otherwise; what is learned is chosen on valid rows, and test rows are met "
        "once. Near duplicates between the parts are left out (`--drop-leaks`), and rows without a "
        "published split are split by families of similar sequences. The constant answer names the "
        "largest class of the training rows; chance, in the pictures, is the share of the largest "
        "class of the rows measured.",
        "",
        f"{processor_of(host)}, {host['cores']} cores, torch {host['torch']}. {note}".strip(),
    ]
    if run:
        shape, options = run["model"], run["options"]
        entries = [json.loads(line) for line in (model / "log.jsonl").read_text().splitlines()]
        steps = [entry for entry in entries if "loss" in entry]
        valid = [entry for entry in entries if "valid" in entry]
        genomes = ", ".join(f"{g['name']} {bases(g['bases']['train'])}" for g in run["genomes"])
        lines += [
            "",
            f"Model: {shape['n_layer']} layers of width {shape['d_model']}, up to "
            f"{shape['max_seq_len']:,} tokens, made by `hyenadna pretrain` on {genomes}; "
            f"{bases(steps[-1]['tokens'])} read in {duration(sum(s['seconds'] for s in steps))}, "
            f"stages {options['stages']} then {options['length']:,}; valid "
            f"{valid[-1]['valid']:.4f} bits a base over all genomes.",
            "",
            "```sh",
            MODEL,
            "```",
        ]
    return lines


def _prompts(task: Task, place: Path, docs: Path) -> list[str]:
    path = place / "head" / "metrics.json"
    if not path.exists():
        return []
    found = json.loads(path.read_text())
    picture = f"prompting.{task.name}.tokens.png"
    shutil.copyfile(path.parent / "curve.png", docs / picture)
    counts = ", ".join(f"{split} {count:,}" for split, count in found["rows"].items())
    lines = [
        f"## Soft tokens: {task.title}",
        "",
        f"Rows: {counts}. Chosen on valid: {found['arms'][found['chosen']]['name']}, read by a "
        "head. In label words nothing but the vectors is learned.",
        "",
        "| | trained numbers | time | accuracy | 95 % | MCC | AUROC |",
        "|---|---|---|---|---|---|---|",
        *map(_arm, found["arms"].values()),
    ]
    other = place / "label" / "metrics.json"
    if other.exists():
        arms = json.loads(other.read_text())["arms"]
        lines += [_arm(arm, ", label words") for key, arm in arms.items() if key != "majority"]
    return [*lines, "", f"![accuracy against soft tokens]({picture})", "",
            *_command(place, "head"), "", *_command(place, "label")]  # fmt: skip


def _arm(arm: dict[str, Any], more: str = "") -> str:
    scores = arm["metrics"]
    accuracy = scores["accuracy"]
    trained = f"{arm['trained']:,}" if arm["trained"] else ""
    took = duration(arm["seconds"]) if arm["seconds"] else ""
    return (
        f"| {arm['name']}{more} | {trained} | {took} | "
        f"{_text(accuracy['value'])} | {_text(accuracy['low'])} to {_text(accuracy['high'])} | "
        f"{_text(scores['mcc']['value'])} | {_text(scores['auroc']['value'])} |"
    )


def _shots(task: Task, place: Path, docs: Path) -> list[str]:
    path = place / "fewshot" / "metrics.json"
    if not path.exists():
        return []
    found = json.loads(path.read_text())
    picture = f"prompting.{task.name}.shots.png"
    shutil.copyfile(path.parent / "curve.png", docs / picture)
    lines = [f"## Few shots: {task.title}", ""]
    lines += [line for text in found["verdict"] for line in (text, "")]
    lines += [
        f"{found['measured_rows']:,} rows measured, mean over draws.",
        "",
        "| tuned on | shots | accuracy | 95 % | as it is | exact letter | labels shuffled | "
        "other order | true less shuffled | tuning | shared prefix |",
        "|---" * 11 + "|",
        *map(_cell, found["cells"]),
    ]
    return [*lines, "", f"![accuracy against shots]({picture})", "",
            *_command(place, "fewshot")]  # fmt: skip


def _cell(cell: dict[str, Any]) -> str:
    accuracy, gap = cell["accuracy"], cell.get("less_shuffled")
    shown = [
        str(cell["tuned"] or ""),
        str(cell["shots"]),
        _text(accuracy["value"]),
        f"{_text(accuracy['low'])} to {_text(accuracy['high'])}",
        *(_text((cell.get(name) or {}).get("value"))
          for name in ("raw", "strict", "shuffled", "reordered")),
        f"{gap['value']:+.3f} ({gap['low']:+.3f} to {gap['high']:+.3f})" if gap else "",
        duration(cell["tuning_seconds"]) if cell["tuning_seconds"] else "",
        f"{cell['saving']:.1f}×" if cell.get("saving") and cell["shots"] else "",
    ]  # fmt: skip
    return "| " + " | ".join(shown) + " |"


def _command(place: Path, name: str) -> list[str]:
    path = place / f"{name}.txt"
    return ["```sh", path.read_text(), "```"] if path.exists() else []


def _text(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"


def _costs(path: Path) -> list[str]:
    if not path.exists():
        return []
    lines = [
        "## What the shared prefix saves",
        "",
        "A step: forward and backward pass of rows behind soft tokens, the model frozen. Predict: "
        "a forward pass behind tokens that were read before. Twin: the tokens in front of every "
        "row, the same modules, taking turns in one process; least of up to five. Memory: peak of "
        "the process in a step of the shared way. Gap: between the gradients, relative.",
        "",
        "| soft tokens | rows x length | step | twin | | predict | twin | | memory | gap |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for key, found in json.loads(path.read_text()).items():
        cost = json.loads(key)
        if "error" in found:
            lines.append(f"| {cost['tokens']:,} | {cost['rows']} x {cost['length']} | "
                         f"{found['error']} |" + " |" * 7)  # fmt: skip
            continue
        cells = [f"{cost['tokens']:,}", f"{cost['rows']} x {cost['length']}"]
        for what in ("step", "predict"):
            shared, twin = found[what]["shared"], found[what].get("twin")
            cells.append(f"{1000 * shared:,.0f} ms")
            cells += [f"{1000 * twin:,.0f} ms", f"**{twin / shared:.1f}×**"] if twin else ["", ""]
        cells.append(size(found["peak"]) if not cost["twin"] else "")
        gap = found.get("gradient difference")
        cells.append(f"{gap:.0e}" if gap is not None else "")
        lines.append("| " + " | ".join(cells) + " |")
    return lines
