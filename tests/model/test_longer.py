"""A model made longer reads what it read before as before."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hyenadna.alphabet import decode
from hyenadna.checkpoint import load, save
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
    assert made.config == SMALL.replace(max_seq_len=100)
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
