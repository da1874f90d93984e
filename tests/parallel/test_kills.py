"""Runs whose processes are killed at random moments come to the end of an unbroken one."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from hyenadna.alphabet import decode
from hyenadna.checkpoint.load import load

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc"),
]
STEPS, SAVE_EVERY = 240, 10
OPTIONS = (
    "--d-model 16 --n-layer 2 --max-seq-len 66 --embed-dropout 0 --threads 1 --device cpu "
    f"--tokens-per-step 330 --evaluate-bases 500 --steps {STEPS} --save-every {SAVE_EVERY} "
    "--evaluate-every 60"
)


@pytest.fixture(scope="module")
def genome(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("genome") / "toy.fa"
    rng = np.random.default_rng(0)
    path.write_text("".join(f">c{i}\n{decode(rng.integers(7, 11, 6000))}\n" for i in range(3)))
    return path


class Started:
    """torchrun with what it says."""

    def __init__(self, torchrun: list[str], words: list[str]) -> None:
        line = [sys.executable, "-m", "torch.distributed.run", *torchrun, "-m", "hyenadna", *words]
        self.process = subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.said.extend(self.process.stdout)

    @property
    def text(self) -> str:
        return "".join(self.said)

    def ranks(self) -> list[int]:
        """Process numbers of the ranks that it has started."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        try:
            return [int(number) for number in path.read_text().split()]
        except OSError:
            return []

    def kill_all(self) -> None:
        """As when the machine is gone."""
        ranks = self.ranks()
        for number in (self.process.pid, *ranks):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        self.process.wait()

    def finish(self) -> int:
        code = self.process.wait(timeout=600)
        self._reader.join(timeout=10)
        return code


@pytest.fixture(scope="module")
def unbroken(genome, tmp_path_factory) -> Path:
    """A run of two ranks that nothing happens to."""
    out = tmp_path_factory.mktemp("unbroken") / "run"
    words = ["pretrain", str(genome), "--out", str(out), *OPTIONS.split()]
    with torchrun(["--nproc-per-node", "2"], words) as started:
        assert started.finish() == 0, started.text
    return out


@contextmanager
def torchrun(options: list[str], words: list[str]) -> Iterator[Started]:
    started = Started(options, words)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.kill_all()


def steps_logged(out: Path) -> int:
    """The last step in the log."""
    try:
        lines = (out / "log.jsonl").read_text().splitlines()
    except OSError:
        return 0
    steps = [int(found[1]) for line in lines if (found := re.match(r'\{"step": (\d+)', line))]
    return max(steps, default=0)


def wait_for(true: Callable[[], bool], process: subprocess.Popen) -> bool:
    """Whether it became true before the process ended."""
    while process.poll() is None:
        if true():
            return True
        time.sleep(0.02)
    return true()


def anew(started: Started, before: list[int]) -> bool:
    """Whether all ranks are others than before."""
    ranks = started.ranks()
    return len(ranks) == len(before) and set(ranks).isdisjoint(before)


def resumed_at(text: str) -> list[int]:
    return [int(n.replace(",", "")) for n in re.findall(r"resuming after step ([\d,]+)", text)]


def assert_as_unbroken(out: Path, unbroken: Path, rel: float = 1e-6) -> None:
    """rel: of the losses; rounding grows over the steps where the number of ranks was another."""
    logs = []
    for run in (out, unbroken):
        entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        logs.append([(e["step"], e.get("loss", e.get("valid"))) for e in entries])
    assert [step for step, _ in logs[0]] == [step for step, _ in logs[1]]
    assert [x for _, x in logs[0]] == pytest.approx([x for _, x in logs[1]], rel=rel)
    mine, theirs = (load(str(run / "last")).state_dict() for run in (out, unbroken))
    for name, value in theirs.items():
        torch.testing.assert_close(mine[name], value, rtol=30 * rel, atol=30 * rel, msg=name)


@pytest.mark.parametrize("way", ["", "--fsdp"])
def test_ranks_killed_at_random_in_a_loop(genome, unbroken, tmp_path, way):
    """kill -9 of a random rank at random moments: no more than a checkpoint interval is lost."""
    out, kills = tmp_path / "run", 4
    rng = np.random.default_rng([1, len(way)])
    words = ["pretrain", str(genome), "--out", str(out), *OPTIONS.split(), *way.split()]
    moments = sorted(rng.choice(np.arange(15, STEPS - 10), kills, replace=False).tolist())
    reached = []
    with torchrun(["--nproc-per-node", "2", "--max-restarts", str(kills)], words) as started:
        for moment in moments:
            assert wait_for(lambda m=moment: steps_logged(out) >= m, started.process), started.text
            ranks = started.ranks()
            reached.append(steps_logged(out))
            os.kill(ranks[int(rng.integers(len(ranks)))], signal.SIGKILL)
            # until torchrun has started others
            wait_for(lambda old=ranks: anew(started, old), started.process)
        assert started.finish() == 0, started.text
    at = resumed_at(started.text)
    assert len(at) == kills, started.text
    for step, again in zip(reached, at, strict=True):
        assert step - SAVE_EVERY <= again <= step + SAVE_EVERY
    assert_as_unbroken(out, unbroken, rel=2e-3 if way else 1e-6)  # FSDP rounds otherwise than DDP


