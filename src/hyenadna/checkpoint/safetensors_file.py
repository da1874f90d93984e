"""Safetensors files one tensor after the other: read without mapping, written without collecting.

What is read from a mapped file stays in the process's memory beside its copy, and the package's
writer wants all tensors at once. A file is 8 bytes with the length of the header, the header in
JSON, and the raw numbers.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hyenadna.errors import InputError

INDEX: Final = "model.safetensors.index.json"
Content = bytes | str | Mapping[str, Tensor]
"""Of a file beside the weights; tensors become a safetensors file."""
_LENGTH: Final = struct.Struct("<Q")
_WORDS: Final = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class FileTensor:
    """A tensor in an open safetensors file."""

    file: SafetensorsFile
    name: str
    shape: tuple[int, ...]

    def materialize(self) -> Tensor:
        """The tensor, read now into memory of its own. Raises InputError where that fails."""
        return self._read(lambda handle: handle.get_tensor(self.name))

    def rows(self, rows: slice) -> Tensor:
        """Some of its rows; otherwise as `materialize`."""
        return self._read(lambda handle: handle.get_slice(self.name)[rows])

    def _read(self, read: Callable[[Any], Tensor]) -> Tensor:
        try:
            with self.file.open() as handle:
                return read(handle)
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(
                f"{self.file.path}: tensor {self.name!r} cannot be read ({error})"
            ) from None


class SafetensorsFile:
    """A safetensors file: `tensors` by name, and the text `metadata` of its writer.

    Use it as a context manager: it is open until then, so that what is read is one file, whatever
    takes its place meanwhile. Otherwise it is opened for each tensor, for there is a limit to how
    many files are open at a time. Raises InputError for a file that is damaged or cut short.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: Any = None
        try:
            with self.open() as handle:
                self.metadata: Mapping[str, str] = handle.metadata() or {}
                self.tensors = {
                    name: FileTensor(self, name, tuple(handle.get_slice(name).get_shape()))
                    for name in handle.keys()  # noqa: SIM118 - the handle is no mapping
                }
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(
                f"{path}: damaged or incomplete ({error}); fetch the file again"
            ) from None

    def open(self) -> AbstractContextManager[Any]:
        """The package's handle of the file, within which it is open."""
        if self._held is not None:
            return nullcontext(self._held)
        handle: AbstractContextManager[Any] = safe_open(self.path, framework="pt", backend="pread")
        return handle

    def __enter__(self) -> Self:
        self._held = safe_open(self.path, framework="pt", backend="pread")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.__exit__(kind, error, trace)
        self._held = None


@dataclass(frozen=True)
class Entry:
    """A tensor that is to be written, made when its turn comes."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], Tensor]

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        """One that is there already."""
        return cls(tuple(tensor.shape), tensor.dtype, lambda: tensor)

    @property
    def bytes(self) -> int:
        """Its size in the file."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def write_model(folder: Path, entries: Mapping[str, Entry], *, shard_bytes: int) -> None:
    """Write `model.safetensors`, or where that would be longer than `shard_bytes` several files.

    Those are model-00001-of-0000N.safetensors, with model.safetensors.index.json, as Hugging Face
    libraries write and read them; a tensor longer than the limit is a file of its own. Raises
    OSError when the disk is full or not writable.
    """
    shards = list(_shards(entries, shard_bytes))
    if len(shards) == 1:
        write_tensors(folder / "model.safetensors", shards[0])
        return
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_tensors(folder / file, shard)
        places |= dict.fromkeys(shard, file)
    total = sum(entry.bytes for entry in entries.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _shards(entries: Mapping[str, Entry], shard_bytes: int) -> Iterator[dict[str, Entry]]:
    """The entries in order, in groups of at most `shard_bytes` each (or one entry)."""
    group: dict[str, Entry] = {}
    size = 0
    for name, entry in entries.items():
        if group and size + entry.bytes > shard_bytes:
            yield group
            group, size = {}, 0
        group[name] = entry
        size += entry.bytes
    yield group


def write_tensors(path: Path, entries: Mapping[str, Entry]) -> None:
    """Write one safetensors file, a tensor at a time; raises OSError as the disk does."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    order = _aligned(entries)
    for name in order:
        entry = entries[name]
        header[name] = {
            "dtype": _WORDS[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [start, start + entry.bytes],
        }
        start += entry.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(_LENGTH.pack(len(text)) + text)
        for name in order:
            tensor = entries[name].make().detach().to("cpu", entries[name].dtype)
            assert tuple(tensor.shape) == entries[name].shape, name
            stream.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def write_content(path: Path, content: Content) -> None:
    """Write a file beside the weights: bytes, text, or tensors; raises OSError as the disk does."""
    if isinstance(content, Mapping):
        write_tensors(path, {name: Entry.of(tensor) for name, tensor in content.items()})
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def _aligned(entries: Mapping[str, Entry]) -> Sequence[str]:
    """Names with the widest numbers first, so that each tensor starts at a multiple of its own."""
    return sorted(entries, key=lambda name: (-entries[name].dtype.itemsize, name))
