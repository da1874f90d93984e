"""Several ranks train as one does: DDP, FSDP2 and shared sequences, started by torchrun."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from hyenadna.alphabet import decode
from hyenadna.checkpoint.load import load
from hyenadna.cli.pretrain import _left_here
from hyenadna.errors import InputError
from hyenadna.model.parallel.ranks import Ranks
from hyenadna.train.run_folder import RunFolder

SHAPE = "--d-model 16 --n-layer 2 --max-seq-len 66 --embed-dropout 0 --threads 1 --device cpu"
# five rows of 16, two of 32, one of 64: they do not divide among ranks, or leave one without
BATCH = (
    "--tokens-per-step 80 --warmup-length 16 --warmup-share 0.6 --micro-batch-tokens 32 "
    "--evaluate-bases 500 --ema 0.9"
)


@pytest.fixture(scope="module")
def genome(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("genome") / "toy.fa"
    rng = np.random.default_rng(0)
    records = [f">c{i}\n{decode(rng.integers(7, 11, 6000))}\n" for i in range(3)]
    path.write_text("".join(records))
    return path


def command(ranks: int, *torchrun: str) -> list[str]:
    if ranks == 1:
        return [sys.executable, "-m", "hyenadna"]
    words = ["--nproc-per-node", str(ranks), *torchrun, "-m", "hyenadna"]
    return [sys.executable, "-m", "torch.distributed.run", *words]


def pretrain(ranks: int, genome: Path, out: Path, *words: str) -> subprocess.CompletedProcess:
    options = [*SHAPE.split(), *BATCH.split(), "--steps", "6", "--evaluate-every", "3", *words]
    return subprocess.run(
        [*command(ranks), "pretrain", str(genome), "--out", str(out), *options],
        capture_output=True, text=True,
    )  # fmt: skip


def log_of(out: Path) -> list[dict]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "by_genome")} for line in lines]


def assert_close_runs(one: Path, other: Path) -> None:
    first, second = log_of(one), log_of(other)
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a == pytest.approx(b, rel=1e-3)
        assert a.get("loss", 0) == pytest.approx(b.get("loss", 0), rel=1e-6)
    for name in ("last", "best"):
        weights, others = (load(run / name).state_dict() for run in (one, other))
        assert weights.keys() == others.keys()
        for key, value in weights.items():
            torch.testing.assert_close(value, others[key], rtol=1e-3, atol=1e-4, msg=key)


@pytest.fixture(scope="module")
def alone(genome, tmp_path_factory) -> Callable[[str], Path]:
    """The run of one rank with an optimiser."""

    @cache
    def run(optimizer: str) -> Path:
        out = tmp_path_factory.mktemp("alone") / "run"
        done = pretrain(1, genome, out, "--optimizer", optimizer)
        assert done.returncode == 0, done.stderr
        return out

    return run


@pytest.mark.parametrize(
    ("ranks", "words", "optimizer"),
    [
        (2, "", "adamw"),
        (2, "", "muon"),
        (2, "--fsdp", "adamw"),
        (2, "--fsdp", "muon"),
        (2, "--context-ranks 2", "adamw"),
        pytest.param(4, "--fsdp --context-ranks 2", "adamw", marks=pytest.mark.slow),
        pytest.param(4, "--context-ranks 2", "muon", marks=pytest.mark.slow),
    ],
)
def test_a_run_does_not_depend_on_the_number_of_ranks(
    ranks, words, optimizer, alone, genome, tmp_path
):
    out = tmp_path / "run"
    done = pretrain(ranks, genome, out, "--optimizer", optimizer, *words.split())
    assert done.returncode == 0, done.stderr
    assert_close_runs(out, alone(optimizer))
    assert f"{ranks} ranks" in done.stdout and done.stdout.count("done. Curve") == 1
    load(str(out))
    # and goes on with another number of ranks: here one, which finds nothing left to do
    again = subprocess.run(
        [*command(1), "pretrain", "--out", str(out), "--resume"], capture_output=True, text=True
    )
    assert again.returncode == 0 and "resuming after step 6" in again.stdout, again.stderr


def children(parent: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")
def test_a_killed_rank_comes_back(genome, tmp_path):
    """torchrun starts all ranks anew, and they go on from the last checkpoint."""
    words = [*SHAPE.split(), *BATCH.split(), "--steps", "150", "--save-every", "10"]
    runs = [tmp_path / "broken", tmp_path / "unbroken"]
    for out, restarts in zip(runs, (2, 0), strict=True):
        line = [*command(2, "--max-restarts", str(restarts)), "pretrain", str(genome)]
        with subprocess.Popen(
            [*line, "--out", str(out), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        ) as process:  # fmt: skip
            if restarts:
                log = out / "log.jsonl"
                while process.poll() is None and not (log.exists() and len(log_of(out)) > 25):
                    time.sleep(0.02)
                os.kill(children(process.pid)[1], signal.SIGKILL)
            said, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
            assert ("resuming after step" in said) == bool(restarts)
    assert_close_runs(*runs)


def test_ranks_share_items_in_step():
    shares = [list(Ranks(rank, 4, context=2).share("abc")) for rank in range(4)]
    assert shares[0] == shares[1] == [("a", True), ("c", True)]
    assert shares[2] == shares[3] == [("b", True), ("c", False)]
    assert list(Ranks().share("ab")) == [("a", True), ("b", True)]
    assert Ranks().total([1, 2], torch.device("cpu")) == [1, 2]


def test_a_restart_goes_on_with_its_own_run_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    out = tmp_path / "run"
    assert not _left_here(out)
    config = {"model": {}, "options": {}, "genomes": [], "device": "cpu", "threads": 1}
    RunFolder.create(out, config | {"init": None, "torchrun": "another"}, {})
    (out / "last").mkdir()
    before = (out / "run.json").read_text()
    assert not _left_here(out) and (out / "run.json").read_text() == before
    (out / "run.json").write_text(before.replace("another", "one"))
    assert _left_here(out)
    (out / "last").rmdir()  # it had not got to its first checkpoint: it begins once more
    assert not _left_here(out) and not (out / "run.json").exists()
    (out / "run.json").write_text('{"mine": 1}')
    with pytest.raises(InputError, match="damaged"):
        _left_here(out)
    assert (out / "run.json").exists()


def test_what_ranks_cannot_do_is_told(genome, tmp_path):
    with pytest.raises(InputError, match="it must divide"):
        Ranks(0, 4, context=3)
    for words in (["--fsdp"], ["--context-ranks", "2"]):
        done = pretrain(1, genome, tmp_path / "run", *words)
        assert done.returncode == 2 and not (tmp_path / "run").exists()
        assert len(done.stderr.strip().splitlines()) == 1
        assert "torchrun" in done.stderr or "must divide" in done.stderr
