"""A checkpoint in pieces: every rank writes what it holds, and anything reads it again.

    FOLDER/config.json               the model's configuration, as in every checkpoint
    FOLDER/shard-R-model-F-of-N.safetensors
                                     rows of tensors, of rank R; where they belong is in the header
    FOLDER/pieces.json               the files and their sizes, written last

The files are those of torch.distributed.checkpoint with its safetensors storage, so that they hold
no pickles: other programs read them with `HuggingFaceStorageReader`. Model tensors have their names
of the Hugging Face layout; what a resumed run needs stands beside them, with TRAINING in front.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor

from hyenadna.checkpoint.config_file import flat_values
from hyenadna.checkpoint.folder import replace
from hyenadna.checkpoint.layouts import file_name, is_freq_copy
from hyenadna.checkpoint.safetensors_file import (
    Content,
    FileTensor,
    SafetensorsFile,
    write_content,
)
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.parallel.ranks import Ranks

PIECES: Final = "pieces.json"
TRAINING: Final = "training."
"""In front of the names of tensors that belong to the training and not to the model."""
_FILE_BYTES: Final = 64 << 20
"""About what a rank writes into one file: the writer holds a file's content twice."""
_SHARDING: Final = "DCP_SHARDING_INFO"  # header field of torch.distributed.checkpoint


def model_tensors(model: HyenaDNA) -> dict[str, Tensor]:
    """The tensors of a model as a checkpoint in pieces holds them: a tied head is not repeated."""
    return {
        file_name(name, "hf"): value.detach()
        for name, value in model.state_dict().items()
        if not is_freq_copy(name)
    }


def save_pieces(
    model: HyenaDNA,
    folder: Path,
    *,
    training: Mapping[str, Tensor] | None = None,
    extra_files: Mapping[str, Content] | None = None,
) -> None:
    """Write the checkpoint of a model that lies on several ranks; all of them must ask.

    training: more tensors, in parts or whole (then they are the same on all ranks). extra_files:
    more files by name, as the first rank has them. Nothing is gathered: each rank writes its own
    rows. The folder is written beside its place and renamed when all ranks are done, so that the
    old one stands until then.

    Raises InputError on every rank, as `hyenadna.checkpoint.folder.replace` does, where one of them
    cannot write, and where the first does not see the files of all.
    """
    tensors = model_tensors(model) | {TRAINING + k: v for k, v in (training or {}).items()}
    ranks = Ranks(dist.get_rank(), dist.get_world_size())
    if ranks.first:
        dtype = str(model.head_weight.dtype).removeprefix("torch.")
        config = json.dumps(flat_values(model.config, torch_dtype=dtype), indent=2) + "\n"
        files: dict[str, Content] = {"config.json": config}
        _lead(tensors, folder, files | dict(extra_files or {}), ranks)
    else:
        _follow(tensors, ranks)


def _lead(
    tensors: Mapping[str, Tensor], folder: Path, files: dict[str, Content], ranks: Ranks
) -> None:
    """The first rank's part: it makes the folder, says where, and puts it in its place."""
    told = False

    def fill(fresh: Path) -> None:
        nonlocal told
        told = True
        ranks.from_first(str(fresh))
        _write(tensors, fresh)
        listed = json.dumps({"files": _all_files(fresh)}, indent=2) + "\n"
        for name, content in (files | {PIECES: listed}).items():
            write_content(fresh / name, content)

    error: str | None = None
    try:
        replace(folder, fill)
    except InputError as refusal:
        error = str(refusal)
    if not told:
        ranks.from_first(None)
    if ranks.from_first(error):
        raise InputError(error or "")


def _follow(tensors: Mapping[str, Tensor], ranks: Ranks) -> None:
    """The part of the other ranks."""
    fresh = ranks.from_first(None)
    if fresh is not None:
        try:
            _write(tensors, Path(fresh))
            _all_files(Path(fresh))
        except OSError:
            pass  # the first rank has heard of it, and says what became of the folder
    if error := ranks.from_first(None):
        raise InputError(error)


