"""A model made deeper computes what it computed before, until it is trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from hyenadna.alphabet import decode
from hyenadna.checkpoint import load, save
from hyenadna.cli.app import run
from hyenadna.config import ModelConfig
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.deeper import deeper
from hyenadna.model.filter import ImplicitFilter
from hyenadna.model.longer import longer

SMALL = ModelConfig(d_model=16, n_layer=2, max_seq_len=34, filter_order=8, embed_dropout=0.0)


def made(config: ModelConfig = SMALL) -> HyenaDNA:
    torch.manual_seed(0)
    model = HyenaDNA(config).eval()
    for p in model.parameters():  # large enough that every part matters
        p.data.normal_(0, 0.3)
    return model


def tokens(length: int = 34) -> torch.Tensor:
    return torch.randint(7, 11, (2, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kernels", ["plain", "torch", "auto"])
@pytest.mark.parametrize("mixer", ["hyena", "attention"])
def test_it_computes_the_same_to_the_bit(mixer, kernels):
    model = made(SMALL.replace(mixer=mixer, num_heads=2))
    grown = deeper(model, 5)
    assert grown.config == model.config.replace(n_layer=5)
    for each in (model, grown):
        each.set_engine(kernels)
    with torch.inference_mode():
        assert torch.equal(grown(tokens()), model(tokens()))


def test_every_new_projection_learns_from_the_first_step_on():
    grown = deeper(made(), 3).train()
    logits = grown(tokens()[:, :-1])
    cross_entropy(logits.flatten(0, 1), tokens()[:, 1:].flatten()).backward()
    new = dict(grown.backbone.layers[2].named_parameters())
    zero = [name for name, p in new.items() if not p.any()]
    assert {"mixer.out_proj.weight", "mlp.fc2.weight"} <= set(zero)
    assert all(new[name].grad.any() for name in zero if "out_proj" in name or "fc2" in name)


def test_new_blocks_read_positions_as_the_old_ones_do():
    model = longer(made(), 100)
    filters = [m for m in deeper(model, 4).modules() if isinstance(m, ImplicitFilter)]
    assert len(filters) == 4
    for filter_fn in filters:
        for name, table in model.backbone.layers[0].mixer.filter_fn.tables().items():
            assert torch.equal(filter_fn.tables()[name], table)


def test_fewer_blocks_or_as_many_are_refused():
    with pytest.raises(InputError, match="--n-layer is 2, but the model has 2 blocks already"):
        deeper(made(), 2)


def test_pretrain_goes_on_deeper_and_longer(tmp_path):
    save(made(), tmp_path / "small")
    rng = np.random.default_rng(0)
    (tmp_path / "g.fa").write_text(f">c\n{decode(rng.integers(7, 11, 20_000))}\n")
    words = [
        "pretrain",
        str(tmp_path / "g.fa"),
        "--init",
        str(tmp_path / "small"),
        "--threads",
        "1",
    ]
    words += ["--n-layer", "3", "--max-seq-len", "66", "--steps", "2", "--tokens-per-step", "128"]
    runs = [tmp_path / "one", tmp_path / "two"]
    for out in runs:
        assert run([*words, "--out", str(out)]) == 0
    one, two = (load(out / "last") for out in runs)
    assert (one.config.n_layer, one.config.max_seq_len) == (3, 66)
    assert one.backbone.layers[2].mixer.out_proj.weight.any()
    for a, b in zip(one.parameters(), two.parameters(), strict=True):  # drawn from the run's seed
        assert torch.equal(a, b)
