"""A model from any published or own checkpoint, with an account of what was done.

Nothing of a file is run, nothing stays silently at random, and no tensor is passed over silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from hyenadna.checkpoint import hub
from hyenadna.checkpoint.config_file import model_block, model_config, read_config
from hyenadna.checkpoint.files import CheckpointFiles, Stored, find_files, open_tensors
from hyenadna.checkpoint.folder import standing
from hyenadna.checkpoint.layouts import (
    EMBEDDINGS,
    HEAD,
    TABLES,
    Layout,
    channel_axis,
    detect_layout,
    first_freq,
    is_freq_copy,
    our_names,
    permute_channels,
)
from hyenadna.config import ModelConfig
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.filter import ImplicitFilter

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class LoadReport:
    """What a load did; names are ours, in `unexpected` and `ignored` those of the file."""

    source: str
    """The file or folder that was read."""
    layout: Layout
    """Whose names it carried: hf, training or standalone."""
    config: ModelConfig
    matched: tuple[str, ...] = ()
    """Parameters taken from the file."""
    missing: tuple[str, ...] = ()
    """Parameters that the file lacks and that hold fresh random values (only with strict=False)."""
    unexpected: tuple[str, ...] = ()
    """Tensors of the file that the model has no place for."""
    permuted: tuple[str, ...] = ()
    """Tensors whose channels were put from the training repository's order into ours."""
    ignored: tuple[str, ...] = ()
    """What belongs to the training, such as counters."""
    kept_tables: tuple[str, ...] = ()
    """Tables z, t, deltas that differ from their formula and were kept as stored."""
    task_head: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors of a task head in the file (`score.weight`, `decoder.*`); this model has none."""
    tied: bool = True
    """Whether the language-model head is the token table."""

    def summary(self) -> str:
        """A few lines for people."""
        c = self.config
        mixer = f"order {c.hyena_order}" if c.mixer == "hyena" else "attention"
        lines = [
            f"{self.source} ({self.layout} layout)",
            f"  {c.n_layer} layers of width {c.d_model}, {mixer}, up to {c.max_seq_len:,} tokens, "
            f"window shift {c.window_shift:g}",
            f"  {len(self.matched)} parameters read, "
            f"head {'tied to the token table' if self.tied else 'of its own'}",
        ]
        lists = {
            "left at random": self.missing,
            "without a place": self.unexpected,
            "permuted to our channel order": self.permuted,
            "tables kept as stored": self.kept_tables,
            "task head, not in this model": tuple(self.task_head),
            "ignored": self.ignored,
        }
        lines += [f"  {what}: {_some(names)}" for what, names in lists.items() if names]
        return "\n".join(lines)


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
    file with `config.json` beside it, or the name of a published model such as `tiny-1k` (see
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
    files = locate(name_or_path, revision=revision, cache_dir=cache_dir)
    source = str(files.weights[0] if len(files.weights) == 1 else files.weights[0].parent)
    with open_tensors(files.weights) as stored:
        config = _config(files, stored, source, window_shift)
        plan = _Plan.make(config, stored, source)
        plan.check(strict=strict)
        model, tables = plan.build(dtype or torch.float32)
    model.to(device=device)
    _keep_tables(model, tables)
    report = replace(plan.report, kept_tables=tuple(tables))
    return model.eval(), report


def locate(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
) -> CheckpointFiles:
    """The files of a checkpoint by path or published name, downloaded if need be.

    Raises InputError when there is none.
    """
    path = Path(name_or_path).expanduser()
    if path.is_file() or standing(path) is not None:
        return find_files(path)
    name = str(name_or_path)
    if hub.repositories(name):
        return find_files(hub.fetch(name, revision=revision, cache_dir=cache_dir))
    raise hub.unknown_name(name)


def _config(
    files: CheckpointFiles, stored: Stored, source: str, window_shift: float | None
) -> ModelConfig:
    if files.config is not None:
        return read_config(files.config, window_shift=window_shift)
    block = model_block(stored.extra.get("hyper_parameters"))
    if block is not None:
        return model_config(block, source=source, window_shift=window_shift)
    raise InputError(f"{source}: no config.json beside it, and none inside; put it there")


@dataclass
class _Plan:
    """Which tensor of the file goes where."""

    stored: Stored
    names: dict[str, str]
    """Our name -> name in the file, of what the model has a place for, tables included."""
    expected: dict[str, tuple[int, ...]]
    """Our name -> shape, of every parameter, the shared frequency under its first name only."""
    report: LoadReport

    @classmethod
    def make(cls, config: ModelConfig, stored: Stored, source: str) -> _Plan:
        layout = detect_layout(stored.tensors)
        names = our_names(stored.tensors, layout)
        config, ours = _settle_head(config, names.ours, stored)
        ours = _merge_freq(ours, stored, source)
        expected, tables = _shapes(config)
        known = {name: key for name, key in ours.items() if name in expected or name in tables}
        report = LoadReport(
            source=source,
            layout=layout,
            config=config,
            matched=tuple(name for name in expected if name in ours),
            missing=tuple(name for name in expected if name not in ours),
            unexpected=tuple(key for name, key in ours.items() if name not in known),
            permuted=_permuted(known, config, layout),
            ignored=names.ignored + stored.ignored,
            task_head={key: stored.tensors[key].materialize() for key in names.task_head},
            tied=config.tie_word_embeddings,
        )
        return cls(stored, known, expected | tables, report)

    def check(self, *, strict: bool) -> None:
        """Raise InputError for shapes that differ and, if strict, for names that do not match."""
        source = self.report.source
        wrong = [
            f"{name} is {tuple(self.stored.tensors[key].shape)} but the configuration makes it "
            f"{self.expected[name]}"
            for name, key in self.names.items()
            if tuple(self.stored.tensors[key].shape) != self.expected[name]
        ]
        if wrong:
            raise InputError(f"{source}: {_some(wrong, '; ')}. Is config.json of another model?")
        if strict and self.report.missing:
            raise InputError(
                f"{source}: {len(self.report.missing)} parameters are missing: "
                f"{_some(self.report.missing)}; strict=False leaves them at random"
            )
        if strict and self.report.unexpected:
            raise InputError(
                f"{source}: {len(self.report.unexpected)} tensors have no place in the model that "
                f"config.json describes: {_some(self.report.unexpected)}; "
                "strict=False leaves them out"
            )

    def build(self, dtype: torch.dtype) -> tuple[HyenaDNA, dict[str, Tensor]]:
        """The model with the parameters of the file, and the tables to keep by their names."""
        config = self.report.config
        # without random numbers where none are needed: faster, and the caller's generator stays
        with torch.device("cpu" if self.report.missing else "meta"):
            model = HyenaDNA(config)
        model.to(dtype)
        values = {name: self._read(name).to(dtype) for name in self.report.matched}
        with torch.no_grad():
            _assign(model, values)
        _fill_constants(model)
        return model, self._tables_to_keep(model)

    def _read(self, name: str) -> Tensor:
        key = self.names[name]
        tensor = self.stored.tensors[key].materialize()
        if tensor.dtype not in _FLOATS:
            raise InputError(f"{self.report.source}: {key} holds {tensor.dtype}, no real numbers")
        if self.report.layout == "training":
            tensor = permute_channels(name, tensor, self.report.config, to="ours")
        return tensor

    def _tables_to_keep(self, model: HyenaDNA) -> dict[str, Tensor]:
        """Stored tables that are not what the formula gives, to more than rounding."""
        config, kept = self.report.config, {}
        for prefix, filter_fn in filters(model).items():
            formula = filter_fn.tables()
            for table in TABLES:
                name = f"{prefix}.{table}"
                expected = formula[table]
                if name in self.names:
                    value = self._read(name).float()
                elif self.report.layout == "training":
                    # the formula runs over the channels in that layout's own order
                    value = permute_channels(name, expected, config, to="ours")
                else:
                    continue
                if not torch.allclose(value, expected, rtol=0, atol=rounding(config)):
                    kept[name] = value
        return kept


def rounding(config: ModelConfig) -> float:
    """The largest difference that float32 rounding makes in a table of this configuration.

    The reference computes angles up to 2 pi times the highest of the (E-1)/2 frequencies in
    float32: 5e-7 per 2 pi, doubled here twice. One step of the optimizer at the learning rate that
    z can have (1e-5) is more than that, and rounding to half precision (2e-4) far more.
    """
    return 2e-6 * max(2, (config.emb_dim - 1) // 2)


def filters(model: nn.Module) -> dict[str, ImplicitFilter]:
    """The implicit filters of a model by their names; none in an attention model."""
    return {n: m for n, m in model.named_modules() if isinstance(m, ImplicitFilter)}


def _shapes(
    config: ModelConfig,
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Shapes of the parameters, and of the tables, by our names."""
    with torch.device("meta"):
        model = HyenaDNA(config)
    parameters = {n: tuple(p.shape) for n, p in model.state_dict().items() if not is_freq_copy(n)}
    m, e, c = config.max_seq_len, config.emb_dim, config.filter_channels
    shapes: dict[str, tuple[int, ...]]
    shapes = dict(zip(TABLES, ((1, m, e), (1, m, 1), (1, 1, c)), strict=True))
    tables = {f"{p}.{t}": shape for p in filters(model) for t, shape in shapes.items()}
    return parameters, tables


