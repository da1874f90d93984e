"""Soft prompts and few shots on a human, a yeast and a bacterial task, beside fine-tuning.

    python -m benchmarks.prompting --data /path/to/shared/data --model RUN --out DIR
    python -m benchmarks.prompting --data … --model RUN --out DIR --tiny     # a look

Runs `hyenadna prompt-tune` and `hyenadna fewshot` on each task, and times the shared prefix beside
its twin, which puts the tokens in front of every row. What is done is kept in DIR, and not done
again. Writes docs/benchmarks/prompting.md with pictures.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.measurements import this_host
from benchmarks.processes import ROOT, environment, run_worker
from benchmarks.prompting.page import write_page
from benchmarks.prompting.plan import FULL, TASKS, TINY, Plan, Task

WORKER = "benchmarks.prompting.worker"


def main() -> None:
    """Run what is not done yet, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the shared data")
    parser.add_argument("--model", type=Path, required=True, help="run of hyenadna pretrain")
    parser.add_argument("--out", type=Path, required=True, help="folder for runs and results")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs" / "benchmarks")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="prompts, shots or costs; all when left out")
    parser.add_argument("--tasks", default=",".join(task.name for task in TASKS))
    parser.add_argument("--tiny", action="store_true", help="a look")
    parser.add_argument("--report", action="store_true", help="write the page of what is there")
    parser.add_argument("--note", default="", help="a sentence for the page: what else ran, say")
    options = parser.parse_args()
    plan = TINY if options.tiny else FULL
    out = options.out.resolve() / ("tiny" if options.tiny else "full")
    out.mkdir(parents=True, exist_ok=True)
    tasks = [task for task in TASKS if task.name in options.tasks.split(",")]
    if not options.report:
        for part, run in (("prompts", prompts), ("shots", shots)):
            for task in tasks:
                if options.only in ("", part):
                    run(task, plan, options, out)
        if options.only in ("", "costs"):
            costs(plan, options, out)
    write_page(out, options.docs, model=options.model, host=this_host(options.threads),
               note=options.note, plan=plan)  # fmt: skip


def prompts(task: Task, plan: Plan, options: argparse.Namespace, out: Path) -> None:
    """The prompt-tuning runs of a task: read by a head, and in label words."""
    common = ["--epochs", str(plan.epochs), "--patience", str(plan.patience)]
    words = ["--tokens", plan.tokens or task.tokens, "--compare", "linear,lora,full,kmer,majority"]
    command("prompt-tune", task, [*words, *common], options, out / task.name / "head")
    words = ["--tokens", plan.word_tokens or task.word_tokens, "--readout", "label", "--lr", "0.03"]
    words += ["--compare", "majority"]
    command("prompt-tune", task, [*words, *common], options, out / task.name / "label")


def shots(task: Task, plan: Plan, options: argparse.Namespace, out: Path) -> None:
    """The few-shot run of a task."""
    words = [
        "--shots", plan.shots or task.shots, "--tuning-samples", plan.tuning_samples, "--draws",
        str(plan.draws), "--limit", str(plan.limit), "--compare", "linear,full,kmer",
        "--compare-epochs", "5",
    ]  # fmt: skip
    command("fewshot", task, words, options, out / task.name / "fewshot")


def command(
    verb: str, task: Task, words: list[str], options: argparse.Namespace, place: Path
) -> None:
    """Run a command, or go on with it; its words are kept for the page."""
    if (place / "metrics.json").exists():
        return
    table = options.data.resolve() / task.table
    start = [verb, str(options.model.resolve()), str(table), *task.split, "--drop-leaks", *words]
    begun = any(place.glob("*.json"))
    given = [verb, "--resume"] if begun else start
    full = [*given, "--out", str(place), "--threads", str(options.threads)]
    print("$ hyenadna", " ".join(full), flush=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    shown = [verb, "MODEL", table.name, *task.split, "--drop-leaks", *words]
    (place.parent / f"{place.name}.txt").write_text("hyenadna " + " ".join([*shown, "--out OUT"]))
    if place.exists() and not begun:
        shutil.rmtree(place)
    subprocess.run(
        [sys.executable, "-m", "hyenadna", *full], env=environment(options.threads), check=True
    )


def costs(plan: Plan, options: argparse.Namespace, out: Path) -> None:
    """The costs that are not measured yet, one process each."""
    path = out / "costs.json"
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for cost in plan.costs:
        key = json.dumps(asdict(cost))
        if key in kept:
            continue
        print(key, flush=True)
        job = {"model": str(options.model.resolve()), **asdict(cost)}
        kept[key] = run_worker(WORKER, job, options.threads, guessed=120)
        path.write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
