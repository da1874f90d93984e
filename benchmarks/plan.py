"""A plan beside the real thing: memory and time of training steps and passes on this machine.

    python -m benchmarks.plan [TITLE-PART ...]

Each cell runs in fresh processes, one thread each: three steps as `pretrain` makes them (forward,
backward, clipping, AdamW), or three passes for the loss. Measured are the peak memory beside the
interpreter with torch loaded, of the largest rank, and the median processor seconds of a step after
the first. Beside them stands what `hyenadna plan` says, its probe made in the same process right
after. Times of several ranks are not compared: there are fewer cores than ranks. Measurements are
kept in benchmarks/results; writes docs/benchmarks/plan.md of the newest.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.measurements import append_row, newest_rows
from benchmarks.processes import ROOT, resident_bytes, run_worker

from hyenadna.config import Mixer, ModelConfig
from hyenadna.model.planning.parts import memory
from hyenadna.model.planning.setup import Setup, Task

PAGE: Final = ROOT / "docs" / "benchmarks" / "plan.md"
RESULTS: Final = ROOT / "benchmarks" / "results" / "plan.jsonl"
STEPS: Final = 3


@dataclass(frozen=True)
class Cell:
    """One setup that is measured."""

    title: str
    length: int
    batch: int
    width: int = 128
    layers: int = 2
    order: int = 2
    mixer: Mixer = "hyena"
    task: Task = "train"
    precision: str = "float32"
    plain: bool = False
    checkpointing: bool = False
    ranks: int = 1
    context: int = 1
    fsdp: bool = False

    def setup(self) -> Setup:
        """The same for a plan."""
        config = ModelConfig(
            d_model=self.width, n_layer=self.layers, max_seq_len=self.length,
            hyena_order=self.order, mixer=self.mixer, embed_dropout=0.1,
        )  # fmt: skip
        return Setup(
            config=config, length=self.length, batch=self.batch, task=self.task,
            precision=self.precision, plain=self.plain, checkpointing=self.checkpointing,
            ranks=self.ranks, context=self.context, fsdp=self.fsdp, gpu=False,
        )  # fmt: skip

    def guessed(self) -> float:
        """Seconds that it should take, roughly."""
        each = self.setup().config.num_parameters() * self.batch * self.length * 4e-10
        return 60 + STEPS * 3 * each


CELLS: Final = (
    Cell("engine", 1024, 16),
    Cell("engine", 4096, 4),
    Cell("engine", 16384, 1),
    Cell("engine", 65536, 1),
    Cell("engine", 1024, 8, width=256),
    Cell("engine", 32768, 1, width=256, layers=4),
    Cell("engine", 1024, 16, task="infer"),
    Cell("engine", 65536, 1, task="infer"),
    Cell("engine", 32768, 1, width=256, layers=4, task="infer"),
    Cell("plain", 1024, 16, plain=True),
    Cell("plain", 16384, 1, plain=True),
    Cell("plain", 4096, 2, width=256, layers=4, plain=True),
    Cell("plain", 16384, 1, layers=4, plain=True, checkpointing=True),
    Cell("plain", 1024, 16, plain=True, checkpointing=True),
    Cell("plain", 65536, 1, width=64, plain=True, checkpointing=True),
    Cell("plain", 1024, 16, plain=True, task="infer"),
    Cell("plain", 16384, 1, plain=True, task="infer"),
    Cell("order 3", 8192, 2, order=3),
    Cell("order 3", 16384, 1, order=3, checkpointing=True),
    Cell("order 3", 16384, 1, order=3, task="infer"),
    Cell("Transformer", 1024, 8, mixer="attention"),
    Cell("Transformer", 4096, 2, mixer="attention"),
    Cell("Transformer", 4096, 2, mixer="attention", checkpointing=True),
    Cell("Transformer", 2048, 4, mixer="attention", task="infer"),
    Cell("DDP", 4096, 4, ranks=2),
    Cell("FSDP2", 4096, 4, ranks=2, fsdp=True),
    Cell("context", 65536, 1, width=64, ranks=2, context=2),
    Cell("context and FSDP2", 65536, 1, width=64, ranks=2, context=2, fsdp=True),
)  # fmt: skip
LATER: Final = (
    Cell("engine", 8192, 2, width=256),
    Cell("plain", 2048, 4, width=64, layers=3, plain=True),
    Cell("order 3", 1024, 8, order=3, task="infer"),
    Cell("Transformer", 512, 8, width=256, mixer="attention"),
    Cell("context", 32768, 1, ranks=2, context=2),
)
"""Measured after all constants of the plan had been set; they had no part in them."""


def main() -> None:
    """Measure all cells, print and write the page."""
    if len(sys.argv) > 1 and sys.argv[1].startswith("{"):
        print("RESULT " + json.dumps(measured(Cell(**json.loads(sys.argv[1])))))
        return
    for cell in CELLS + LATER:
        if sys.argv[1:] and not any(word in _name(cell) for word in sys.argv[1:]):
            continue
        found = run_worker("benchmarks.plan", asdict(cell), 1, cell.guessed())
        print(json.dumps({"name": _name(cell), **found}), flush=True)
        append_row({"cell": asdict(cell), **found}, RESULTS)
    write_page()


def write_page() -> None:
    """The page of the newest measurements."""
    newest = newest_rows(RESULTS, lambda row: Cell(**row["cell"]))
    found = [[newest[cell] for cell in cells if cell in newest] for cells in (CELLS, LATER)]
    PAGE.write_text(page(*found))


def measured(cell: Cell) -> dict[str, Any]:
    """Peak bytes beside the interpreter, and seconds of a step: measured and predicted."""
    from hyenadna.cli.process import prepare_process

    setup = cell.setup()
    prepare_process(spare_memory=setup.checkpointing or setup.context > 1)
    import torch

    if cell.ranks > 1:
        from benchmarks.ranks import on_ranks

        return {"peak": max(on_ranks(cell.ranks, _rank, cell))}
    assert torch.get_num_threads() == 1
    from hyenadna.model.planning.probe import probe, step_seconds

    before = resident_bytes("VmRSS")
    seconds = step_seconds(setup, repeats=STEPS - 1)
    peak = resident_bytes("VmHWM") - before
    from hyenadna.model.planning.forecast import forecast

    device, shares = probe(setup, 1e12)
    outlook = forecast(setup, device, shares)
    return {"peak": peak, "interpreter": before, "seconds": seconds,
            "predicted_seconds": outlook.time.total}  # fmt: skip


def _rank(rank: int, ranks: int, meeting: Path, cell: Cell) -> int:
    """The peak of one of several ranks, beside the interpreter: as `pretrain` under torchrun."""
    from hyenadna.cli.process import prepare_process

    setup = cell.setup()
    prepare_process(spare_memory=setup.context > 1 or cell.fsdp)
    import torch
    from benchmarks.ranks import joined

    from hyenadna.model.backbone import HyenaDNA
    from hyenadna.model.parallel.ranks import Ranks
    from hyenadna.model.parallel.sharded import draw_weights, empty_model
    from hyenadna.train.parallel import Parallel, Sharded

    before = resident_bytes("VmRSS")
    with joined(rank, ranks, meeting):
        sharded = None
        if cell.fsdp:
            sharded = Sharded(torch.device("cpu"), partial(draw_weights, rescaled=True))
        model = empty_model(setup.config) if cell.fsdp else HyenaDNA(setup.config)
        parallel = Parallel(model.train(), Ranks(rank, ranks, cell.context), sharded)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        rows = torch.randint(7, 11, (setup.rows_at_once, setup.length))
        for _ in range(STEPS):
            inputs, targets = parallel.part(rows, rows)
            parallel.backward(inputs, targets, lambda nats: nats / 1000, precision=None, last=True)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return resident_bytes("VmHWM") - before


def _name(cell: Cell) -> str:
    what = [cell.title, f"{cell.layers} x {cell.width}", cell.task]
    what += ["checkpointing"] * cell.checkpointing + [f"{cell.ranks} ranks"] * (cell.ranks > 1)
    return ", ".join(what)


def predicted(cell: Cell) -> float:
    """Bytes beside the interpreter."""
    found = memory(cell.setup())
    return found.total - found.process


def page(rows: list[dict[str, Any]], later: list[dict[str, Any]]) -> str:
    """The page's text."""
    import platform

    import torch

    lines = [
        "# A plan beside the real thing",
        "",
        f"Generated by `python -m benchmarks.plan` on {os.cpu_count()} cores of "
        f"{platform.machine()}, torch {torch.__version__}, one thread a process, while other work "
        "ran. Memory: peak of a process, of the largest rank, beside the interpreter with torch "
        "loaded. Time: processor seconds of a step or pass. The plan's few constants (pages of "
        "libraries, what the allocator keeps) were set by the first table, so that its errors of "
        "memory say how well one constant serves many shapes; the second was measured afterwards.",
    ]
    for title, part in (("Set by these", rows), ("Measured afterwards", later)):
        if part:
            lines += ["", f"## {title}", "", *_table(part)]
    return "\n".join(lines) + "\n"


