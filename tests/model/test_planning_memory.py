"""The bytes of a plan are those of the tensors that are alive in real passes."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hyenadna.alphabet import PAD
from hyenadna.config import ModelConfig
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.filter import lag_features
from hyenadna.model.likelihood import target_nats
from hyenadna.model.memory import table_bytes
from hyenadna.model.parallel import shards as parallel_shards
from hyenadna.model.parallel.context import share_context
from hyenadna.model.parallel.shards import SequenceShards
from hyenadna.model.planning import context as planning
from hyenadna.model.planning.plain import PlainPass
from hyenadna.model.planning.setup import Setup
from hyenadna.model.planning.traffic import exchange_bytes, traffic

SMALL = ModelConfig(
    d_model=64, n_layer=2, max_seq_len=4096, filter_order=16, num_heads=4, embed_dropout=0
)


class Alive(TorchDispatchMode):
    """Bytes of the tensors that are alive since it was entered, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.most = 0
        self.known: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for given in tree_leaves((args, kwargs)):
            if isinstance(given, torch.Tensor):
                self._meet(given, counts=False)
        out = func(*args, **(kwargs or {}))
        for made in tree_leaves(out):
            if isinstance(made, torch.Tensor):
                self._meet(made, counts=True)
        self.most = max(self.most, self.bytes)
        return out

    def _meet(self, tensor: torch.Tensor, *, counts: bool) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.known:
            return
        self.known[key] = storage.nbytes() if counts else 0
        self.bytes += self.known[key]
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.bytes -= self.known.pop(key, 0)


def most_alive(model: HyenaDNA, rows: torch.Tensor, dtype: torch.dtype | None = None) -> int:
    """Bytes at the widest moment of a forward and backward pass."""
    if model.config.mixer == "hyena":
        length = model.config.max_seq_len
        lag_features(length, model.config.emb_dim, rows.device, length)
    with Alive() as alive:
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            nats = target_nats(model, rows, rows).sum()
        nats.backward()
    return alive.most


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("batch", "length", "changes"),
    [
        (8, 256, {}),
        (1, 1024, {"n_layer": 4}),
        (2, 512, {"hyena_order": 3}),
        (2, 512, {"d_inner": 32}),
        (4, 512, {"mixer": "attention"}),
        (4, 512, {"embed_dropout": 0.1, "resid_dropout": 0.1, "hyena_dropout": 0.1}),
    ],
)
def test_plain_modules(batch, length, changes, checkpointing):
    torch.manual_seed(0)
    config = SMALL.replace(max_seq_len=length, **changes)
    model = HyenaDNA(config).train()
    model.set_engine("plain")
    model.set_checkpointing(mixer=checkpointing, mlp=checkpointing)
    most = most_alive(model, torch.randint(7, 11, (batch, length)))
    held = PlainPass(config, batch, length, checkpointing=checkpointing).training()
    assert held.total == pytest.approx(most, rel=0.03)
    assert min(held.kept, held.work, held.loss + 1) > 0


def test_products_in_half_precision():
    config = SMALL.replace(max_seq_len=1024)
    model = HyenaDNA(config).train()
    model.set_engine("plain")
    most = most_alive(model, torch.randint(7, 11, (2, 1024)), torch.bfloat16)
    assert PlainPass(config, 2, 1024, half=True).training().total == pytest.approx(most, rel=0.05)


class OneOfMany(SequenceShards):
    """A rank that hears itself in place of the others: as much to hold and to send."""

    def __init__(self, count: int) -> None:
        self.group, self.rank, self.count = None, 0, count


@pytest.mark.parametrize(
    ("length", "ranks", "batch", "changes"),
    [
        (1024, 1, 1, {}),
        (1024, 4, 1, {}),
        (1024, 2, 2, {"n_layer": 4, "d_model": 32}),
        (4096, 16, 1, {"n_layer": 1, "d_model": 32}),
        (1024, 4, 1, {"hyena_order": 3, "d_model": 16}),
    ],
)
def test_a_rank_of_a_sequence(monkeypatch, length, ranks, batch, changes):
    sent = []

    def heard(blocks, shards):
        sent.append(blocks.nbytes)
        return torch.empty_like(blocks).copy_(blocks)

    monkeypatch.setattr(parallel_shards, "_all_to_all", heard)
    monkeypatch.setattr(parallel_shards, "_neighbour", lambda x, *_: torch.zeros_like(x))
    monkeypatch.setattr(planning, "MIXED", 1 << 11)
    config = SMALL.replace(max_seq_len=length, **changes)
    shards = OneOfMany(ranks)
    model = share_context(HyenaDNA(config), shards).train()
    most = most_alive(model, shards.part(torch.randint(7, 11, (batch, length)), PAD))
    held = planning.context_training(config, batch=batch, length=length, ranks=ranks)
    assert held.total == pytest.approx(most, rel=0.06)
    setup = Setup(config=config, length=length, batch=batch, ranks=ranks, context=ranks, gpu=False)
    if ranks == 1:
        return
    assert sum(sent) == exchange_bytes(setup)
    halos = 3 * config.n_layer * -(-config.d_model // planning.mixed_channels(
        batch, setup.here, ranks, gpu=False
    ))  # fmt: skip
    assert traffic(setup).meetings == len(sent) + halos


def test_tables_are_those_of_the_lags():
    z, t = lag_features(1000, 7, torch.device("cpu"), 1000)
    assert table_bytes(SMALL.replace(max_seq_len=1000, emb_dim=7)) == z.nbytes + t.nbytes
    assert table_bytes(SMALL.replace(mixer="attention")) == 0


def test_counts_take_the_constants_of_the_code_that_runs():
    """They cannot import it: it needs torch."""
    from hyenadna.conv import fft
    from hyenadna.model.engine import pages
    from hyenadna.model.planning import held, parts

    assert held.BLOCK_SAMPLES == fft.BLOCK_SAMPLES
    assert held.DEVICE_BLOCK_SAMPLES == fft.DEVICE_BLOCK_SAMPLES
    assert parts.PAGES == pages.SMALLEST