def _settle_head(
    config: ModelConfig, ours: dict[str, str], stored: Stored
) -> tuple[ModelConfig, dict[str, str]]:
    """Whether the head is tied: as the file has it, whatever its configuration says.

    Without a stored head it is tied. A tied model whose stored head differs from the token table is
    not tied. An equal head stays a matrix of its own where the configuration wants one.
    """
    if HEAD not in ours:
        return config.replace(tie_word_embeddings=True), ours
    if not config.tie_word_embeddings or EMBEDDINGS not in ours:
        return config, ours
    head, table = (stored.tensors[ours[name]].materialize() for name in (HEAD, EMBEDDINGS))
    if torch.equal(head, table):
        return config, {name: key for name, key in ours.items() if name != HEAD}
    return config.replace(tie_word_embeddings=False), ours


def _merge_freq(ours: dict[str, str], stored: Stored, source: str) -> dict[str, str]:
    """The names with the shared frequency under its first name only.

    Raises InputError when copies of it differ, which no model of ours can hold.
    """
    merged = {name: key for name, key in ours.items() if not is_freq_copy(name)}
    for name, key in ours.items():
        if not is_freq_copy(name):
            continue
        first = merged.setdefault(first_freq(name), key)
        if first != key and not torch.equal(
            stored.tensors[first].materialize(), stored.tensors[key].materialize()
        ):
            raise InputError(
                f"{source}: {first} and {key} differ; the sine layers of a filter share one "
                "frequency in HyenaDNA"
            )
    return merged


def _permuted(names: Mapping[str, str], config: ModelConfig, layout: Layout) -> tuple[str, ...]:
    if layout != "training" or config.hyena_order == 2:
        return ()
    return tuple(name for name in names if channel_axis(name, config) is not None)


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


def _some(names: tuple[str, ...] | list[str], between: str = ", ") -> str:
    """The first few names and how many more there are."""
    shown = between.join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
