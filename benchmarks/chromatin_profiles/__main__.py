"""Chromatin profiles at full width: 919 synthetic labels of real human windows, measured.

    python -m benchmarks.chromatin_profiles --data /path/to/shared/data --out DIR
    python -m benchmarks.chromatin_profiles --data … --out DIR --tiny     # a look, two minutes

Runs `hyenadna benchmark chromatin` with the smallest published shape at 1k and 8k, sets its figures
beside scikit-learn's on the predictions that it wrote, takes a training step apart, and times the
metrics and the reading of files at the size of DeepSEA. One thread, seeded. What is done is kept in
DIR, and not done again. Writes docs/benchmarks/chromatin.md and a picture.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.chromatin_profiles.page import write_page
from benchmarks.chromatin_profiles.plan import FULL, TINY, Length, Plan
from benchmarks.measurements import this_host
from benchmarks.processes import ROOT, environment, run_worker

GENOME: Final = "human_hg19_chr22_6Mb/chr22_1-22000000.fa.gz"
CONTIG, NUMBER, REAL = "22", 21, (16_100_000, 21_900_000)
SEED, THREADS = 0, 1


def main() -> None:
    """Measure what is not yet measured, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the shared data")
    parser.add_argument("--out", type=Path, required=True, help="folder for runs and results")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs" / "benchmarks")
    parser.add_argument("--tiny", action="store_true", help="a look of two minutes")
    parser.add_argument("--note", default="", help="a sentence for the page: what else ran, say")
    options = parser.parse_args()
    fasta = options.data.resolve() / GENOME
    if not fasta.is_file():
        parser.error(f"{fasta}: no such file")
    out = options.out.resolve() / ("tiny" if options.tiny else "full")
    out.mkdir(parents=True, exist_ok=True)
    results = measure(TINY if options.tiny else FULL, fasta, out)
    write_page(results, options.docs, tiny=options.tiny, note=options.note)


def measure(plan: Plan, fasta: Path, out: Path) -> dict[str, Any]:
    """All results by name; each is kept in `out` as soon as it is there."""
    kept = Results(out / "results.json")
    folders = {length.task: out / f"data-{length.task}" for length in plan.lengths}

    def work(name: str, stage: str, **job: Any) -> dict[str, Any]:
        job |= {"stage": stage, "seed": SEED}
        return kept.get(name, job, lambda: _stage(job))

    work(
        "tables", "make_tables", fasta=str(fasta), contig=CONTIG, number=NUMBER,
        folders={str(folders[length.task]): length.rows for length in plan.lengths},
    )  # fmt: skip
    for length in plan.lengths:
        task, folder = length.task, folders[length.task]
        command = _command(length, folder, fasta, out)
        run = kept.get(f"run {task}", {"command": command}, partial(_run, command, out))
        work(f"check {task}", "check_metrics", run=run["folder"])
        work(
            f"profile {task}", "profile", run=run["folder"], task=task, data=str(folder),
            fasta=str(fasta),
        )  # fmt: skip
    for rows in plan.metric_rows:
        first = rows == plan.metric_rows[0]
        work(f"metrics {rows}", "metrics_at_size", rows=rows, scikit_learn=first)
    reading = {"fasta": str(fasta), "number": NUMBER, "between": REAL, "folder": str(out / "read")}
    work("read csv", "read_tables", rows=plan.read_rows, hdf5=False, **reading)
    if importlib.util.find_spec("h5py"):
        work("read hdf5", "read_tables", rows=plan.hdf5_rows, hdf5=True, **reading)
    return kept.results


class Results:
    """Results by name, each with what it is the result of, in one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        self.results: dict[str, Any] = {}

    def get(self, name: str, asked: dict[str, Any], make: Callable[[], Any]) -> Any:
        """The result of what is asked, made now where it is not there."""
        asked = json.loads(json.dumps(asked | {"host": this_host(THREADS)}))
        entry = self._kept.get(name)
        if entry is None or entry["asked"] != asked:
            start = time.perf_counter()
            entry = {"asked": asked, "result": make()}
            entry["seconds"] = time.perf_counter() - start
            self._kept[name] = entry
            beside = self._path.with_name(f".{self._path.name}.part")
            beside.write_text(json.dumps(self._kept, indent=1) + "\n")
            beside.replace(self._path)
        print(f"{name}: {entry['seconds']:.0f} s", flush=True)
        self.results[name] = entry["result"]
        return entry["result"]


def _stage(job: dict[str, Any]) -> dict[str, Any]:
    result = run_worker("benchmarks.chromatin_profiles.worker", job, THREADS, 600)
    if "error" in result:
        raise SystemExit(f"{job['stage']}: {result['error']}")
    return result


def _command(length: Length, data: Path, fasta: Path, out: Path) -> list[str]:
    """`hyenadna benchmark chromatin` on rows of one length."""
    model = "random:tiny-1k" if length.task == "1k" else f"random:{_longer_shape(out)}"
    options = {
        "--data": data, "--genome": fasta, "--length": length.task, "--model": model,
        "--out": out / "runs", "--ledger": out / "ledger", "--epochs": length.epochs,
        "--baselines": "majority,kmer", "--threads": THREADS, "--batch-size": 64,
        "--lr": 2e-3,  # from random weights
    }  # fmt: skip
    words = [str(word) for pair in options.items() for word in pair]
    return [sys.executable, "-m", "hyenadna", "benchmark", "chromatin", *words]


def _longer_shape(out: Path) -> Path:
    """A folder with the shape of tiny-1k, but for 8,192 bases."""
    folder = out / "tiny-8k"
    if not folder.exists():
        from hyenadna.checkpoint.save import save
        from hyenadna.config import preset
        from hyenadna.model.backbone import HyenaDNA

        save(HyenaDNA(preset("tiny-1k").replace(max_seq_len=8194)).eval(), folder)
    return folder


def _run(command: list[str], out: Path) -> dict[str, Any]:
    """Time, memory and folder of a run of the suite."""
    start = time.perf_counter()
    with (out / "benchmark.log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(THREADS), stdout=log, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: stopped, see {log.name}")
    task = command[command.index("--length") + 1]
    # macOS counts in bytes, Linux in KiB
    unit = 1 if platform.system() == "Darwin" else 1024
    newest = max((out / "runs" / task).glob("*/metrics.json"), key=lambda p: p.stat().st_mtime)
    entries = [
        json.loads(line)
        for line in (newest.parent / "seed-0" / "log.jsonl").read_text().splitlines()
    ]
    steps = [entry for entry in entries if "sequences" in entry]
    summary = json.loads(newest.read_text())
    return {
        "folder": str(newest.parent),
        "seconds": time.perf_counter() - start,
        "peak": usage.ru_maxrss * unit,
        "windows": sum(step["sequences"] for step in steps),
        "training_seconds": sum(step["seconds"] for step in steps),
        "rows": summary["rows"],
        "kmer_seconds": summary["baselines"].get("kmer", {}).get("seconds"),
    }


if __name__ == "__main__":
    main()
