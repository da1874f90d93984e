"""A run that is stopped, killed or out of disk goes on as if nothing had happened."""

from __future__ import annotations

import errno
import itertools
import json
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hyenadna.alphabet import decode
from hyenadna.checkpoint import folder as checkpoint_folder
from hyenadna.checkpoint.load import load
from hyenadna.checkpoint.save import save
from hyenadna.cli import pretrain
from hyenadna.cli.app import run
from hyenadna.config import ModelConfig
from hyenadna.model.backbone import HyenaDNA

SHAPE = ["--d-model", "16", "--n-layer", "1", "--max-seq-len", "66", "--threads", "1"]
SMALL = [*SHAPE, "--tokens-per-step", "256", "--warmup-length", "16", "--evaluate-bases", "500"]


@pytest.fixture(scope="module")
def genome(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("genome") / "toy.fa"
    rng = np.random.default_rng(0)
    records = [f">c{i}\n{decode(rng.integers(7, 11, 6000))}\n" for i in range(3)]
    path.write_text("".join(records))
    return path


def state_of(out: Path) -> dict[str, torch.Tensor]:
    last = out / "last"
    return load_file(last / "model.safetensors") | load_file(last / "trainer.safetensors")


def log_of(out: Path) -> list[dict]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def assert_same_run(one: Path, other: Path) -> None:
    first, second = state_of(one), state_of(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    plain = [json.loads((out / "last" / "trainer.json").read_text()) for out in (one, other)]
    assert plain[0] == plain[1]
    assert log_of(one) == log_of(other)
    best = [load_file(out / "best" / "model.safetensors") for out in (one, other)]
    assert all(torch.equal(value, best[1][name]) for name, value in best[0].items())


def stop_after(monkeypatch, steps: int) -> None:
    """Let the training stop itself, as on SIGINT, after so many steps of this process."""

    @contextmanager
    def stop_on_signals():
        calls = itertools.count(1)
        yield lambda: signal.SIGINT if next(calls) >= steps else None

    monkeypatch.setattr(pretrain, "stop_on_signals", stop_on_signals)


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--ema", "0.9", "--precision", "bf16", "--schedule", "paper"],
        ["--micro-batch-tokens", "64", "--gradient-checkpointing", "--parameter-groups", "paper"],
        ["--mixer", "attention", "--stages", "32:5,48:9", "--precision", "fp16"],
        ["--optimizer", "muon", "--matrix-lr", "0.01"],
    ],
    ids=[
        "plain",
        "average, bf16",
        "accumulation, checkpointing",
        "attention, stages, fp16",
        "muon",
    ],
)
def test_a_stopped_and_resumed_run_equals_an_unbroken_one(genome, tmp_path, monkeypatch, options):
    arguments = ["pretrain", str(genome), *SMALL, "--steps", "20", *options]
    assert run([*arguments, "--out", str(tmp_path / "whole")]) == 0
    broken = tmp_path / "broken"
    with monkeypatch.context() as patch:
        stop_after(patch, 7)
        assert run([*arguments, "--out", str(broken)]) == 130
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        assert run(["pretrain", "--out", str(broken), "--resume"]) == 130
    assert run(["pretrain", "--out", str(broken), "--resume"]) == 0
    assert_same_run(tmp_path / "whole", broken)


def test_genomes_that_are_links_keep_their_names(genome, tmp_path, monkeypatch):
    link = tmp_path / "named.fa"
    link.symlink_to(genome)
    out = str(tmp_path / "run")
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        assert run(["pretrain", str(link), *SMALL, "--steps", "4", "--out", out]) == 130
    assert run(["pretrain", "--out", out, "--resume"]) == 0


