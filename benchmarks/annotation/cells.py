"""One predictor on one task: fitted, measured once, and kept, so that a stopped run goes on."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hyenadna.cli.finetune_measure import predict_rows
from hyenadna.cli.finetune_models import find_model
from hyenadna.cli.finetune_options import HeadOptions, Strands
from hyenadna.data.labelled import LabelledData
from hyenadna.train.baselines import fit_baseline
from hyenadna.train.bootstrap import intervals
from hyenadna.train.finetune import finetune
from hyenadna.train.finetune_reports import FinetuneEvaluation, FinetuneResult
from hyenadna.train.metrics import per_output
from hyenadna.training_config import FinetuneConfig

BASELINES = {"majority": "constant answer", "kmer": "words around a base, linear",
             "hmm": "hidden Markov model"}  # fmt: skip
SHOWN = ("f1_macro", "mcc", "auroc")
PASS_TOKENS = 32768
RESAMPLES = 200

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Cell:
    """A predictor: a baseline by its key, or a model read on one strand or on both."""

    key: str
    """Name of the folder."""
    title: str
    model: str = ""
    """As `hyenadna finetune` takes it; empty for a baseline."""
    strands: Strands = "forward"


@dataclass(frozen=True, eq=False)
class Measured:
    """What a cell came to."""

    cell: Cell
    record: dict[str, Any]
    outputs: Floats
    """Probabilities of the test part, (bases, C)."""


def all_cells(models: list[str]) -> list[Cell]:
    """The baselines, then each model on one strand and on both."""
    cells = [Cell(key, title) for key, title in BASELINES.items()]
    for i, name in enumerate(models):
        title = find_model(name).title
        for strands, what in (("forward", "one strand"), ("concatenate", "both strands")):
            key = f"{i}-{Path(name.replace(':', '-')).name}-{strands}"
            cells.append(Cell(key, f"{title}, {what}", name, strands))  # type: ignore[arg-type]
    return cells


def measure(cell: Cell, data: LabelledData, config: FinetuneConfig, folder: Path) -> Measured:
    """The cell's figures on the test part, computed or as they were kept in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    done, kept = folder / "record.json", folder / "outputs.npy"
    wanted = {"data": data.digest(), "model": cell.model, "strands": cell.strands}
    if cell.model:
        wanted["config"] = json.loads(json.dumps(config.to_dict()))
    if done.exists():
        record = json.loads(done.read_text())
        if {key: record.get(key) for key in wanted} == wanted:
            return Measured(cell, record, np.load(kept).astype(np.float32))
    start = time.monotonic()
    outputs, note = _fitted(cell, data, config)
    seconds = time.monotonic() - start
    record = {**wanted, "title": cell.title, "note": note, "seconds": seconds}
    record |= figures(data.part("test"), outputs)
    with (folder / ".part").open("wb") as file:
        np.save(file, outputs.astype(np.float16))
    (folder / ".part").replace(kept)
    beside = folder / ".record.part"
    beside.write_text(json.dumps(record, indent=2) + "\n")
    beside.replace(done)
    return Measured(cell, record, outputs)


def _fitted(cell: Cell, data: LabelledData, config: FinetuneConfig) -> tuple[Floats, str]:
    """(what it says of the test part, what was chosen on the valid part)."""
    test = data.part("test")
    if not cell.model:
        fitted = fit_baseline(cell.key, data, 0)  # type: ignore[arg-type]
        return fitted.predict(test.sequences), fitted.chosen
    return _trained(cell, data, test, config)


def _trained(
    cell: Cell, data: LabelledData, test: LabelledData, config: FinetuneConfig
) -> tuple[Floats, str]:
    import torch

    torch.manual_seed(0)
    source = find_model(cell.model)
    model = source.make_task(data.task, HeadOptions(strands=cell.strands))
    learning = data.select(data.splits != "test")
    note = ""
    for report in finetune(model, learning, config, seed=0):
        if isinstance(report, FinetuneEvaluation):
            print(f"    epoch {report.epoch}  loss {report.loss:.4f}", flush=True)
        elif isinstance(report, FinetuneResult) and report.best is not None:
            note = f"epoch {report.best.epoch} of {config.epochs}"
    return predict_rows(model, test, batch_tokens=PASS_TOKENS), note


def figures(test: LabelledData, outputs: Floats) -> dict[str, Any]:
    """Metrics with intervals over whole stretches, and F1 of each class."""
    assert isinstance(test.targets, tuple) and test.groups is not None
    targets = np.concatenate(test.targets)
    stretch = np.unique(np.array(test.groups), return_inverse=True)[1]
    found = intervals(
        "tokens", targets, outputs, clusters=np.repeat(stretch, test.lengths), resamples=RESAMPLES
    )
    each = per_output("tokens", targets, outputs, test.task.names)
    return {
        "metrics": {name: _plain(dataclasses.asdict(found[name])) for name in SHOWN},
        "f1": {str(row["name"]): row["f1"] for row in each},
        "auroc": _plain({str(row["name"]): float(row["auroc"]) for row in each}),
        "bases": {str(row["name"]): row["count"] for row in each},
    }


def _plain(values: dict[str, float]) -> dict[str, float | None]:
    return {k: None if v is None or math.isnan(v) else v for k, v in values.items()}
