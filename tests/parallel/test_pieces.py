"""Checkpoints in pieces: whole or not at all, for any number of ranks, and nothing is gathered."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from safetensors.torch import load_file
from tests.parallel.ranks import on_ranks

from hyenadna.alphabet import IGNORED
from hyenadna.checkpoint import convert, load
from hyenadna.checkpoint.load import fill
from hyenadna.checkpoint.pieces import is_in_pieces
from hyenadna.checkpoint.reading import open_checkpoint
from hyenadna.cli.app import run as command
from hyenadna.config import ModelConfig
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.parallel.parts import whole
from hyenadna.model.parallel.ranks import Ranks
from hyenadna.model.parallel.sharded import draw_weights, empty_model
from hyenadna.train.loop import Trainer
from hyenadna.train.parallel import Sharded
from hyenadna.train.run_folder import RunFolder
from hyenadna.training_config import PretrainConfig

SHAPE = ModelConfig(d_model=12, n_layer=2, max_seq_len=34, filter_order=8, embed_dropout=0)
OPTIONS = PretrainConfig(steps=20, tokens_per_step=96, stages="none", ema=0.9, lr=0.01)
CPU = torch.device("cpu")


class Counted:
    """Batches that follow from how many there were."""

    def __init__(self) -> None:
        self.served = 0

    def batch(self, batch_size, length, *, rank=0, ranks=1):
        self.served += 1
        generator = torch.Generator().manual_seed(self.served)
        tokens = torch.randint(7, 11, (batch_size, length + 1), generator=generator)
        targets = tokens[:, 1:].clone()
        targets[0, :3] = IGNORED
        return tokens[rank::ranks, :-1], targets[rank::ranks]

    def state(self):
        return {"served": self.served}

    def load_state(self, state):
        self.served = state["served"]


def started(ranks: Ranks, *, fsdp: bool) -> Trainer:
    torch.manual_seed(3)
    model, sharded = HyenaDNA(SHAPE), None
    if fsdp:
        torch.manual_seed(3)
        model, sharded = empty_model(SHAPE), Sharded(CPU, partial(draw_weights, rescaled=False))
    return Trainer(model, Counted(), OPTIONS, final_length=32, ranks=ranks, sharded=sharded)


def resumed(folder: Path, ranks: Ranks, *, fsdp: bool) -> Trainer:
    run = RunFolder(folder, {}, writes=ranks.first)
    last = run.last()
    model, sharded = (
        (empty_model(SHAPE), Sharded(CPU, partial(read, last))) if fsdp else (None, None)
    )
    model = load(last) if model is None else model
    trainer = Trainer(model, Counted(), OPTIONS, final_length=32, ranks=ranks, sharded=sharded)
    run.restore(trainer)
    return trainer


def read(source: Path, model: HyenaDNA) -> None:
    with open_checkpoint(source) as reading:
        fill(model, reading)


def everything(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Weights, moments and average, in one piece, and the next step's loss and weights."""
    weights = trainer.model.state_dict
    before = {f"weights.{name}": whole(value).clone() for name, value in weights().items()}
    before |= {name: whole(value).clone() for name, value in trainer.state()[0].items()}
    before["loss"] = torch.tensor(trainer.step().loss)
    return before | {f"next.{name}": whole(value).clone() for name, value in weights().items()}


def assert_same(one, other, *, exactly: bool = True) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        if exactly and not name.startswith(("next.", "loss")):
            assert torch.equal(value, other[name]), name
        else:  # of another number of ranks to rounding
            torch.testing.assert_close(value, other[name], rtol=1e-3, atol=1e-4, msg=name)


