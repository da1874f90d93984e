"""A model to disk in the Hugging Face layout, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from hyenadna.checkpoint.config_file import flat_values
from hyenadna.checkpoint.folder import replace
from hyenadna.checkpoint.layouts import HEAD, file_name, is_freq_copy
from hyenadna.checkpoint.load import filters
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA

_OWN_FILES = ("config.json", "model.safetensors")


def save(
    model: HyenaDNA,
    folder: str | Path,
    *,
    tables: bool = True,
    extra_files: Mapping[str, bytes | str] | None = None,
) -> None:
    """Write `config.json` and `model.safetensors` as the published loaders read them.

    folder: made, or replaced if it is a checkpoint; the old one stands until the new one is on disk
    (see `hyenadna.checkpoint.folder`). tables: also write z, t and deltas, which published loaders
    demand; without them only those that differ from their formula are written, which our `load`
    needs. At 1M tokens they are 88 % of the file. extra_files: more files by name, as bytes or
    text, in the same folder.

    The head is always written as `lm_head.weight`, also when it is tied to the token table: loaders
    that never tie then find it, those that tie (`tie_word_embeddings` says what the model is) see
    the same values. The shared sine frequency is written once, as the published files have it.

    The published code computes with a window shift of 0.05 and order 2 only, whatever `config.json`
    says; a model with other values is read back right by this package alone.

    Raises InputError when the folder must not be replaced, a name of `extra_files` is no plain file
    name, or the disk is full or not writable.
    """
    extra = dict(extra_files or {})
    for name in extra:
        if not name or Path(name).name != name or name in (*_OWN_FILES, ".", ".."):
            raise InputError(f"save: extra file {name!r}; give a plain file name, not {_OWN_FILES}")

    def fill(fresh: Path) -> None:
        dtype = str(model.head_weight.dtype).removeprefix("torch.")
        write_json(fresh / "config.json", flat_values(model.config, torch_dtype=dtype))
        write_safetensors(fresh / "model.safetensors", hf_tensors(model, tables=tables))
        for name, content in extra.items():
            raw = content.encode() if isinstance(content, str) else content
            (fresh / name).write_bytes(raw)

    replace(Path(folder), fill)


def our_tensors(model: HyenaDNA, *, tables: bool) -> dict[str, Tensor]:
    """All tensors of a model by our names: parameters with a head, and tables.

    tables: all of them, not only those that differ from their formula.
    """
    tensors = {name: value.detach() for name, value in model.state_dict().items()}
    tensors[HEAD] = model.head_weight.detach()
    if tables:
        for prefix, filter_fn in filters(model).items():
            tensors |= {f"{prefix}.{table}": v for table, v in filter_fn.tables().items()}
    return tensors


def hf_tensors(model: HyenaDNA, *, tables: bool) -> dict[str, Tensor]:
    """The content of `model.safetensors`: names of the Hugging Face layout, own memory each."""
    return {
        # safetensors refuses tensors that share memory, as tied heads and common tables do
        file_name(name, "hf"): value.to("cpu", copy=True).contiguous()
        for name, value in our_tensors(model, tables=tables).items()
        if not is_freq_copy(name)
    }


def write_json(path: Path, values: Mapping[str, object]) -> None:
    """Write a JSON object, one field a line."""
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def write_safetensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors; raises OSError when the disk is full or not writable."""
    try:
        with torch.no_grad():
            save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(str(error)) from error
