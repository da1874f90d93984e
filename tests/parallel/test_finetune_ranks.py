"""Fine-tuning and evaluation on two ranks equal those on one."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.parallel.ranks import on_ranks

from hyenadna.alphabet import IGNORED, A, C, G, T, decode
from hyenadna.checkpoint.save import save
from hyenadna.cli.app import run
from hyenadna.config import ModelConfig
from hyenadna.data.labelled_data import LabelledData, Task
from hyenadna.data.windows import Regions
from hyenadna.genome.fasta import Genome
from hyenadna.genome.intervals import Interval
from hyenadna.infer.evaluate import evaluate
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.heads import TaskModel
from hyenadna.model.parallel.ranks import ALONE, Ranks
from hyenadna.train.finetune import finetune
from hyenadna.train.finetune_reports import FinetuneResult
from hyenadna.training_config import FinetuneConfig

SHAPE = ModelConfig(d_model=8, n_layer=1, max_seq_len=42, filter_order=8, embed_dropout=0)
SETTINGS = {
    "epochs": 3, "precision": "float32", "reverse_complement": True, "embed_dropout": 0.0,
}  # fmt: skip
# a step of three rows is a step of two and one; the last of a step of one has no row on rank 1
CASES = {
    "classes": FinetuneConfig(batch_size=3, ema=0.9, micro_batch_tokens=40),
    "values": FinetuneConfig(batch_size=1),
    "tokens": FinetuneConfig(batch_size=6),
    "labels": FinetuneConfig(mode="frozen", batch_size=5, lr=0.01, micro_batch_tokens=64),
}
STAGED = FinetuneConfig(batch_size=5, stages="9:1,14:1", class_weights="balanced")


def toy(kind: str, rows: int = 24) -> LabelledData:
    """Sequences rich or poor in A and T; some targets are missing, in places all of a step."""
    rng = np.random.default_rng(0)
    rich = np.arange(rows) % 2 == 0
    sequences = tuple(
        rng.choice(
            [A, T, C, G], p=[0.4, 0.4, 0.1, 0.1] if r else [0.1, 0.1, 0.4, 0.4], size=20
        ).astype(np.uint8)[: rng.integers(8, 21)]
        for r in rich
    )
    missing = rng.random(rows) < 0.2
    targets: object
    names = ("one", "two")
    if kind == "classes":
        targets = np.where(missing, IGNORED, rich).astype(np.int64)
    elif kind == "tokens":
        targets = tuple(
            np.where(rng.random(len(s)) < 0.1, IGNORED, (s == A) | (s == T)) for s in sequences
        )
    elif kind == "labels":
        targets = np.stack([rich, ~rich], 1).astype(np.float32)
        targets[missing, 0] = np.nan
    else:
        share = np.array([np.isin(s, (A, T)).mean() for s in sequences])
        targets = np.stack([share, 9 * share], 1).astype(np.float32)
        targets[missing, 1] = np.nan
    splits = np.resize(["train"] * 3 + ["valid"], rows)
    ids = tuple(f"r{i}" for i in range(rows))
    return LabelledData("toy", sequences, targets, Task(kind, names), splits, ids)  # type: ignore[arg-type]


def results(ranks: Ranks, folder: Path | None = None, sharded: bool = False) -> dict[str, tuple]:
    """Weights and valid figures of each case, trained in float64 for three epochs."""
    found = {}
    for name, config in (CASES | {"classes, staged": STAGED}).items():
        data = toy(name.partition(",")[0])
        torch.manual_seed(ranks.rank)  # the others begin as the first does
        model = TaskModel(HyenaDNA(SHAPE), data.task).double()
        config = FinetuneConfig.from_dict(config.to_dict() | SETTINGS)
        # what a rank's own memory allows must not matter
        config = replace(config, micro_batch_tokens=config.micro_batch_tokens * (1 + ranks.rank))
        own = None if folder is None else folder / name
        in_parts = sharded and config.mode == "full"
        *_, last = finetune(model, data, config, ranks=ranks, folder=own, sharded=in_parts)
        assert isinstance(last, FinetuneResult)
        assert (last.model is model) != in_parts
        history = [(r.loss, r.value, r.train_loss, dict(r.metrics)) for r in last.history]
        found[name] = last.model.state_dict(), history
    return found


def results_of_rank(rank: int, count: int, folder: Path, sharded: bool) -> dict[str, tuple]:
    return results(Ranks(rank, count), folder, sharded)


@pytest.fixture(scope="module")
def alone() -> dict[str, tuple]:
    return results(ALONE)


@pytest.mark.parametrize("sharded", [False, True])
def test_two_ranks_learn_as_one(tmp_path, alone, sharded):
    for got in on_ranks(2, results_of_rank, tmp_path, tmp_path, sharded):
        for kind, (weights, history) in alone.items():
            assert len(history) == len(got[kind][1]) == 3
            for mine, theirs in zip(history, got[kind][1], strict=True):
                assert mine[:3] == pytest.approx(theirs[:3], rel=1e-8, nan_ok=True), kind
                assert mine[3] == pytest.approx(theirs[3], rel=1e-6, nan_ok=True)
            for name, value in weights.items():
                torch.testing.assert_close(
                    value, got[kind][0][name], rtol=1e-6, atol=1e-9, msg=f"{kind}: {name}"
                )
    for kind in alone:  # one of them has written, once
        lines = (tmp_path / kind / "log.jsonl").read_text().splitlines()
        steps = [json.loads(line)["step"] for line in lines]
        assert steps == sorted(steps) and (tmp_path / kind / "best").is_dir()


def stop_after(left) -> bool:
    return not next(left)


def resumed(rank: int, count: int, folder: Path) -> tuple:
    """The case of classes in parts, stopped after seven steps, and gone on with."""
    data, made = toy("classes"), []
    config = FinetuneConfig.from_dict(CASES["classes"].to_dict() | SETTINGS)
    for resume in (False, True):
        torch.manual_seed(0)
        model = TaskModel(HyenaDNA(SHAPE), data.task).double()
        left = iter([True] * 99 if resume else [True] * 6 + [False])
        *_, last = finetune(
            model, data, config, ranks=Ranks(rank, count), folder=folder / "run", sharded=True,
            resume=resume, should_stop=partial(stop_after, left),
        )  # fmt: skip
        made.append(last)
    assert [each.stopped for each in made] == ["interrupted", "epochs"]
    assert made[0].step == 7
    history = [(r.loss, r.value, r.train_loss) for r in made[1].history]
    return made[1].model.state_dict(), history


def test_a_model_in_parts_goes_on(tmp_path, alone):
    weights, history = alone["classes"]
    for got in on_ranks(2, resumed, tmp_path, tmp_path):
        for mine, theirs in zip(history, got[1], strict=True):
            assert mine[:3] == pytest.approx(theirs, rel=1e-8, nan_ok=True)
        for name, value in weights.items():
            torch.testing.assert_close(value, got[0][name], rtol=1e-6, atol=1e-9, msg=name)


def test_parts_without_ranks_are_refused_before_anything_is_written(home, capsys):
    out = home / "out"
    words = ["finetune", str(home / "model"), str(home / "table.csv"), "--out", str(out)]
    for more, message in (([], "--fsdp needs several ranks"), (["--mode", "frozen"], "--fsdp")):
        assert run([*words, "--fsdp", *more]) == 2
        assert message in capsys.readouterr().err and not out.exists()


def evaluated(rank: int, count: int, folder: Path):
    """Figures of a genome in several batches; each rank would make others by itself."""
    torch.manual_seed(0)
    model = HyenaDNA(SHAPE).double()
    genome = Genome.open(folder / "genome.fa")
    regions = Regions("genome", (Interval("c", 0, 700),))
    return evaluate(
        model, genome, regions, length=20, batch_tokens=100 * (1 + rank), ranks=Ranks(rank, count)
    )


def test_two_ranks_evaluate_as_one(tmp_path, home):
    (tmp_path / "genome.fa").write_text((home / "genome.fa").read_text())
    alone = evaluated(0, 1, tmp_path)
    for got in on_ranks(2, evaluated, tmp_path, tmp_path):
        assert (got.bases, got.length) == (alone.bases, alone.length) == (699, 20)
        assert got.loss == pytest.approx(alone.loss, rel=1e-9)
        assert [b.bases for b in got.by_context] == [b.bases for b in alone.by_context]


def hyenadna(ranks: int, *words: object, told=None) -> str:
    """What the command prints: in this process for one rank, by torchrun for several."""
    arguments = [str(word) for word in words]
    if ranks == 1:
        code = run(arguments)
        out, errors = told.readouterr()
        assert code == 0, errors
        return str(out)
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks)]
    done = subprocess.run(
        [*start, "-m", "hyenadna", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def home(tmp_path) -> Path:
    """A folder with a model, a table and a genome."""
    torch.manual_seed(0)
    save(HyenaDNA(SHAPE), tmp_path / "model")
    rng = np.random.default_rng(0)
    with (tmp_path / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["sequence", "label", "split"])
        for i in range(60):
            part = ("train", "train", "train", "valid", "test")[i // 2 % 5]
            letters = rng.choice(list("ATCG"), p=[0.4, 0.4, 0.1, 0.1][:: 1 if i % 2 else -1])
            text = "".join(rng.choice(list("ATCG"), 30)) + str(letters) * 4
            table.writerow([text, "at" if i % 2 else "cg", part])
    (tmp_path / "genome.fa").write_text(f">c\n{decode(rng.integers(7, 11, 6000))}\n")
    return tmp_path


def test_commands_on_two_ranks(home, capsys):
    """`finetune` and `evaluate` give the figures of one process, told and written once."""
    common = ["--device", "cpu", "--threads", 1]
    options = [
        *common, "--epochs", 2, "--batch-size", 7, "--embed-dropout", 0, "--precision", "float32",
        "--baselines", "majority,random",
    ]  # fmt: skip
    figures = []
    for ranks in (1, 2):
        out = home / f"run{ranks}"
        words = ["finetune", home / "model", home / "table.csv", "--out", out]
        said = hyenadna(ranks, *words, *options, told=capsys)
        assert said.count("Report:") == 1 and ("on 2 ranks" in said) == (ranks == 2)
        with (out / "predictions.csv").open() as file:
            rows = [[float(v) for v in list(row.values())[-2:]] for row in csv.DictReader(file)]
        figures.append(rows)
        assert (out / "report.html").is_file()
    assert len(figures[0]) == 12
    np.testing.assert_allclose(figures[0], figures[1], rtol=1e-3, atol=1e-4)
    measured = []
    for ranks in (1, 2):
        out = home / f"evaluation{ranks}"
        words = ["evaluate", home / "model", home / "genome.fa", "--markov", 3, "--out", out]
        said = hyenadna(ranks, *words, *common, told=capsys)
        assert said.count("figures and pictures in") == 1
        measured.append(json.loads((out / "evaluation.json").read_text())["genomes"])
    one, two = (each[0] for each in measured)
    assert one["bases"] == two["bases"] and one["markov"] == two["markov"]
    assert one["loss"] == pytest.approx(two["loss"], rel=1e-6)
    assert one["by_context"] == [pytest.approx(each, rel=1e-5) for each in two["by_context"]]


def test_other_commands_refuse_ranks(home, monkeypatch, capsys):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    words = ["embed", str(home / "model"), str(home / "genome.fa"), "-o", str(home / "out.npz")]
    assert run(words) == 2
    assert "runs in one process, torchrun has started 2" in capsys.readouterr().err
    assert not (home / "out.npz").exists()
