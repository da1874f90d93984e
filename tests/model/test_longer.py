"""A model made longer reads what it read before as before."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from hyenadna.alphabet import decode
from hyenadna.checkpoint import load, load_with_report, save
from hyenadna.cli.app import run
from hyenadna.config import ModelConfig
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.filter import ImplicitFilter
from hyenadna.model.longer import longer

SMALL = ModelConfig(d_model=16, n_layer=2, max_seq_len=34, filter_order=8, embed_dropout=0.0)


@pytest.fixture
def model() -> HyenaDNA:
    torch.manual_seed(0)
    made = HyenaDNA(SMALL).eval()
    for p in made.parameters():  # large enough that every part matters
        p.data.normal_(0, 0.3)
    return made


def tokens(length: int) -> torch.Tensor:
    return torch.randint(7, 11, (2, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kernels", ["plain", "torch"])
@pytest.mark.parametrize("length", [1, 33, 34])
def test_it_reads_the_same_up_to_the_old_length_to_the_bit(model, length, kernels):
    made = longer(model, 100)
    assert made.config == SMALL.replace(max_seq_len=100, lag_scale=34)
    for each in (model, made):
        each.set_engine(kernels)
    with torch.inference_mode():
        assert torch.equal(made(tokens(length)), model(tokens(length)))


def test_filters_go_on_and_see_what_lies_further_back(model):
    made = longer(model, 100)
    for m in made.modules():
        if isinstance(m, ImplicitFilter):
            k = m(100)
            assert k[:, 34:].abs().max() > 0
            assert not torch.equal(k[:, 34:68], k[:, :34])
    changed = tokens(100)
    changed[:, 0] = 18 - changed[:, 0]
    with torch.inference_mode():
        assert not torch.allclose(made(changed)[:, -1], made(tokens(100))[:, -1])


def test_twice_is_once(model):
    once, twice = longer(model, 120), longer(longer(model, 60), 120)
    assert all(
        torch.equal(a, b)
        for a, b in zip(once.state_dict().values(), twice.state_dict().values(), strict=True)
    )


def test_it_is_saved_and_read_again(model, tmp_path):
    made = longer(model, 100)
    for tables in (True, False):
        save(made, tmp_path / "model", tables=tables)
        with torch.inference_mode():
            assert torch.equal(load(tmp_path / "model")(tokens(100)), made(tokens(100)))


def test_tables_are_needed_by_published_loaders_alone(model, tmp_path):
    made = longer(model, 100)
    save(made, tmp_path / "model", tables=False)
    saved, report = load_with_report(tmp_path / "model")
    assert saved.config.lag_scale == 34 and report.kept_tables == ()
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as file:
        assert not [name for name in file.keys() if "pos_emb" in name]  # noqa: SIM118
    save(made, tmp_path / "model", tables=True)
    config = tmp_path / "model" / "config.json"
    values = json.loads(config.read_text())
    assert values.pop("lag_scale") == 34
    config.write_text(json.dumps(values))  # as a loader sees it that knows no scale
    read, report = load_with_report(tmp_path / "model")
    assert read.config.lag_scale is None and len(report.kept_tables) == 4
    with torch.inference_mode():
        assert torch.equal(read(tokens(100)), made(tokens(100)))
    for table, value in longer(read, 150).backbone.layers[1].mixer.filter_fn.tables().items():
        again = longer(made, 150).backbone.layers[1].mixer.filter_fn.tables()[table]
        assert torch.equal(value, again)


def test_what_cannot_be_made_longer(model):
    with pytest.raises(InputError, match="--max-seq-len is 34, but the model reads 34 tokens"):
        longer(model, 34)
    filter_fn = model.backbone.layers[0].mixer.filter_fn
    filter_fn.keep_table("pos_emb.t", filter_fn.tables()["pos_emb.t"] ** 2)
    with pytest.raises(InputError, match="follow no formula that goes on"):
        longer(model, 100)


def test_pretrain_goes_on_longer_and_resumes(model, tmp_path):
    save(model, tmp_path / "short")
    rng = np.random.default_rng(0)
    (tmp_path / "g.fa").write_text(f">c\n{decode(rng.integers(7, 11, 20_000))}\n")
    words = ["pretrain", str(tmp_path / "g.fa"), "--init", str(tmp_path / "short")]
    words += ["--max-seq-len", "130", "--stages", "64:2", "--steps", "4", "--threads", "1"]
    words += ["--tokens-per-step", "256", "--save-every", "2"]
    assert run([*words, "--out", str(tmp_path / "whole")]) == 0
    trained = load(tmp_path / "whole" / "last")
    assert trained.config.max_seq_len == 130
    before = longer(model, 130).backbone.layers[0].mixer.filter_fn.tables()
    after = trained.backbone.layers[0].mixer.filter_fn.tables()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert run(["pretrain", "--out", str(tmp_path / "whole"), "--resume"]) == 0