def _table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| model | batch x bases | memory | plan | error | time | plan | error |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    errors: dict[str, list[tuple[float, str]]] = {"memory": [], "time": []}
    for row in rows:
        cell = Cell(**row["cell"])
        name, where = _name(cell), f"{cell.batch} x {cell.length:,}"
        if "error" in row:
            lines.append(f"| {name} | {where} | {row['error']} | | | | | |")
            continue
        wanted = predicted(cell)
        off = wanted / row["peak"] - 1
        errors["memory"].append((off, f"{name}, {where}"))
        cells = [f"{row['peak'] / 2**20:,.0f} MiB", f"{wanted / 2**20:,.0f} MiB", f"{off:+.0%}"]
        if "seconds" in row:
            late = row["predicted_seconds"] / row["seconds"] - 1
            errors["time"].append((late, f"{name}, {where}"))
            said = row["predicted_seconds"]
            cells += [f"{row['seconds']:.2f} s", f"{said:.2f} s", f"{late:+.0%}"]
        else:
            cells += ["", "", ""]
        lines.append(f"| {name} | {where} | " + " | ".join(cells) + " |")
    lines.append("")
    for what, found in errors.items():
        if found:
            worst, name = max(found, key=lambda item: abs(item[0]))
            lines.append(f"- Largest error of {what}: {worst:+.0%} ({name}).")
    return lines


if __name__ == "__main__":
    main()
