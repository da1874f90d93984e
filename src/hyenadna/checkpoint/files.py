"""The files of a checkpoint: where they are, and their tensors, each read when it is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from hyenadna.checkpoint.folder import standing
from hyenadna.checkpoint.pieces import PIECES, in_pieces, joined, piece_files
from hyenadna.checkpoint.safetensors_file import INDEX, SafetensorsFile
from hyenadna.checkpoint.torch_file import LazyTensor, TorchFile
from hyenadna.errors import InputError

_WEIGHTS = (
    "model.safetensors",
    INDEX,
    PIECES,
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "weights.ckpt",
)
_RUN_CHECKPOINTS = ("best", "last")


class StoredTensor(Protocol):
    """A tensor that lies in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, known without reading it."""

    def materialize(self) -> Tensor:
        """The tensor, read now."""

    def rows(self, rows: slice) -> Tensor:
        """Some of its rows (start and stop within it), read now."""


@dataclass(frozen=True)
class CheckpointFiles:
    """config: the `config.json`, if there is one. weights: one file, or its shards."""

    config: Path | None
    weights: tuple[Path, ...]


@dataclass(frozen=True)
class Stored:
    """The open content of a checkpoint: tensors by name in the file, what else a torch file holds
    (epoch, hyper_parameters, ...), and names that were passed over."""

    tensors: Mapping[str, StoredTensor]
    extra: Mapping[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


def find_files(path: Path) -> CheckpointFiles:
    """The files of the checkpoint at a path: a folder, a run folder of ours, or a weights file.

    In a run folder the best checkpoint is taken, or the last where there is no best.

    Raises InputError when there is no checkpoint, saying what was looked for.
    """
    if path.is_file():
        return CheckpointFiles(_config_beside(path), _shards(path))
    folder = standing(path)
    if folder is None:
        raise InputError(f"{path}: no such file or folder")
    for name in _WEIGHTS:
        if (folder / name).is_file():
            weights = folder / name
            return CheckpointFiles(_config_beside(weights), _shards(weights))
    for name in _RUN_CHECKPOINTS:
        if standing(folder / name) is not None:
            return find_files(folder / name)
    raise InputError(
        f"{path}: no checkpoint in this folder; looked for {', '.join(_WEIGHTS)}, "
        "and for the folders best and last of a run"
    )


@contextmanager
def open_tensors(weights: tuple[Path, ...]) -> Iterator[Stored]:
    """The open content of weight files of one checkpoint, safetensors or torch.

    Raises InputError for a file that is damaged or not to be trusted, and for a name that stands in
    two shards. Of pieces that several ranks wrote, each tensor is that of all its pieces.
    """
    with ExitStack() as stack:
        if in_pieces(weights):
            yield Stored(joined(weights))
            return
        parts = [_open_one(path, stack) for path in weights]
        tensors: dict[str, StoredTensor] = {}
        for path, part in zip(weights, parts, strict=True):
            for name, tensor in part.tensors.items():
                if name in tensors:
                    raise InputError(f"{path}: tensor {name!r} stands in two shards")
                tensors[name] = tensor
        ignored = tuple(name for part in parts for name in part.ignored)
        yield Stored(tensors, parts[0].extra if len(parts) == 1 else {}, ignored)


def _open_one(path: Path, stack: ExitStack) -> Stored:
    if path.suffix == ".safetensors":
        return Stored(stack.enter_context(SafetensorsFile(path)).tensors)
    return _state_dict(stack.enter_context(TorchFile(path)))


def _state_dict(file: TorchFile) -> Stored:
    """The tensors of a torch file: of its `state_dict` if it has one, else of itself."""
    extra = file.value if isinstance(file.value, dict) else {}
    held = extra.get("state_dict", extra)
    held = held if isinstance(held, dict) else {}
    tensors: dict[str, StoredTensor] = {
        str(name): value for name, value in held.items() if isinstance(value, LazyTensor)
    }
    if not tensors:
        raise InputError(
            f"{file.path}: holds no tensors by name, neither itself nor under 'state_dict'"
        )
    ignored = tuple(str(name) for name in held if str(name) not in tensors)
    return Stored(tensors, extra, ignored)


def _config_beside(weights: Path) -> Path | None:
    config = weights.parent / "config.json"
    return config if config.is_file() else None


def _shards(path: Path) -> tuple[Path, ...]:
    """The file itself, or the shards that an index lists, each once, beside the index."""
    if path.name == PIECES:
        return piece_files(path)
    if not path.name.endswith(".index.json"):
        return (path,)
    try:
        names = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: no index of weight files ({error!r})") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise InputError(f"{path}: lists {name!r}; shards must lie beside the index")
        if not (path.parent / name).is_file():
            raise InputError(
                f"{path}: lists {name!r}, which is missing; fetch the checkpoint again"
            )
    if not names:
        raise InputError(f"{path}: lists no weight files")
    return tuple(path.parent / name for name in names)
