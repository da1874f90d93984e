"""Tensors out of a torch zip file (`.ckpt`, `.pt`, `.bin`), each read when it is asked for.

Such a file is a zip with one pickle, `NAME/data.pkl`, and one record of raw numbers per storage,
`NAME/data/KEY`. The optimizer's moments are two thirds of a small published checkpoint; they are
never read.
"""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import torch
from torch import Tensor

from hyenadna.checkpoint.unpickle import Global, unpickle
from hyenadna.errors import InputError

_LONGEST_PICKLE: Final = 64 * 2**20  # bytes; that of a published checkpoint is under 1 MiB
_STORAGE_DTYPES: Final = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}


@dataclass(frozen=True, slots=True)
class _Storage:
    """One record of raw numbers."""

    dtype: torch.dtype
    key: str
    numel: int


@dataclass(frozen=True, slots=True, eq=False)
class LazyTensor:
    """A tensor of a file that is not read yet; `materialize` reads it."""

    file: TorchFile
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def dtype(self) -> torch.dtype:
        """The type of its numbers."""
        return self.storage.dtype

    def materialize(self) -> Tensor:
        """The tensor, read now into memory of its own.

        Raises InputError where the record is damaged.
        """
        if math.prod(self.shape) == 0:
            return torch.empty(self.shape, dtype=self.dtype)
        flat = torch.frombuffer(
            self.file.record(self.storage.key), dtype=self.dtype, count=self.storage.numel
        )
        return flat.as_strided(self.shape, self.stride, self.offset).clone()

    def rows(self, rows: slice) -> Tensor:
        """Some of its rows; the record is read whole for them. Errors of `materialize`."""
        return self.materialize()[rows]


class TorchFile:
    """An open torch file: `value` is its content as plain data with `LazyTensor` for tensors.

    Nothing in the file is run (see `hyenadna.checkpoint.unpickle`). Use it as a context manager;
    tensors can be read until it closes.

    Raises InputError for a file that is no torch zip file, is damaged, or names what may run code.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip = self._open()
        try:
            self._prefix = self._find_prefix()
            if self._text("byteorder", "little") != "little":
                raise InputError(
                    f"{path}: written on a big-endian machine; save it anew on another"
                )
            self.value: Any = unpickle(
                self._pickle(),
                source=str(path),
                persistent=self._storage,
                constructors={
                    Global("torch._utils", "_rebuild_tensor_v2"): self._tensor,
                    Global("torch._utils", "_rebuild_parameter"): _first,
                    Global("torch", "Size"): _size,
                },
            )
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._zip.close()

    def record(self, key: str) -> bytearray:
        """The raw bytes of one storage, checked against the checksum of the zip.

        Raises InputError where they differ.
        """
        return bytearray(self._read(self._info(f"data/{key}")))

    def _read(self, info: zipfile.ZipInfo) -> bytes:
        try:
            return self._zip.read(info)
        except (zipfile.BadZipFile, OSError, EOFError, RuntimeError) as error:
            raise InputError(
                f"{self.path}: record {info.filename} is damaged ({error}); fetch the file again"
            ) from error

    def _open(self) -> zipfile.ZipFile:
        try:
            with self.path.open("rb") as file:
                start = file.read(2)
            if start != b"PK":
                raise InputError(
                    f"{self.path}: no zip file: damaged, no checkpoint, or in the format before "
                    "PyTorch 1.6; if you trust it, write it anew with torch.load and torch.save"
                )
            return zipfile.ZipFile(self.path)
        except zipfile.BadZipFile as error:
            raise InputError(
                f"{self.path}: damaged or incomplete zip file ({error}); fetch it again"
            ) from error
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror or error})") from error

    def _find_prefix(self) -> str:
        found = [n for n in self._zip.namelist() if n.endswith("/data.pkl") and n.count("/") == 1]
        if len(found) != 1:
            raise InputError(
                f"{self.path}: a zip file with {len(found)} 'NAME/data.pkl' records, where a torch "
                "checkpoint has one"
            )
        return found[0].removesuffix("data.pkl")

    def _info(self, name: str) -> zipfile.ZipInfo:
        try:
            info = self._zip.getinfo(self._prefix + name)
        except KeyError:
            raise InputError(f"{self.path}: record {name!r} is missing; fetch it again") from None
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            # torch never compresses; a few bytes that unpack to terabytes would fill the memory
            raise InputError(f"{self.path}: record {info.filename} is compressed; repack with -0")
        if info.file_size > self.path.stat().st_size:
            raise InputError(f"{self.path}: record {info.filename} is larger than the file")
        return info

    def _text(self, name: str, default: str) -> str:
        if self._prefix + name not in self._zip.namelist():
            return default
        return self._read(self._info(name)).decode("ascii", "replace").strip()

    def _pickle(self) -> bytes:
        info = self._info("data.pkl")
        if info.file_size > _LONGEST_PICKLE:
            raise InputError(
                f"{self.path}: data.pkl has {info.file_size:,} bytes, more than "
                f"{_LONGEST_PICKLE:,}; take the weights as .safetensors"
            )
        return self._read(info)

    def _storage(self, reference: Any) -> _Storage:
        """What stands for ('storage', type, key, device, count) in the pickle."""
        match reference:
            case ("storage", Global(module="torch", name=name), str(key), str(), int(numel)) if (
                name in _STORAGE_DTYPES and numel >= 0
            ):
                storage = _Storage(_STORAGE_DTYPES[name], key, numel)
            case _:
                raise InputError(f"{self.path}: a reference that is no storage of numbers")
        held = self._info(f"data/{key}").file_size // storage.dtype.itemsize
        if numel > held:
            raise InputError(
                f"{self.path}: storage {key} claims {numel} values but its record holds {held}"
            )
        return storage

    def _tensor(self, arguments: tuple[Any, ...]) -> LazyTensor:
        """What stands for _rebuild_tensor_v2(storage, offset, shape, stride, ...)."""
        match arguments:
            case (_Storage() as storage, int(offset), tuple(shape), tuple(stride), *_):
                pass
            case _:
                raise InputError(f"{self.path}: a tensor whose description makes no sense")
        numbers = (offset, *shape, *stride)
        if len(shape) != len(stride) or not all(type(n) is int and n >= 0 for n in numbers):
            raise InputError(
                f"{self.path}: a tensor in storage {storage.key} has an impossible shape or stride"
            )
        count = math.prod(shape)
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        if count > storage.numel or (count > 0 and last >= storage.numel):
            raise InputError(
                f"{self.path}: a tensor of shape {shape}, stride {stride}, offset {offset} reaches "
                f"beyond storage {storage.key} of {storage.numel} values"
            )
        return LazyTensor(self, storage, offset, shape, stride)


def _first(arguments: tuple[Any, ...]) -> Any:
    """A Parameter is the tensor that it wraps."""
    if not arguments or not isinstance(arguments[0], LazyTensor):
        raise ValueError("a Parameter of something that is no tensor")
    return arguments[0]


def _size(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(arguments) != 1 or not isinstance(arguments[0], tuple):
        raise ValueError("a torch.Size of something that is no tuple")
    return arguments[0]
