"""What a checkpoint holds for a model of ours: which tensor of its files goes where.

Nothing of a file is run, and no tensor is passed over silently; each is read when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

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
from hyenadna.model.filter import decay_rates, lag_features
from hyenadna.shipped import shipped_folder, shipped_names

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


def locate(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
) -> CheckpointFiles:
    """The files of a checkpoint by path, or by name: of the package's own, or a published one.

    A published one is downloaded if need be.

    Raises InputError when there is none.
    """
    path = Path(name_or_path).expanduser()
    if path.is_file() or standing(path) is not None:
        return find_files(path)
    name = str(name_or_path)
    if name in shipped_names():
        return find_files(shipped_folder(name))
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


@contextmanager
def open_checkpoint(
    name_or_path: str | Path,
    *,
    window_shift: float | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    strict: bool = True,
) -> Iterator[Reading]:
    """An open checkpoint, checked; arguments and errors of `hyenadna.checkpoint.load.load`."""
    files = locate(name_or_path, revision=revision, cache_dir=cache_dir)
    source = str(files.weights[0] if len(files.weights) == 1 else files.weights[0].parent)
    with open_tensors(files.weights) as stored:
        config = _config(files, stored, source, window_shift)
        reading = Reading.make(config, stored, source)
        reading.check(strict=strict)
        yield reading


@dataclass
class Reading:
    """Which tensor of an open checkpoint goes where; names are ours."""

    stored: Stored
    names: dict[str, str]
    """Our name -> name in the file, of what the model has a place for, tables included."""
    expected: dict[str, tuple[int, ...]]
    """Our name -> shape, of every parameter, the shared frequency under its first name only."""
    report: LoadReport

    @classmethod
    def make(cls, config: ModelConfig, stored: Stored, source: str) -> Reading:
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

    @property
    def config(self) -> ModelConfig:
        """The model's configuration, with the head tied or not as the tensors are."""
        return self.report.config

    def read(self, name: str) -> Tensor:
        """A parameter or stored table, in our order of channels.

        Raises InputError where it cannot be read or is not of real numbers.
        """
        tensor = self._real(self.stored.tensors[self.names[name]].materialize(), name)
        return permute_channels(name, tensor, self.config, to="ours") if self._moved else tensor

    def rows(self, name: str, rows: slice) -> Tensor:
        """Rows of what `read` gives; no others are read, where the file allows it."""
        if self._moved and channel_axis(name, self.config) is not None:
            return self.read(name)[rows]
        return self._real(self.stored.tensors[self.names[name]].rows(rows), name)

    def kept_tables(self) -> dict[str, Tensor]:
        """Stored tables that are not what the formula gives, to more than rounding; float32."""
        if self.config.mixer != "hyena":
            return {}
        formula, kept = table_formulas(self.config), {}
        for name in _table_names(self.config):
            expected = formula[_table_of(name)]
            if name in self.names:
                value = self.read(name).float()
            elif self._moved:
                # the formula runs over the channels in that layout's own order
                value = permute_channels(name, expected, self.config, to="ours")
            else:
                continue
            if not torch.allclose(value, expected, rtol=0, atol=rounding(self.config)):
                kept[name] = value
        return kept

    @property
    def _moved(self) -> bool:
        """Whether filter channels may be in another order than ours."""
        return self.report.layout == "training"

    def _real(self, tensor: Tensor, name: str) -> Tensor:
        if tensor.dtype not in _FLOATS:
            key = self.names[name]
            raise InputError(f"{self.report.source}: {key} holds {tensor.dtype}, no real numbers")
        return tensor


def table_formulas(config: ModelConfig) -> dict[str, Tensor]:
    """The tables of every filter of a model by their names in it, as the configuration gives them.

    Float32, on the CPU; shapes as `ImplicitFilter.tables` says.
    """
    cpu = torch.device("cpu")
    scale = config.lag_scale or config.max_seq_len
    z, t = lag_features(config.max_seq_len, config.emb_dim, cpu, scale)
    return dict(zip(TABLES, (z, t, decay_rates(config.filter_channels)), strict=True))


def all_tables(config: ModelConfig) -> dict[str, Tensor]:
    """The tables of all filters by our names, as `table_formulas` has them; none for attention."""
    if config.mixer != "hyena":
        return {}
    formula = table_formulas(config)  # one memory for all filters
    return {name: formula[_table_of(name)] for name in _table_names(config)}


def _table_names(config: ModelConfig) -> list[str]:
    """Of all tables of all filters."""
    prefixes = (f"backbone.layers.{i}.mixer.filter_fn" for i in range(config.n_layer))
    return [f"{prefix}.{table}" for prefix in prefixes for table in TABLES]


def _table_of(name: str) -> str:
    return name.rpartition(".filter_fn.")[2]


def rounding(config: ModelConfig) -> float:
    """The largest difference that float32 rounding makes in a table of this configuration.

    The reference computes angles up to 2 pi times the highest of the (E-1)/2 frequencies in
    float32: 5e-7 per 2 pi, doubled here twice. One step of the optimizer at the learning rate that
    z can have (1e-5) is more than that, and rounding to half precision (2e-4) far more.
    """
    return 2e-6 * max(2, (config.emb_dim - 1) // 2)


def _shapes(
    config: ModelConfig,
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Shapes of the parameters, and of the tables, by our names."""
    with torch.device("meta"):
        model = HyenaDNA(config)
    parameters = {n: tuple(p.shape) for n, p in model.state_dict().items() if not is_freq_copy(n)}
    if config.mixer != "hyena":
        return parameters, {}
    m, e, c = config.max_seq_len, config.emb_dim, config.filter_channels
    shapes: dict[str, tuple[int, ...]]
    shapes = dict(zip(TABLES, ((1, m, e), (1, m, 1), (1, 1, c)), strict=True))
    return parameters, {name: shapes[_table_of(name)] for name in _table_names(config)}


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


def _some(names: tuple[str, ...] | list[str], between: str = ", ") -> str:
    """The first few names and how many more there are."""
    shown = between.join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
