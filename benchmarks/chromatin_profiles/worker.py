"""One stage in a process of its own: `python -m benchmarks.chromatin_profiles.worker JOB THREADS`.

The last line of output is `RESULT` and JSON; `peak` in it is the most memory of the process, bytes.
"""

from __future__ import annotations

import csv
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

_WARM_UP, _REPEATS = 1, 5


def make_tables(job: dict[str, Any]) -> dict[str, Any]:
    """Write the coordinates with their labels, for each length its own rows."""
    from benchmarks.chromatin_profiles.synthetic import synthetic_marks, write_tables

    start = time.perf_counter()
    marks = synthetic_marks(Path(job["fasta"]), job["contig"], job["seed"])
    for folder, rows in job["folders"].items():
        write_tables(marks, job["number"], Path(folder), rows)
    share = marks.flags.mean(0)
    return {
        "windows": len(marks.start),
        "seconds": time.perf_counter() - start,
        "positive": {"mean": float(share.mean()), "low": float(share.min()),
                     "high": float(share.max())},
    }  # fmt: skip


def check_metrics(job: dict[str, Any]) -> dict[str, Any]:
    """The figures of a run beside scikit-learn's, from the predictions that the run has written."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    from hyenadna.data.benchmarks.chromatin import GROUPS, label_groups

    run = Path(job["run"])
    names, true, said = _read_predictions(run / "predictions.csv")
    groups = np.array(label_groups(names))
    summary = json.loads((run / "metrics.json").read_text())
    both = true.any(0) & ~true.all(0)
    ours = {name: value["value"] for name, value in summary["metrics"].items()}
    result: dict[str, Any] = {"rows": len(true), "labels": int(both.sum()), "ours": ours}
    apart, medians = [], {}
    for name, measure in (("auroc", roc_auc_score), ("auprc", average_precision_score)):
        each = np.full(len(names), np.nan)
        each[both] = [measure(true[:, i], said[:, i]) for i in np.flatnonzero(both)]
        medians[f"{name}_median"] = float(np.nanmedian(each))
        for group in GROUPS:
            medians[f"{name}_median_{group}"] = float(np.nanmedian(each[groups == group]))
        if name == "auroc":
            each_group = {g: _sorted(each[groups == g]) for g in GROUPS}
            result["auroc_of_labels"] = each_group
            apart.append(abs(ours["auroc"] - np.nanmean(each)))
    apart += [abs(ours[name] - value) for name, value in medians.items()]
    kmers = summary["baselines"].get("kmer")
    return result | {
        "scikit_learn": medians,
        "largest_difference": float(max(apart)),
        "left_out": int((~both).sum()),
        "kmer": None if kmers is None else {n: v["value"] for n, v in kmers["metrics"].items()},
    }


def _sorted(values: Any) -> list[float]:
    return [round(value, 5) for value in np.sort(values[~np.isnan(values)]).tolist()]


def _read_predictions(path: Path) -> tuple[tuple[str, ...], Any, Any]:
    """Names, targets (n, T) and probabilities (n, T) as float32, as they were written."""
    with path.open(newline="") as file:
        rows = csv.reader(file)
        header = next(rows)
        width = (len(header) - 1) // 2
        names = tuple(name.removeprefix("target_") for name in header[1 : width + 1])
        table = np.array([np.array(row[1:], dtype=np.float32) for row in rows])
    return names, table[:, :width] == 1, table[:, width:]


def profile(job: dict[str, Any]) -> dict[str, Any]:
    """Seconds per window of each part of a training step, of prediction, and of the metrics."""
    import torch

    from hyenadna.checkpoint.task import load_task
    from hyenadna.data.benchmarks import chromatin
    from hyenadna.data.labelled_batches import make_batch
    from hyenadna.infer.predict import predict
    from hyenadna.model.losses import loss_parts
    from hyenadna.train.finetune_setup import make_optimizer
    from hyenadna.train.metrics import metrics
    from hyenadna.training_config import FinetuneConfig

    data = chromatin.load(job["task"], job["data"], genome=job["fasta"])
    test = data.part("test")
    model = load_task(Path(job["run"]) / "best")
    config = FinetuneConfig()
    rows = max(1, config.micro_batch_tokens // int(data.lengths[0]))
    index = np.flatnonzero(data.splits == "train")[:rows]
    seconds: dict[str, float] = {}

    def timed(name: str, call: Callable[[], Any], per: int) -> Any:
        for _ in range(_WARM_UP):
            found = call()
        start = time.perf_counter()
        for _ in range(_REPEATS):
            found = call()
        seconds[name] = (time.perf_counter() - start) / _REPEATS / per
        return found

    batch = timed("reading windows", lambda: make_batch(data, index), len(index))
    model.train()
    optimizer = make_optimizer(model, config)
    features = model.features(batch.tokens, batch.lengths)
    towards = torch.randn_like(features)

    def backbone() -> None:
        model.features(batch.tokens, batch.lengths).backward(towards)

    def head() -> None:
        kept = features.detach().requires_grad_()
        total, count = loss_parts(model.task.kind, model.logits(kept), batch.targets)
        (total / count).backward()

    timed("backbone", backbone, len(index))
    timed("head and loss", head, len(index))
    timed("optimiser", optimizer.step, config.batch_size)
    model.eval()
    start = time.perf_counter()
    said = np.stack(list(predict(model, test.sequences)))
    predicting = (time.perf_counter() - start) / len(test)
    groups = chromatin.label_groups(data.task.names)
    start = time.perf_counter()
    metrics("labels", test.targets, said, label_groups=groups)
    measuring = (time.perf_counter() - start) / len(test)
    written = _read_predictions(Path(job["run"]) / "predictions.csv")[2]
    return {
        "training": seconds,
        "predicting": predicting,
        "measuring": measuring,
        "rows": len(index),
        "apart_from_the_run": float(abs(said - written).max()),
    }


def metrics_at_size(job: dict[str, Any]) -> dict[str, Any]:
    """Time and memory of the metrics of random predictions, and of scikit-learn's on the same."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    from hyenadna.data.benchmarks.chromatin import LABELS, label_groups
    from hyenadna.train.bootstrap import default_resamples, intervals
    from hyenadna.train.metrics import metrics, per_output

    n, random = job["rows"], np.random.default_rng(job["seed"])
    true = np.empty((n, LABELS), dtype=np.bool_)
    said = np.empty((n, LABELS), dtype=np.float32)
    for row in range(0, n, 4096):
        shape = (min(4096, n - row), LABELS)
        true[row : row + shape[0]] = random.random(shape, dtype=np.float32) < 0.02
        noise = random.random(shape, dtype=np.float32)
        # in steps of 1/4096, so that there are ties
        said[row : row + shape[0]] = np.round(4000 * (0.8 * noise + 0.2 * true[row : row + 4096]))
    said /= 4096
    groups = label_groups([f"y_{i}" for i in range(LABELS)])
    result: dict[str, Any] = {"arrays": _peak()}
    start = time.perf_counter()
    found = metrics("labels", true, said, label_groups=groups)
    result |= {"seconds": time.perf_counter() - start, "metrics_peak": _peak()}
    if job["scikit_learn"]:
        names = [str(i) for i in range(LABELS)]
        rows = per_output("labels", true, said, names)
        start = time.perf_counter()
        theirs = [
            (roc_auc_score(true[:, i], said[:, i]), average_precision_score(true[:, i], said[:, i]))
            for i in range(LABELS)
        ]
        result["scikit_learn_seconds"] = time.perf_counter() - start
        ours = np.array([(row["auroc"], row["auprc"]) for row in rows])
        median = np.median(np.array(theirs)[:, 0])
        apart = max(float(abs(ours - theirs).max()), abs(found["auroc_median"] - median))
        result["largest_difference"] = apart
    start = time.perf_counter()
    intervals("labels", true, said, label_groups=groups)
    seconds = time.perf_counter() - start - result["seconds"]
    return result | {"interval_seconds": seconds, "resamples": default_resamples(n, LABELS)}


