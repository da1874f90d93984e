"""Small models and files of the published layouts, made here so that a fresh clone tests them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from hyenadna.config import ModelConfig
from hyenadna.model.backbone import HyenaDNA

TABLES = ("pos_emb.z", "pos_emb.t", "modulation.deltas")


def small_config(**changes: Any) -> ModelConfig:
    """Two layers of width 8, 34 tokens."""
    base = ModelConfig(d_model=8, n_layer=2, d_inner=12, max_seq_len=34, filter_order=6)
    return base.replace(**changes)


def small_model(seed: int = 0, **changes: Any) -> HyenaDNA:
    """A model with every parameter drawn at a scale where each of them shows in the logits."""
    model = HyenaDNA(small_config(**changes))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5 + 0.1)
    return model.eval()


def tokens(length: int = 34, seed: int = 1) -> Tensor:
    """Two sequences of ids 7..11, shape (2, length)."""
    return torch.randint(7, 12, (2, length), generator=torch.Generator().manual_seed(seed))


def logits(model: HyenaDNA) -> Tensor:
    """Logits of `tokens()`, without gradients."""
    with torch.no_grad():
        out: Tensor = model(tokens(min(34, model.config.max_seq_len)))
    return out


def all_tensors(model: HyenaDNA) -> dict[str, Tensor]:
    """Parameters, head and tables under the standalone names."""
    tensors = {name: value.detach().clone() for name, value in model.state_dict().items()}
    tensors["lm_head.weight"] = model.head_weight.detach().clone()
    for i, layer in enumerate(model.backbone.layers):
        for table, value in layer.mixer.filter_fn.tables().items():  # type: ignore[union-attr]
            tensors[f"backbone.layers.{i}.mixer.filter_fn.{table}"] = value.clone()
    return tensors


def write_hf(folder: Path, model: HyenaDNA, *, drop: str = "", **fields: Any) -> dict[str, Tensor]:
    """A folder as the `-hf` repositories are; without the tensors whose name ends with `drop`."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        (f"hyena.{name}" if name.startswith("backbone") else name): value
        for name, value in all_tensors(model).items()
        if not name.endswith(("3.freq", "5.freq")) and not (drop and name.endswith(drop))
    }
    values = model.config.to_dict() | {"model_type": "hyenadna", "tie_word_embeddings": False}
    for own in ("mixer", "window_shift", "num_heads", "resid_dropout"):
        del values[own]  # a published file has none of these
    (folder / "config.json").write_text(json.dumps(values | fields))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return tensors


def original_config(config: ModelConfig, **layer: Any) -> dict[str, Any]:
    """The nested `config.json` of the training repository."""
    return {
        "d_model": config.d_model,
        "n_layer": config.n_layer,
        "d_inner": config.inner_width,
        "vocab_size": 12,
        "resid_dropout": 0.0,
        "embed_dropout": 0.1,
        "fused_mlp": False,
        "residual_in_fp32": True,
        "pad_vocab_size_multiple": 8,
        "layer": {
            "_name_": "hyena",
            "emb_dim": config.emb_dim,
            "filter_order": config.filter_order,
            "local_order": 3,
            "l_max": config.max_seq_len,
            "modulate": True,
            "w": config.activation_freq,
            **layer,
        },
    }


def training_state(model: HyenaDNA, *, wrapped: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Names of the training repository; `wrapped` parts (`mixer`, `mlp`) one level deeper.

    Filter channels by a plain loop: index c * (N-1) + o there is o * D + c here.
    """
    config, state = model.config, {}
    rounds, width = config.hyena_order - 1, config.d_model
    theirs = [o * width + c for c in range(width) for o in range(rounds)]
    last = f"implicit_filter.{2 * config.num_inner_mlps + 2}.weight"
    for name, tensor in all_tensors(model).items():
        if name.endswith((last, "filter_fn.bias")):
            tensor = tensor[theirs]
        elif name.endswith("deltas"):
            tensor = tensor[..., theirs]
        for part in wrapped:
            name = name.replace(f".{part}.", f".{part}.layer.")
        state[f"model.{name}"] = tensor
    return state


def lightning_value(model: HyenaDNA, hyper_parameters: Any = None) -> dict[str, Any]:
    """What a Lightning 1.8 checkpoint holds: counters, optimizer moments, loops, parameters."""
    state = training_state(model, wrapped=("mixer", "mlp"))
    state["train_torchmetrics.num_tokens.count"] = torch.tensor(5)
    moments = {
        i: {"step": torch.tensor(3.0), "exp_avg": value * 0, "exp_avg_sq": value * 0}
        for i, value in enumerate(state.values())
    }
    return {
        "epoch": 3,
        "global_step": 100,
        "pytorch-lightning_version": "1.8.6",
        "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val/loss'}": {"best_model_score": None}},
        "optimizer_states": [{"state": moments, "param_groups": [{"lr": 6e-4}]}],
        "lr_schedulers": [],
        "hyper_parameters": hyper_parameters or {},
    }


def write_lightning(folder: Path, model: HyenaDNA, value: Any, **layer: Any) -> Path:
    """A folder as the original repositories are."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(original_config(model.config, **layer)))
    torch.save(value, folder / "weights.ckpt", pickle_protocol=2)
    return folder


def torch_zip(path: Path, pickled: bytes | Any, records: dict[str, bytes] | None = None) -> Path:
    """A torch zip file around any pickle, by hand: what an attacker would make."""
    import zipfile

    data = pickled if isinstance(pickled, bytes) else pickle.dumps(pickled, protocol=2)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        for name, raw in (records or {}).items():
            archive.writestr(f"archive/data/{name}", raw)
        archive.writestr("archive/version", b"3\n")
    return path
