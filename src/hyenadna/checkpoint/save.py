"""A model to disk in the Hugging Face layout, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from torch import Tensor

from hyenadna.checkpoint.config_file import flat_values
from hyenadna.checkpoint.folder import replace
from hyenadna.checkpoint.layouts import HEAD, file_name, is_freq_copy
from hyenadna.checkpoint.safetensors_file import (
    INDEX,
    Content,
    Entry,
    write_content,
    write_model,
)
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.filter import filters

_OWN_FILES = ("config.json", "model.safetensors", INDEX)
SHARD_BYTES: Final = 5 * 10**9
"""Longest weight file: a larger model is written as several, as Hugging Face libraries do."""


def save(
    model: HyenaDNA,
    folder: str | Path,
    *,
    tables: bool = True,
    extra_files: Mapping[str, Content] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write `config.json` and `model.safetensors` as the published loaders read them.

    folder: made, or replaced if it is a checkpoint; the old one stands until the new one is on disk
    (see `hyenadna.checkpoint.folder`). tables: also write z, t and deltas, which published loaders
    demand; without them only those that differ from their formula are written, which our `load`
    needs. At 1M tokens they are 88 % of the file. extra_files: more files by name, as bytes,
    text or tensors, in the same folder. shard_bytes: longest weight file; a
    larger model is written as several with an index, `model.safetensors.index.json`.

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
        tensors = our_tensors(model, tables=tables)
        entries = hf_entries({name: Entry.of(tensor) for name, tensor in tensors.items()})
        write_model(fresh, entries, shard_bytes=shard_bytes)
        for name, content in extra.items():
            write_content(fresh / name, content)

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


def hf_entries(ours: Mapping[str, Entry]) -> dict[str, Entry]:
    """The content of the weight files in the Hugging Face layout, of tensors by our names."""
    return {file_name(name, "hf"): e for name, e in ours.items() if not is_freq_copy(name)}


def write_json(path: Path, values: Mapping[str, object]) -> None:
    """Write a JSON object, one field a line."""
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
