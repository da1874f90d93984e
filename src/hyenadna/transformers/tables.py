"""What a file of the Hugging Face layout holds besides parameters, and how it comes in and out.

z, t and deltas follow from the configuration; published files store them, and a fine-tuned z may
differ from its formula (`hyenadna.model.filter`). The shared sine frequency stands in a filter
under several names and in a file under the first. The loaders of `transformers` and torch know
neither, so each filter gets two hooks, and a model that is about to be loaded gets empty tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hyenadna.checkpoint.layouts import TABLES, first_freq, is_freq_copy
from hyenadna.checkpoint.reading import rounding
from hyenadna.config import ModelConfig
from hyenadna.model.filter import ImplicitFilter, filters


def all_tables(model: nn.Module) -> dict[str, Tensor]:
    """z, t and deltas of every filter by their full names, each in memory of its own."""
    return {
        f"{prefix}.{table}": value.clone()
        for prefix, filter_fn in filters(model).items()
        for table, value in filter_fn.tables().items()
    }


def attach_hooks(model: nn.Module, config: ModelConfig) -> None:
    """Make `state_dict` leave out, and `load_state_dict` do without, copies of the frequency.

    Tables in a loaded state are kept where they differ from their formula.
    """
    for filter_fn in filters(model).values():
        filter_fn.register_state_dict_post_hook(_leave_out_copies)
        filter_fn.register_load_state_dict_pre_hook(_Incoming(rounding(config)))


def expect_tables(model: nn.Module) -> None:
    """Give every filter empty tables without memory, which the library's loader fills."""
    # the library builds a model under `torch.device("meta")`, where the formulas cannot be computed
    with torch.device("cpu"):
        for filter_fn in filters(model).values():
            for name, value in filter_fn.tables().items():
                empty = torch.empty(value.shape, dtype=torch.float32, device="meta")
                filter_fn.keep_table(name, empty)  # float32 whatever the type being loaded


def mark_absent(module: nn.Module) -> None:
    """Write NaN into the tables that this very module holds and that no file filled."""
    for name, buffer in module.named_buffers(recurse=False):
        is_table = any(table.endswith(f".{name}") for table in TABLES)
        if is_table and not buffer.is_meta and not getattr(buffer, "_is_hf_initialized", False):
            buffer.fill_(torch.nan)


def settle_tables(model: nn.Module, config: ModelConfig) -> None:
    """Keep only the tables that a file held and that differ from their formula."""
    for filter_fn in filters(model).values():
        held = filter_fn.stored()
        for name in held:
            _drop(filter_fn, name)
        formula = filter_fn.tables()
        for name, value in held.items():
            absent = value.is_meta or bool(value.isnan().any())
            if not absent and _differs(value, formula[name], rounding(config)):
                filter_fn.keep_table(name, value)


def _differs(value: Tensor, formula: Tensor, tolerance: float) -> bool:
    return value.shape != formula.shape or not torch.allclose(
        value.to(formula), formula, rtol=0, atol=tolerance
    )


def _drop(filter_fn: ImplicitFilter, name: str) -> None:
    room, _, key = name.partition(".")
    delattr(filter_fn.get_submodule(room), key)


def _leave_out_copies(
    module: nn.Module, state: dict[str, Any], prefix: str, local_metadata: Any
) -> None:
    for name in [n for n in state if n.startswith(prefix) and is_freq_copy(n)]:
        del state[name]


@dataclass(frozen=True)
class _Incoming:
    """Fits a state that is being loaded into a filter (a class, so that it can be pickled)."""

    tolerance: float

    def __call__(
        self,
        module: nn.Module,
        state: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing: list[str],
        unexpected: list[str],
        errors: list[str],
    ) -> None:
        assert isinstance(module, ImplicitFilter)
        names = [prefix + n for n, _ in module.named_parameters(remove_duplicate=False)]
        for name in filter(is_freq_copy, names):
            if first_freq(name) in state:
                state.setdefault(name, state[first_freq(name)])
        self._take_tables(module, state, prefix)

    def _take_tables(self, module: ImplicitFilter, state: dict[str, Any], prefix: str) -> None:
        held = {n for n, _ in module.named_buffers() if n in TABLES}
        for name in TABLES:
            value = state.get(prefix + name)
            if value is None:
                continue
            if name in held:
                _drop(module, name)
            formula = module.tables()[name]
            if _differs(value, formula, self.tolerance):
                if value.shape == formula.shape:  # another shape is torch's error to report
                    module.keep_table(name, value.to(formula))
            else:
                del state[prefix + name]
