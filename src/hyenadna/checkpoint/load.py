"""A model from any published or own checkpoint, with an account of what was done.

Nothing of a file is run, nothing stays silently at random, and no tensor is passed over silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from hyenadna.checkpoint.layouts import TABLES, first_freq, is_freq_copy
from hyenadna.checkpoint.reading import (
    LoadReport,
    Reading,
    open_checkpoint,
)
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.filter import filters
from hyenadna.model.parallel.parts import put


def load(
    name_or_path: str | Path,
    *,
    window_shift: float | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    strict: bool = True,
) -> HyenaDNA:
    """The model of a checkpoint, in evaluation mode.

    name_or_path: a folder with `config.json` and weights in the Hugging Face or the original
    layout, a run folder of ours (its `best`, else its `last`), a `.safetensors`, `.ckpt` or `.bin`
    file with `config.json` beside it, the name of a model that comes with the package such as
    `starter-1k` (see `hyenadna.shipped`), or of a published one such as `tiny-1k` (see
    `hyenadna.checkpoint.hub`). window_shift: instead of the checkpoint's own, which is 0.05 unless
    its configuration says otherwise. dtype: of the parameters, float32 when left out; tables stay
    float32. revision, cache_dir: for a published name. strict: whether parameters that the file
    lacks, or that the model has no place for, are an error.

    Raises InputError for an unknown name, a checkpoint that cannot be read or trusted, and tensors
    that are missing, left over (both with strict) or of another shape (always).
    """
    model, _ = load_with_report(
        name_or_path,
        window_shift=window_shift,
        device=device,
        dtype=dtype,
        revision=revision,
        cache_dir=cache_dir,
        strict=strict,
    )
    return model


def load_with_report(
    name_or_path: str | Path,
    *,
    window_shift: float | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    strict: bool = True,
) -> tuple[HyenaDNA, LoadReport]:
    """The model of a checkpoint and what was done; arguments and errors of `load`."""
    with open_checkpoint(
        name_or_path,
        window_shift=window_shift,
        revision=revision,
        cache_dir=cache_dir,
        strict=strict,
    ) as reading:
        model = _build(reading, dtype or torch.float32, torch.device(device))
        tables = reading.kept_tables()
    _keep_tables(model, tables)
    report = replace(reading.report, kept_tables=tuple(tables))
    return model.eval(), report


def fill(model: HyenaDNA, reading: Reading) -> None:
    """Give a model of the reading's configuration the weights of a checkpoint, in place.

    Its parameters may lie in parts on several ranks: each then reads its own rows only. Raises
    InputError as `load` does.
    """
    for name, parameter in model.named_parameters():
        put(parameter, partial(reading.rows, name))
    _keep_tables(model, reading.kept_tables())


def _build(reading: Reading, dtype: torch.dtype, device: torch.device) -> HyenaDNA:
    """The model with the parameters of the checkpoint."""
    # without random numbers where none are needed: faster, and the caller's generator stays
    with torch.device("cpu" if reading.report.missing else "meta"):
        model = HyenaDNA(reading.config)
    model.to(dtype)
    # what is read becomes the model's memory: there is no second copy
    values = {n: reading.read(n).to(device=device, dtype=dtype) for n in reading.report.matched}
    _assign(model, values)
    _fill_constants(model)
    return model.to(device=device)


def _assign(model: HyenaDNA, values: dict[str, Tensor]) -> None:
    """Put the values in place, a shared parameter under each of its names."""
    complete = dict(values)
    for name in model.state_dict():
        if is_freq_copy(name) and first_freq(name) in values:
            complete[name] = values[first_freq(name)]
    model.load_state_dict(complete, strict=False, assign=True)


def _fill_constants(model: HyenaDNA) -> None:
    """Untrained frequencies are in no file; give them their values where only shapes were made."""
    for module in model.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_meta and name == "freq":
                value = torch.full(buffer.shape, float(model.config.activation_freq))
                module.register_buffer(name, value, persistent=False)
    left = [n for n, t in [*model.named_parameters(), *model.named_buffers()] if t.is_meta]
    if left:
        raise RuntimeError(f"no values for {left}")


def _keep_tables(model: HyenaDNA, tables: Mapping[str, Tensor]) -> None:
    """Hand stored tables to their filters in float32, whatever the type of the model."""
    for prefix, filter_fn in filters(model).items():
        for table in TABLES:
            if (value := tables.get(f"{prefix}.{table}")) is not None:
                filter_fn.keep_table(table, value.to(filter_fn.bias.device))
