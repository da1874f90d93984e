"""Text files of labels: plain or gzip, with or without a byte-order mark."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, cast

from hyenadna.errors import InputError

_GZIP_MAGIC: Final = b"\x1f\x8b"
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_PACKED: Final = (".gz", ".bgz")


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """The text of a file, its line ends as they are; closed at the end of the block.

    Raises InputError for a file that is missing, no regular file, unreadable, UTF-16, or damaged:
    also where the damage shows while the text is read.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; a file is needed here")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with path.open("rb") as raw:
            begin = raw.read(2)
        if begin in _UTF16:
            raise InputError(f"{path}: is UTF-16; save it as UTF-8")
        packed = begin == _GZIP_MAGIC
        with (
            gzip.open(path, "rb") if packed else path.open("rb") as binary,
            io.TextIOWrapper(
                cast(IO[bytes], binary), "utf-8-sig", errors="replace", newline=""
            ) as text,
        ):
            yield text
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: truncated or damaged ({error}); download it again") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def suffix_of(path: Path) -> str:
    """Last suffix in lower case, past `.gz`: `.csv` for `x.csv.gz`."""
    return Path(_unpacked(path)).suffix.casefold()


def stem_of(path: Path) -> str:
    """Name without its last suffix, past `.gz`: `x` for `x.csv.gz`."""
    return Path(_unpacked(path)).stem


def _unpacked(path: Path) -> str:
    name = path.name
    for suffix in _PACKED:
        if name.casefold().endswith(suffix):
            name = name[: -len(suffix)]
    return name