def write(rank, count, folder):
    """A run of two ranks: saved after two steps, then with a disk that is full for one rank."""
    trainer = started(Ranks(rank, count), fsdp=True)
    run = RunFolder(folder, {}, writes=rank == 0)
    run.save_last(trainer)
    trainer.step()
    trainer.step()
    run.save_last(trainer)
    run.save_best(trainer)
    state = everything(trainer)
    if rank == 1:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        run.save_last(trainer)
    except InputError as error:
        refusal = str(error)
    if rank == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    return state, refusal


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder of that run, and what each rank says of it."""
    folder = tmp_path_factory.mktemp("pieces") / "run"
    folder.mkdir()
    return folder, on_ranks(2, write, tmp_path_factory.mktemp("meeting"), folder)


def test_a_full_disk_of_one_rank_leaves_the_checkpoint_before(written):
    folder, ranks = written
    for _, refusal in ranks:
        assert "rank 1: File too large" in refusal and "untouched" in refusal
        assert "\n" not in refusal
    assert sorted(p.name for p in folder.iterdir()) == ["best", "last"]
    saved = load(folder / "last").state_dict()
    assert all(torch.equal(saved[n], ranks[0][0][f"weights.{n}"]) for n in saved)


def on_three(rank, count, folder, by_one):
    """What three ranks go on from: pieces in parts, pieces in one piece, one process in parts."""
    ranks = Ranks(rank, count)
    states = [everything(resumed(folder, ranks, fsdp=fsdp)) for fsdp in (True, False)]
    return [*states, everything(resumed(by_one, ranks, fsdp=True))]


@pytest.mark.slow
def test_another_number_of_ranks_goes_on(written, tmp_path):
    folder, ranks = written
    unbroken = ranks[0][0]
    assert_same(ranks[1][0], unbroken)
    shutil.copytree(folder, tmp_path / "run")
    alone = resumed(tmp_path / "run", Ranks(), fsdp=False)
    RunFolder(tmp_path / "run", {}).save_last(alone)  # whole files where pieces were
    assert not is_in_pieces(tmp_path / "run" / "last")
    assert_same(everything(alone), unbroken)
    (tmp_path / "meet").mkdir()
    for states in on_ranks(3, on_three, tmp_path / "meet", folder, tmp_path / "run"):
        for state in states:
            assert_same(state, unbroken)


def test_parts_train_as_one_process_does(written):
    alone = started(Ranks(), fsdp=False)
    alone.step()
    alone.step()
    assert_same(everything(alone), written[1][0][0], exactly=False)


def kill_while_writing(rank, count, folder):
    trainer = resumed(folder, Ranks(rank, count), fsdp=True)
    trainer.step()

    def half_a_file(self, plan, planner):
        (Path(self.path) / "shard-00001-model-00001-of-00001.safetensors").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

    if rank == 0:  # the one that puts the folder in its place
        dcp.HuggingFaceStorageWriter.write_data = half_a_file
    RunFolder(folder, {}, writes=rank == 0).save_last(trainer)


def test_a_rank_killed_while_it_writes_leaves_the_checkpoint_before(written, tmp_path):
    shutil.copytree(written[0], tmp_path / "run")
    (tmp_path / "meet").mkdir()
    with pytest.raises(mp.ProcessExitedException):
        on_ranks(2, kill_while_writing, tmp_path / "meet", tmp_path / "run")
    assert (tmp_path / "run" / ".last.writing").exists()
    again = resumed(tmp_path / "run", Ranks(), fsdp=False)
    RunFolder(tmp_path / "run", {}).save_last(again)  # what was left is no hindrance
    assert_same(everything(again), written[1][0][0])
    assert not (tmp_path / "run" / ".last.writing").exists()


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_torch_reads_the_pieces(written):
    state = written[1][0][0]
    wanted = {
        "hyena.backbone.layers.1.mlp.fc1.weight": "weights.backbone.layers.1.mlp.fc1.weight",
        "training.average.backbone.ln_f.bias": "average.backbone.ln_f.bias",
    }
    tensors = {name: torch.empty_like(state[ours]) for name, ours in wanted.items()}
    reader = dcp.HuggingFaceStorageReader(str(written[0] / "last"))
    dcp.load(tensors, storage_reader=reader, no_dist=True)
    for name, ours in wanted.items():
        assert torch.equal(tensors[name], state[ours])


def test_convert_makes_one_model_of_the_pieces(written, tmp_path, capsys):
    folder = written[0]
    assert command(["convert", str(folder), str(tmp_path / "hf"), "--max-shard-size", "10KB"]) == 0
    assert "best" in capsys.readouterr().out
    files = sorted(p.name for p in (tmp_path / "hf").iterdir())
    assert "model.safetensors.index.json" in files and "model-00001-of-00003.safetensors" in files
    convert(folder / "last", tmp_path / "one")
    tokens = torch.randint(7, 11, (2, 30))
    with torch.no_grad():
        want = load(folder)(tokens)
        assert torch.equal(load(tmp_path / "hf")(tokens), want)
        assert torch.equal(load(tmp_path / "one")(tokens), want)
    assert "lm_head.weight" in load_file(tmp_path / "one" / "model.safetensors")


@pytest.mark.parametrize("damage", ["missing", "short", "list"])
def test_damaged_pieces_are_refused_in_one_line(written, tmp_path, capsys, damage):
    shutil.copytree(written[0] / "last", tmp_path / "last")
    shard = tmp_path / "last" / "shard-00002-model-00001-of-00001.safetensors"
    if damage == "missing":
        shard.unlink()
    elif damage == "short":
        shard.write_bytes(shard.read_bytes()[:-10])
    else:
        (tmp_path / "last" / "pieces.json").write_text("{}")
    assert command(["convert", str(tmp_path / "last"), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(tmp_path / "last") in error
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_memory_of_a_rank_falls_with_their_number():
    """Beside its own part a rank holds a block or two, and what is being written."""
    from benchmarks.large_model import measured

    one, two = (measured(f"768x8:{ranks}:training") for ranks in (1, 2))
    state, block = one["state"], one["state"] / 3 / 8
    written = 3 * (64 << 20)
    for key, share in (("start", 1 / 6), ("read", 1 / 6), ("step", 2 / 3), ("save", 1 / 2)):
        peak = two["stages"][key]["peak"]
        assert peak < share * state + 3 * block + (written if key == "save" else 0), key
        assert peak < 0.8 * one["stages"][key]["peak"], key
    assert two["stages"]["convert"]["peak"] < 3 * block
    assert two["stages"]["load"]["peak"] < state / 3 + 2 * block