def start(arguments: list[str]) -> subprocess.Popen:
    command = [sys.executable, "-m", "hyenadna", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_killed_again_and_again_at_random_moments(genome, tmp_path):
    steps = ["--steps", "900", "--save-every", "7", "--evaluate-every", "100"]
    arguments = ["pretrain", str(genome), *SMALL, *steps]
    assert run([*arguments, "--out", str(tmp_path / "whole")]) == 0
    broken = tmp_path / "broken"
    process = start([*arguments, "--out", str(broken)])
    dice, kills, loaded = random.Random(1), 0, 0
    for _ in range(1500):  # a busy machine takes its time to start a process
        time.sleep(dice.uniform(0.05, 0.4))
        if process.poll() is not None:
            assert process.returncode == 0, process.stderr.read()
            break
        trained = (broken / "log.jsonl").exists() and (broken / "log.jsonl").stat().st_size > 4000
        if kills < 5 and trained and dice.random() < 0.4:
            process.send_signal(signal.SIGKILL if kills % 3 else signal.SIGTERM)
            process.wait()
            kills += 1
            if process.returncode == 0:
                break
            load(broken)  # loadable at any moment
            loaded += 1
            process = start(["pretrain", "--out", str(broken), "--resume"])
    process.wait(timeout=600)
    assert process.returncode == 0, process.stderr.read()
    assert kills >= 2 and loaded >= 2
    assert_same_run(tmp_path / "whole", broken)


def test_a_full_disk_leaves_the_last_checkpoint_whole(genome, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    arguments = ["pretrain", str(genome), *SMALL, "--steps", "12", "--save-every", "4"]
    whole = tmp_path / "whole"
    assert run([*arguments, "--out", str(whole)]) == 0

    saved = []
    real = checkpoint_folder._sync

    def full_after_two(folder: Path) -> None:
        saved.append(folder)
        if len(saved) > 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(folder))
        real(folder)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_folder, "_sync", full_after_two)
        assert run([*arguments, "--out", str(out)]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "disk" in message.lower()
    load(out)
    assert run(["pretrain", "--out", str(out), "--resume"]) == 0
    assert_same_run(whole, out)


def test_resume_refuses_other_data_and_other_options(genome, tmp_path, capsys):
    out = tmp_path / "run"
    assert run(["pretrain", str(genome), *SMALL, "--steps", "2", "--out", str(out)]) == 0
    other = tmp_path / "toy.fa"
    other.write_text(genome.read_text().replace("A", "C", 1))
    assert run(["pretrain", str(other), "--out", str(out), "--resume"]) == 2
    assert "not the genome that the run was started with" in capsys.readouterr().err
    assert run(["pretrain", "--out", str(out), "--resume", "--lr", "0.5"]) == 2
    assert "--lr is 0.5 but the run was started with 0.0015" in capsys.readouterr().err
    assert run(["pretrain", str(genome), "--out", str(out)]) == 2
    assert "there is a run already" in capsys.readouterr().err
    assert run(["pretrain", "--out", str(tmp_path / "none"), "--resume"]) == 2
    assert "no run to resume" in capsys.readouterr().err


def test_half_a_line_at_the_end_of_the_log_is_dropped(genome, tmp_path):
    arguments = ["pretrain", str(genome), *SMALL, "--steps", "4"]
    assert run([*arguments, "--out", str(tmp_path / "whole")]) == 0
    out = tmp_path / "run"
    assert run([*arguments, "--out", str(out)]) == 0
    with (out / "log.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    assert run(["pretrain", "--out", str(out), "--resume"]) == 0
    assert_same_run(tmp_path / "whole", out)


def kept_tables_checkpoint(folder: Path) -> Path:
    """A checkpoint whose stored z differs from the formula."""
    torch.manual_seed(7)
    model = HyenaDNA(ModelConfig(d_model=16, n_layer=1, max_seq_len=66, embed_dropout=0.3))
    filter_fn = model.backbone.layers[0].mixer.filter_fn
    filter_fn.keep_table("pos_emb.z", filter_fn.tables()["pos_emb.z"] + 0.1)
    save(model, folder)
    return folder


def test_a_run_from_a_checkpoint_keeps_what_it_brought(genome, tmp_path, monkeypatch):
    source = kept_tables_checkpoint(tmp_path / "source")
    words = ["--tokens-per-step", "256", "--threads", "1", "--steps", "9", "--embed-dropout", "0"]
    arguments = ["pretrain", str(genome), "--init", str(source), *words]
    assert run([*arguments, "--out", str(tmp_path / "whole")]) == 0
    broken = tmp_path / "broken"
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        assert run([*arguments, "--out", str(broken)]) == 130
    assert run(["pretrain", "--out", str(broken), "--resume"]) == 0
    assert_same_run(tmp_path / "whole", broken)
    model = load(broken)
    assert model.config.embed_dropout == 0
    z = load(source).backbone.layers[0].mixer.filter_fn.tables()["pos_emb.z"]
    assert torch.equal(model.backbone.layers[0].mixer.filter_fn.tables()["pos_emb.z"], z)


def test_a_run_is_loadable_before_its_first_step(genome, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    arguments = ["pretrain", str(genome), *SMALL, "--steps", "5"]

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "_train", stop)
        assert run([*arguments, "--out", str(out)]) == 130
    load(out)
    assert run(["pretrain", "--out", str(out), "--resume"]) == 0
    assert run([*arguments, "--out", str(tmp_path / "whole")]) == 0
    assert_same_run(tmp_path / "whole", out)

    capsys.readouterr()
    empty = tmp_path / "empty"
    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "_trainer", stop)
        assert run([*arguments, "--out", str(empty)]) == 130
    assert not empty.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_is_told_by_the_exit_code(genome, tmp_path, number):
    out = tmp_path / "run"
    process = start(["pretrain", str(genome), *SMALL, "--steps", "100000", "--out", str(out)])
    deadline = time.monotonic() + 60
    while not (out / "log.jsonl").exists() or not (out / "log.jsonl").stat().st_size:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert error.strip() == "stopping after this step, saving (again to stop at once)"
    saved = json.loads((out / "last" / "trainer.json").read_text())["step"]
    assert saved == log_of(out)[-1]["step"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--weights", "7"], "--weights cannot be changed by --resume"),
        (["--init", "x"], "--init cannot be changed"),
        (["--valid-contigs", "c1"], "--valid-contigs, --test-contigs"),
        (["--preset", "tiny-1k"], "--preset cannot be changed"),
        (["--threads", "0"], "--threads is 0; it must be at least 1"),
    ],
)
def test_what_a_resumed_run_would_pass_over_is_refused(genome, tmp_path, capsys, words, message):
    out = tmp_path / "run"
    assert run(["pretrain", str(genome), *SMALL, "--steps", "1", "--out", str(out)]) == 0
    assert run(["pretrain", "--out", str(out), "--resume", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["trainer.safetensors", "trainer.json", "run.json"])
def test_a_damaged_run_is_one_line(genome, tmp_path, capsys, damage):
    out = tmp_path / "run"
    assert run(["pretrain", str(genome), *SMALL, "--steps", "1", "--out", str(out)]) == 0
    file = out / damage if damage == "run.json" else out / "last" / damage
    file.write_bytes(file.read_bytes()[:40])
    capsys.readouterr()
    assert run(["pretrain", "--out", str(out), "--resume"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_average_without_a_valid_part_is_saved(genome, tmp_path):
    out = tmp_path / "run"
    words = ["--steps", "6", "--ema", "0.5", "--test-contigs", "c2"]
    assert run(["pretrain", str(genome), *SMALL, *words, "--out", str(out)]) == 0
    average = {k.removeprefix("average."): v for k, v in state_of(out).items() if "average" in k}
    best = dict(load(out / "best").named_parameters())
    assert average and all(torch.equal(best[name], value) for name, value in average.items())
