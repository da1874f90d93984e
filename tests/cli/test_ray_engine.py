"""`--engine ray`: what one process writes, whatever happens to workers and driver."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from hyenadna.alphabet import decode
from hyenadna.checkpoint.save import save
from hyenadna.checkpoint.task import save_task
from hyenadna.cli.app import run
from hyenadna.config import ModelConfig
from hyenadna.data.labelled_data import Task
from hyenadna.infer.run_record import read_record
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.heads import TaskModel

CONFIG = ModelConfig(d_model=8, n_layer=1, max_seq_len=66, filter_order=8)
OTHER = {"A": "C", "C": "G", "G": "T", "T": "A"}
SCORE = ["score", "model", "v.vcf", "--genome", "g.fa", "--threads", "1"]
PREDICT = ["predict", "task", "s.csv", "--threads", "1"]
RUNS = [
    (PREDICT, "x.csv"),
    (["embed", "model", "g.fa", "--per", "bin", "--bin", "6", "--threads", "1"], "x.npz"),
    ([*SCORE, "--background", "30"], "x.vcf.gz"),
    (["track", "model", "g.fa", "--threads", "1"], "x.bw"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Models and inputs, of several units of work each."""
    folder = tmp_path_factory.mktemp("made")
    torch.manual_seed(0)
    save(HyenaDNA(CONFIG), folder / "model")
    network = TaskModel(HyenaDNA(CONFIG), Task("classes", ("a", "b")))
    torch.nn.init.normal_(network.head.weight)
    save_task(network, folder / "task")
    rng = np.random.default_rng(0)
    text = decode(rng.integers(7, 11, 60_000))
    (folder / "g.fa").write_text(f">chr1\n{text}\n>chr2\n{text[:5000]}\n")
    rows = [f"chr1\t{i}\t.\t{text[i - 1]}\t{OTHER[text[i - 1]]}\t.\t.\t.\n"
            for i in range(50, 59_000, 41)]  # fmt: skip
    head = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    (folder / "v.vcf").write_text(head + "".join(rows))
    lines = [f"s{i},{text[5 * i : 5 * i + 60]}\n" for i in range(9000)]
    (folder / "s.csv").write_text("id,sequence\n" + "".join(lines))
    return folder


@pytest.fixture
def place(made, tmp_path, monkeypatch) -> Path:
    """A folder with all of it, where the commands run."""
    pytest.importorskip("ray", reason="needs hyenadna[ray]")
    monkeypatch.chdir(tmp_path)
    for path in made.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


@pytest.fixture(scope="module")
def cluster():
    """A cluster of this machine that the commands of several tests find and leave running."""
    ray = pytest.importorskip("ray", reason="needs hyenadna[ray]")
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
        object_store_memory=128 << 20, logging_level="ERROR",
    )  # fmt: skip
    yield ray
    ray.shutdown()


def test_a_line_where_there_is_no_cluster(place, capsys):
    words = [*PREDICT, "-o", "x.csv", "--engine", "ray"]
    assert run([*words, "--ray-address", "127.0.0.1:1"]) == 2
    error = capsys.readouterr().err
    assert "--ray-address 127.0.0.1:1: no Ray cluster (" in error and error.count("\n") == 1
    assert run([*words, "--shards", "0"]) == 2
    assert "--shards is 0; it must be at least 1" in capsys.readouterr().err


