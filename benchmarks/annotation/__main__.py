"""How well each base's class is told: coding frame of bacteria; exon, intron, intergenic of human.

    python -m benchmarks.annotation --out DIR --model RUN

Fits each model (and `random:tiny-1k`) on one strand and on both, beside a constant answer, a linear
model on the words around a base, and a hidden Markov model; keeps every result in DIR, so that the
same command goes on where it was stopped. Writes docs/benchmarks/annotation.md and its picture.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from benchmarks.pages import write_sections

from hyenadna.cli.process import prepare_process, set_threads
from hyenadna.training_config import FinetuneConfig

ROOT = Path(__file__).resolve().parents[2]


def main(words: list[str] | None = None) -> None:
    """Measure what is not measured yet, and write the page."""
    words = sys.argv[1:] if words is None else words
    options = parser().parse_args(words)
    prepare_process()
    set_threads(1)
    from benchmarks.annotation.cells import all_cells, measure
    from benchmarks.annotation.page import head, section
    from benchmarks.annotation.picture import frames_picture
    from benchmarks.annotation.tasks import TASKS, prepare

    config = FinetuneConfig(
        epochs=options.epochs, batch_size=options.batch_size, lr=options.lr, patience=None,
        reverse_complement=True,
    )  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    options.page.parent.mkdir(parents=True, exist_ok=True)
    cells = all_cells([*options.model, *options.random])
    sections, seconds = [], 0.0
    for task in (t for t in TASKS if t.name in options.task):
        data = prepare(
            task, options.data, options.out, tile=options.tile, windows=options.windows,
            seed=options.seed,
        )  # fmt: skip
        print(f"{task.name}: {len(data):,} windows", flush=True)
        measured = []
        for cell in cells:
            measured.append(measure(cell, data, config, options.out / task.name / cell.key))
            seconds += measured[-1].record["seconds"]
            mcc = measured[-1].record["metrics"]["mcc"]["value"]
            print(f"  {cell.title}: MCC {mcc:.3f}", flush=True)
        lines = section(task, data, measured)
        if task.name == "frames":
            picture = options.page.with_suffix(".frames.png")
            shown = [m for m in measured if m.cell.key != "majority"]
            where = frames_picture(data, shown, options.data, picture)
            lines += ["", f"A held-out stretch ({where}): genes as arrows, one colour for each "
                      "reading frame; below, the probability of each frame, the other strand "
                      "upside down.", "", f"![frames]({picture.name})"]  # fmt: skip
        sections.append(lines)
    command = " ".join(["python -m benchmarks.annotation", *map(shlex.quote, words)])
    write_sections(options.page, [head(command, options.tile, config, seconds), *sections])
    print(options.page)


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    found.add_argument("--out", type=Path, required=True, help="folder that keeps the results")
    found.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    found.add_argument("--model", action="append", default=[], help="run or folder; several times")
    found.add_argument(
        "--random", nargs="*", default=["random:tiny-1k"], help="shapes from random weights"
    )
    found.add_argument("--task", nargs="*", default=["frames", "genes"])
    found.add_argument("--windows", type=int, default=1600, help="of each task, about")
    found.add_argument("--tile", type=int, default=1000, help="bases of a window")
    found.add_argument("--epochs", type=int, default=6)
    found.add_argument("--batch-size", type=int, default=16)
    found.add_argument("--lr", type=float, default=1e-3)
    found.add_argument("--seed", type=int, default=0)
    found.add_argument("--page", type=Path, default=ROOT / "docs" / "benchmarks" / "annotation.md")
    return found


if __name__ == "__main__":
    main()
