"""A checkpoint from one published layout into another."""

from __future__ import annotations

from dataclasses import replace as changed
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from hyenadna.checkpoint.config_file import flat_values, original_values
from hyenadna.checkpoint.folder import replace
from hyenadna.checkpoint.layouts import EMBEDDINGS, HEAD, file_name, permute_channels
from hyenadna.checkpoint.load import LoadReport, load_with_report
from hyenadna.checkpoint.reading import Reading, all_tables, open_checkpoint
from hyenadna.checkpoint.safetensors_file import Entry, write_model
from hyenadna.checkpoint.save import SHARD_BYTES, hf_entries, our_tensors, write_json
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA


def convert(
    source: str | Path,
    target: str | Path,
    *,
    layout: Literal["hf", "training"] = "hf",
    window_shift: float | None = None,
    tables: bool = True,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> LoadReport:
    """Write the checkpoint `source` as the folder `target`; returns what was read.

    source: whatever `hyenadna.checkpoint.load` reads. layout: `hf` for `config.json` and
    `model.safetensors`, `training` for the original's `config.json` and `weights.ckpt`. tables,
    shard_bytes: see `save` (the training layout always has tables, and one file). The other
    arguments are those of `load`.

    To `hf` the tensors pass one after the other, in float32, so that a model may be larger than the
    memory. A task head in the source is not carried over; it stands in the report.

    Raises InputError as `load` and `save` do, and for a model that the training layout cannot hold.
    """
    if layout not in ("hf", "training"):
        raise InputError(f"convert: layout is {layout!r}; it is 'hf' or 'training'")
    if layout == "training":
        model, report = load_with_report(
            source, window_shift=window_shift, revision=revision, cache_dir=cache_dir
        )
        save_training(model, target)
        return report
    with open_checkpoint(
        source, window_shift=window_shift, revision=revision, cache_dir=cache_dir
    ) as reading:
        return _stream(reading, Path(target), tables=tables, shard_bytes=shard_bytes)


def _stream(reading: Reading, target: Path, *, tables: bool, shard_bytes: int) -> LoadReport:
    """Write what is read as `save` would write the model of it."""
    config, kept = reading.config, reading.kept_tables()
    values = flat_values(config, torch_dtype="float32")
    ours = {name: _entry(reading, name) for name in reading.report.matched}
    if HEAD not in ours:
        ours[HEAD] = _entry(reading, EMBEDDINGS)
    held = all_tables(config) | kept if tables else kept
    ours |= {name: Entry.of(table) for name, table in held.items()}

    def fill(fresh: Path) -> None:
        write_json(fresh / "config.json", values)
        write_model(fresh, hf_entries(ours), shard_bytes=shard_bytes)

    replace(target, fill)
    return changed(reading.report, kept_tables=tuple(kept))


def _entry(reading: Reading, name: str) -> Entry:
    """A parameter that is read when its turn to be written has come."""
    return Entry(reading.expected[name], torch.float32, partial(reading.read, name))


def save_training(model: HyenaDNA, folder: str | Path) -> None:
    """Write the original's nested `config.json` and a `weights.ckpt` with `model.` names.

    The file holds `{"state_dict": ...}`, the part of a Lightning checkpoint that the original's
    loaders read, with the filter channels in the training repository's order, every copy of the
    shared frequency, and z, t and deltas.

    Raises InputError for an attention model and for one whose head is not its token table, which
    that code always ties, and as `hyenadna.checkpoint.folder.replace` does.
    """
    config = model.config
    values = original_values(config)
    if not torch.equal(model.head_weight, model.backbone.embeddings.word_embeddings.weight):
        raise InputError(
            "convert: the head differs from the token table, and the training code ties them; "
            "convert to 'hf'"
        )
    tensors = {
        file_name(name, "training"): permute_channels(
            name, value.to("cpu", copy=True), config, to="training"
        )
        for name, value in our_tensors(model, tables=True).items()
    }

    def fill(fresh: Path) -> None:
        write_json(fresh / "config.json", values)
        with (fresh / "weights.ckpt").open("wb") as file:
            torch.save({"state_dict": tensors}, file)

    replace(Path(folder), fill)