@pytest.mark.slow
def test_the_output_is_that_of_one_process(place, cluster, capsys):
    assert run([*PREDICT, "-o", "one.csv"]) == 0
    assert run([*PREDICT, "-o", "x.csv", "--engine", "ray", "--shards", "2"]) == 0
    printed = capsys.readouterr().out
    assert "2 shards, 2 to compute, 2 at a time on 1 CPU each" in printed
    assert "shard 1/2 done" in printed and "2 shards merged in" in printed
    assert (place / "x.csv").read_bytes() == (place / "one.csv").read_bytes()
    record = read_record(place / "x.csv")
    assert record.settings == read_record(place / "one.csv").settings
    assert record.figures["shards"] == 2
    assert not list(place.glob("*shard*")) and not list(place.glob("*.part"))
    # what is wrong comes back in one line, and shards that are complete are not done again
    words = ["predict", "task", "nowhere.csv", "-o", "y.csv", "--engine", "ray", "--shards", "2"]
    assert run(words) == 2
    error = capsys.readouterr().err
    assert "nowhere.csv: " in error and error.count("\n") == 1
    assert run([*PREDICT, "-o", "z.csv", "--shard", "2/2"]) == 0
    assert run([*PREDICT, "-o", "z.csv", "--engine", "ray"]) == 2
    assert "z.csv.shard-2-of-2: is of an interrupted run; go on with" in capsys.readouterr().err
    assert run([*PREDICT, "-o", "z.csv", "--engine", "ray", "--resume", "--shards", "3"]) == 2
    assert "is of a run of 2 shards; resume with as many" in capsys.readouterr().err
    assert run([*PREDICT, "-o", "z.csv", "--engine", "ray", "--resume"]) == 0
    assert "2 shards, 1 to compute" in capsys.readouterr().out
    assert (place / "z.csv").read_bytes() == (place / "one.csv").read_bytes()
    much = ["--engine", "ray", "--task-cpus", "99"]
    assert run([*PREDICT, "-o", "w.csv", *much]) == 2
    assert "--task-cpus 99 and --task-gpus 0: the cluster has 2 CPUs" in capsys.readouterr().err


def test_a_line_without_ray(place, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run([*PREDICT, "-o", "x.csv", "--engine", "ray"]) == 2
    assert "--engine ray needs `pip install 'hyenadna[ray]'`" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("words", "out"), RUNS, ids=lambda value: value[0])
def test_all_verbs(place, cluster, words, out):
    assert run([*words, "-o", f"one.{out}"]) == 0
    for count in (1, 5):
        name = f"of{count}.{out}"
        assert run([*words, "-o", name, "--engine", "ray", "--shards", str(count)]) == 0
        assert (place / name).read_bytes() == (place / f"one.{out}").read_bytes()


def driver(words: list[str], out: str, count: int, *more: str) -> subprocess.Popen[str]:
    """The command in a process and a cluster of its own."""
    ray = ["--engine", "ray", "--shards", str(count), *more]
    command = [sys.executable, "-m", "hyenadna", *words, "-o", out, *ray]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def workers(out: str) -> list[int]:
    """Processes that are at work on a shard of this output: Ray names them by their task."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            title = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if title.startswith("ray::") and out in title:
            found.append(int(path.parent.name))
    return found


def records_done(out: str, shard: str) -> int:
    """Records of a shard in work whose scores are on disk."""
    try:
        state = json.loads(Path(f"{out}.shard-{shard}.part/done.json").read_text())
    except (OSError, ValueError):
        return 0
    return int(state["inputs"])


SLOW = [*SCORE, "--method", "whole"]


@pytest.mark.slow
def test_a_killed_worker_is_started_again(place):
    assert run([*SLOW, "-o", "one.vcf"]) == 0
    out = f"killed-{os.getpid()}.vcf"
    running, killed, at = driver(SLOW, out, 2), 0, {}
    deadline = time.monotonic() + 400
    while running.poll() is None and time.monotonic() < deadline:
        for shard in ("1-of-2", "2-of-2"):
            done = records_done(out, shard)
            if done and shard not in at:  # in the middle: some chunks are there
                at[shard] = done
                for process in workers(out):
                    os.kill(process, signal.SIGKILL)
                    killed += 1
        time.sleep(0.02)
    printed, error = running.communicate(timeout=60)
    assert running.returncode == 0, (printed, error)
    assert killed >= 1 and at
    assert (place / out).read_bytes() == (place / "one.vcf").read_bytes()
    assert not error and not list(place.glob("*shard*"))


@pytest.mark.slow
def test_a_killed_driver_is_resumed(place):
    assert run([*SLOW, "-o", "one.vcf"]) == 0
    out = f"driver-{os.getpid()}.vcf"
    running = driver(SLOW, out, 4)
    deadline = time.monotonic() + 400
    while not list(place.glob(f"{out}.shard-*-of-4")) and time.monotonic() < deadline:
        time.sleep(0.05)
    running.kill()
    running.communicate(timeout=60)
    complete = len(list(place.glob(f"{out}.shard-*-of-4")))
    assert 1 <= complete < 4 and not (place / out).exists()
    again = driver(SLOW, out, 4, "--resume")
    printed, error = again.communicate(timeout=400)
    assert again.returncode == 0, (printed, error)
    assert f"4 shards, {4 - complete} to compute" in printed or complete == 3
    assert (place / out).read_bytes() == (place / "one.vcf").read_bytes()