def test_the_machine_gone_and_another_number_of_ranks(genome, unbroken, tmp_path):
    """All processes killed at once, three times; each time others take over, 2, 1, 3 and 2."""
    out = tmp_path / "run"
    start = ["pretrain", str(genome), "--out", str(out), *OPTIONS.split()]
    for moment, ranks in zip((45, 100, 170, None), (2, 1, 3, 2), strict=True):
        words = start if moment == 45 else ["pretrain", "--out", str(out), "--resume"]
        before = steps_logged(out)
        with torchrun(["--nproc-per-node", str(ranks)], words) as started:
            if moment is None:
                assert started.finish() == 0, started.text
            else:
                assert wait_for(lambda m=moment: steps_logged(out) >= m, started.process)
                started.kill_all()
        assert moment == 45 or resumed_at(started.text)[0] >= before - SAVE_EVERY
    assert_as_unbroken(out, unbroken, rel=2e-3)


def test_torchrun_killed_alone_leaves_no_ranks(genome, unbroken, tmp_path):
    """Ranks whose torchrun is gone save and end; until then nobody else can write the run."""
    out = tmp_path / "run"
    words = ["pretrain", str(genome), "--out", str(out), *OPTIONS.split()]
    with torchrun(["--nproc-per-node", "2"], words) as started:
        assert wait_for(lambda: steps_logged(out) >= 35, started.process), started.text
        ranks, reached = started.ranks(), steps_logged(out)
        os.kill(started.process.pid, signal.SIGKILL)
        end = time.monotonic() + 60
        while any(Path(f"/proc/{rank}").exists() for rank in ranks) and time.monotonic() < end:
            time.sleep(0.05)
        assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)
    with torchrun(["--nproc-per-node", "2"], ["pretrain", "--out", str(out), "--resume"]) as again:
        assert again.finish() == 0, again.text
    assert resumed_at(again.text)[0] >= reached
    assert_as_unbroken(out, unbroken)


def test_a_node_gone_and_fewer_ranks_go_on(genome, unbroken, tmp_path):
    """Of two nodes one goes for good: torchrun joins the rest anew, which goes on alone."""
    out = tmp_path / "run"
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    options = [
        "--nnodes", "1:2", "--nproc-per-node", "1", "--max-restarts", "3", "--rdzv-id", "run",
        "--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}",
        "--rdzv-conf",
    ]  # fmt: skip
    conf = "join_timeout=60,last_call_timeout=10,keep_alive_interval=1,is_host="
    words = ["pretrain", str(genome), "--out", str(out), *OPTIONS.split()]
    with (
        torchrun([*options, conf + "true"], words) as first,
        torchrun([*options, conf + "false"], words) as second,
    ):
        assert wait_for(lambda: steps_logged(out) >= 45, first.process), first.text
        reached = steps_logged(out)
        second.kill_all()  # the first holds the meeting point
        assert first.finish() == 0, first.text
    assert resumed_at(first.text + second.text)[0] >= reached - SAVE_EVERY
    assert_as_unbroken(out, unbroken, rel=2e-3)


def test_a_killed_rank_of_finetune_comes_back(tmp_path):
    """The run goes on from its newest state, with the result of an unbroken one."""
    rng = np.random.default_rng(0)
    table = tmp_path / "table.csv"
    lines = ["sequence,label,split"]
    for i in range(300):
        text = "".join(rng.choice(list("ATCG"), 30)) + ("AT" if i % 2 else "CG") * 4
        lines.append(f"{text},{'at' if i % 2 else 'cg'},{'valid' if i % 5 == 4 else 'train'}")
    table.write_text("\n".join(lines) + "\n")
    words = ["finetune", "random:tiny-1k", str(table)]
    options = [
        "--epochs", "6", "--batch-size", "16", "--embed-dropout", "0", "--device", "cpu",
        "--threads", "1", "--precision", "float32", "--baselines", "none",
    ]  # fmt: skip
    logs = []
    for killed in (False, True):
        out = tmp_path / f"run{killed}"
        log = out / "seed-0"
        restarts = ["--nproc-per-node", "2", "--max-restarts", "2"]
        with torchrun(restarts, [*words, "--out", str(out), *options]) as started:
            if killed:
                assert wait_for(lambda at=log: steps_logged(at) >= 40, started.process)
                os.kill(started.ranks()[1], signal.SIGKILL)
            assert started.finish() == 0, started.text
        entries = [json.loads(line) for line in (log / "log.jsonl").read_text().splitlines()]
        logs.append([(e["step"], e.get("loss", e.get("valid"))) for e in entries])
    assert [step for step, _ in logs[0]] == [step for step, _ in logs[1]]
    assert [x for _, x in logs[0]] == [pytest.approx(x, rel=1e-6) for _, x in logs[1]]