def read_tables(job: dict[str, Any]) -> dict[str, Any]:
    """Time and memory of reading many rows: of coordinates, or of a matrix in HDF5."""
    from hyenadna.data.benchmarks import chromatin

    folder, n = Path(job["folder"]), job["rows"]
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(job["seed"])
    path = _write_hdf5(folder, n, random) if job["hdf5"] else _write_csv(folder, n, random, job)
    before = _resident()
    start = time.perf_counter()
    if job["hdf5"]:
        ids, targets = chromatin.read_matrix(path)
        kept, size = len(ids), ids.nbytes + targets.nbytes
    else:
        data = chromatin.load("1k", folder, genome=job["fasta"])
        kept, size = len(data), int(np.asarray(data.targets).nbytes)
    seconds = time.perf_counter() - start
    result = {"kept": kept, "seconds": seconds, "file": path.stat().st_size, "arrays": size}
    path.unlink()
    return result | {"grown": _peak() - before, "held": _resident() - before}


def _write_csv(folder: Path, n: int, random: Any, job: dict[str, Any]) -> Path:
    from hyenadna.data.benchmarks.chromatin import LABELS

    path = folder / "train_hg19_coords_targets.csv"
    with path.open("wb") as file:
        names = ",".join(f"y_{i}" for i in range(LABELS))
        file.write(f"Chr_No,Start,End,{names}\n".encode())
        text = np.full((1, 2 * LABELS), ord(","), dtype=np.uint8)
        text[:, -1] = ord("\n")
        for _ in range(n):
            text[0, ::2] = ord("0") + (random.random(LABELS) < 0.02)
            first = int(random.integers(*job["between"]))
            file.write(f"{job['number']},{first},{first + 1000},".encode() + text.tobytes())
    return path


def _write_hdf5(folder: Path, n: int, random: Any) -> Path:
    import h5py

    from hyenadna.data.benchmarks.chromatin import LABELS, WINDOW

    path = folder / "train.mat"
    at_once = 2000
    with h5py.File(path, "w") as file:
        shape = (WINDOW, 4, n)
        x = file.create_dataset("trainxdata", shape, "u1", chunks=(WINDOW, 4, at_once))
        y = file.create_dataset("traindata", (LABELS, n), "u1", chunks=(LABELS, at_once))
        for row in range(0, n, at_once):
            rows = min(at_once, n - row)
            bases = random.integers(0, 4, (rows, WINDOW))
            x[:, :, row : row + rows] = np.eye(4, dtype=np.uint8)[bases].transpose(1, 2, 0)
            y[:, row : row + rows] = random.random((LABELS, rows)) < 0.02
    return path


STAGES: Final[dict[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    stage.__name__: stage
    for stage in (make_tables, check_metrics, profile, metrics_at_size, read_tables)
}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _resident() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * resource.getpagesize()


def main() -> None:
    """Run the stage of the job."""
    job, threads = json.loads(sys.argv[1]), int(sys.argv[2])
    if job["stage"] == "profile":
        from hyenadna.cli.process import prepare_process

        prepare_process()  # as the command does
        import torch

        torch.set_num_threads(threads)
    result = STAGES[job["stage"]](job)
    print("RESULT " + json.dumps({"peak": _peak()} | result))


if __name__ == "__main__":
    main()