def _write(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write this rank's pieces. Raises OSError on all ranks where one of them cannot."""
    from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageWriter, save

    writer = HuggingFaceStorageWriter(
        str(folder), fqn_to_index_mapping=_files(tensors), save_distributed=True
    )
    try:
        save(dict(tensors), storage_writer=writer)
    except CheckpointException as error:
        rank, (reason, _) = next(iter(error.failures.items()))
        if isinstance(reason, OSError):
            raise OSError(reason.errno, f"rank {rank}: {reason.strerror or reason}") from error
        raise


def _files(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Into which file of each rank, from 1, a tensor goes."""
    most, number, size = _FILE_BYTES * dist.get_world_size(), 1, 0
    places = {}
    for name, tensor in tensors.items():
        count = tensor.numel() * tensor.element_size()
        if size and size + count > most:
            number, size = number + 1, 0
        places[name] = number
        size += count
    return places


def _own_files(folder: Path) -> dict[str, int]:
    """Names and sizes of the files that this rank has written."""
    mine = sorted(folder.glob(f"shard-{dist.get_rank() + 1:05}-*"))
    return {path.name: path.stat().st_size for path in mine}


def _all_files(folder: Path) -> dict[str, int]:
    """Those of all ranks; all must ask. Raises OSError where this one does not see them all."""
    each: list[dict[str, int]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(each, _own_files(folder))
    for rank, files in enumerate(each):
        for name, size in files.items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != size:
                raise OSError(
                    f"rank 0 does not see what rank {rank} wrote; --out must be on a disk that all "
                    "machines share"
                )
    return {name: size for files in each for name, size in files.items()}


# -- reading ---------------------------------------------------------------------------------------


def in_pieces(weights: Sequence[Path]) -> bool:
    """Whether these weight files are pieces that several ranks wrote."""
    return weights[0].name.startswith("shard-") and (weights[0].parent / PIECES).is_file()


def piece_files(path: Path) -> tuple[Path, ...]:
    """The files that `pieces.json` lists. Raises InputError where one is not as it was written."""
    try:
        sizes = json.loads(path.read_text(encoding="utf-8"))["files"]
        files = {path.parent / name: int(size) for name, size in sizes.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: no list of the pieces of a checkpoint ({error!r})") from error
    for file, size in files.items():
        found = file.stat().st_size if file.is_file() else None
        if found != size or file.parent != path.parent:
            there = "is missing" if found is None else f"has {found:,} bytes, not {size:,}"
            raise InputError(f"{path.parent}: damaged, {file.name} {there}; copy the folder again")
    if not files:
        raise InputError(f"{path}: lists no files")
    return tuple(files)


@dataclass(frozen=True)
class JoinedTensor:
    """A tensor whose rows lie in several files."""

    name: str
    shape: tuple[int, ...]
    pieces: tuple[tuple[tuple[int, ...], FileTensor], ...]
    """Where each begins in the whole, and the piece."""

    def materialize(self) -> Tensor:
        """The tensor, read now into one piece of memory. Raises InputError for a damaged file."""
        return self.rows(slice(0, self.shape[0]))

    def rows(self, rows: slice) -> Tensor:
        """Some of its rows alone, from the files that have any; errors of `materialize`."""
        out: Tensor | None = None
        for (top, *others), piece in self.pieces:
            low, high = max(rows.start, top), min(rows.stop, top + piece.shape[0])
            if low >= high:
                continue
            values = piece.rows(slice(low - top, high - top))
            if out is None:
                shape = (rows.stop - rows.start, *self.shape[1:])
                out = torch.empty(shape, dtype=values.dtype)
            sides = (slice(a, a + n) for a, n in zip(others, piece.shape[1:], strict=True))
            out[(slice(low - rows.start, high - rows.start), *sides)] = values
        if out is None:
            raise InputError(f"{self.name}: has no rows {rows.start} to {rows.stop}")
        return out


def is_in_pieces(folder: Path) -> bool:
    """Whether the checkpoint in this folder is in pieces."""
    return (folder / PIECES).is_file()


def joined(paths: Sequence[Path]) -> dict[str, JoinedTensor | FileTensor]:
    """The tensors of all files by name, each of all its pieces.

    Raises InputError where a file is damaged or does not say where its pieces belong, and where
    some are missing.
    """
    found: dict[str, list[tuple[tuple[int, ...], FileTensor]]] = {}
    for file in map(SafetensorsFile, paths):
        places = _places(file)
        for name, tensor in file.tensors.items():
            found.setdefault(name, []).append((places(name), tensor))
    return {name: _joined(name, pieces) for name, pieces in found.items()}


def _places(file: SafetensorsFile) -> Any:
    """Where a piece of this file begins in its tensor, by name."""
    try:
        info = json.loads(file.metadata.get(_SHARDING, ""))
        places = {name: tuple(info[name]["saved_offsets"]) for name in file.tensors}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file.path}: does not say which rows it holds ({error!r})") from error
    return places.__getitem__


def _joined(
    name: str, pieces: list[tuple[tuple[int, ...], FileTensor]]
) -> JoinedTensor | FileTensor:
    if len(pieces) == 1 and not any(pieces[0][0]):
        return pieces[0][1]
    ends = [[a + n for a, n in zip(start, piece.shape, strict=True)] for start, piece in pieces]
    shape = tuple(max(end) for end in zip(*ends, strict=True))
    if sum(torch.Size(piece.shape).numel() for _, piece in pieces) != torch.Size(shape).numel():
        folder = pieces[0][1].file.path.parent
        raise InputError(f"{folder}: damaged, {name} lacks some of its rows; copy it again")
    return JoinedTensor(name, shape, tuple(pieces))
