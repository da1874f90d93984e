"""Small models and folders for the tests of `hyenadna.transformers`, made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import hyenadna
from hyenadna.config import ModelConfig
from hyenadna.model.backbone import HyenaDNA

GOLDEN = ("base_o2", "deep_emb9", "order3")


def small_config(**changes: Any) -> ModelConfig:
    """Two layers of width 8, 34 tokens, no dropout."""
    base = ModelConfig(
        d_model=8, n_layer=2, d_inner=12, max_seq_len=34, filter_order=6, embed_dropout=0.0
    )
    return base.replace(**changes)


def loud(model: nn.Module, seed: int = 0) -> Any:
    """The model with every parameter drawn so that each of them shows in the logits."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5 + 0.1)
    return model.eval()


def small_model(seed: int = 0, **changes: Any) -> HyenaDNA:
    """A model of ours with loud weights."""
    model: HyenaDNA = loud(HyenaDNA(small_config(**changes)), seed)
    return model


def bases(*shape: int, seed: int = 1) -> Tensor:
    """Random ids 7..10."""
    return torch.randint(7, 11, shape, generator=torch.Generator().manual_seed(seed))


def published_folder(folder: Path, model: HyenaDNA, **fields: Any) -> None:
    """A folder as the `-hf` repositories are: no fields of ours, `auto_map`, tokenizer files."""
    hyenadna.save(model, folder)
    values = json.loads((folder / "config.json").read_text())
    for own in ("mixer", "window_shift", "num_heads", "resid_dropout"):
        del values[own]
    values["auto_map"] = {
        "AutoConfig": "configuration_hyena.HyenaConfig",
        "AutoModel": "modeling_hyena.HyenaDNAModel",
        "AutoModelForCausalLM": "modeling_hyena.HyenaDNAForCausalLM",
        "AutoModelForSequenceClassification": "modeling_hyena.HyenaDNAForSequenceClassification",
    }
    (folder / "config.json").write_text(json.dumps(values | fields))
    tokenizer = {
        "auto_map": {"AutoTokenizer": ["tokenization_hyena.HyenaDNATokenizer", None]},
        "tokenizer_class": "HyenaDNATokenizer",
        "characters": ["A", "C", "G", "T", "N"],
        "add_special_tokens": False,
        "model_max_length": model.config.max_seq_len,
        "padding_side": "left",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))


def edit_tensors(folder: Path, change: Any) -> dict[str, Tensor]:
    """Rewrite a folder's `model.safetensors` with what `change(tensors)` returns."""
    file = folder / "model.safetensors"
    tensors: dict[str, Tensor] = change(load_file(file))
    save_file(tensors, file, metadata={"format": "pt"})
    return tensors
