"""Generated sequences on disk: records go into a file beside, which in the end takes the name.

OUT.part/settings.json    what the sequences are made with
OUT.part/records.fa       the records so far
OUT                       FASTA, one record for each sequence
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, Self

from hyenadna.alphabet import Ids, decode
from hyenadna.errors import InputError
from hyenadna.infer.generate import Generated
from hyenadna.infer.sampling import Sampling

LINE: Final = 80
"""Bases of a line."""
_COMPRESSED: Final = (".gz", ".bgz")


def record(
    generated: Generated,
    name: str,
    *,
    count: int = 1,
    sampling: Sampling | None = None,
    prompt: Ids | None = None,
) -> str:
    """The FASTA record of a sequence, with its line ends.

    name: of the prompt; the record is called so, with _1, _2 … behind where there are several
    sequences of a prompt (count > 1). sampling: written into the header when given. prompt: token
    ids that are written in front of the new bases; the figures are about the new bases.
    """
    number = generated.sample + 1
    words = [
        f">{name}_{number}" if count > 1 else f">{name}",
        f"sample={number}",
        f"length={len(generated.tokens)}",
        f"log_likelihood={generated.log_likelihood:.4f}",
        f"bits_per_base={generated.bits_per_base:.4f}",
    ]
    if prompt is not None:
        words.append(f"prompt_length={len(prompt)}")
    if sampling is not None:
        options = {"top_k": sampling.top_k, "top_p": sampling.top_p}
        words.append(f"temperature={sampling.temperature:g}")
        words += [f"{key}={value:g}" for key, value in options.items() if value is not None]
        words.append(f"seed={sampling.seed}")
    text = ("" if prompt is None else decode(prompt)) + generated.sequence
    lines = [text[start : start + LINE] for start in range(0, len(text), LINE)]
    return "\n".join([" ".join(words), *lines]) + "\n"


def require_free(path: Path, *, resume: bool = False) -> None:
    """Nothing, where sequences can be written to `path`. Raises InputError otherwise."""
    if path.suffix in _COMPRESSED:
        raise InputError(f"{path}: FASTA is written as plain text; leave out {path.suffix}")
    if path.exists():
        raise InputError(f"{path}: exists; remove it, or give another --out")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}; make it first")
    part = _part(path)
    if part.exists() and not resume:
        raise InputError(
            f"{part}: holds the sequences of an interrupted run; go on with --resume, or remove it"
        )


def stored_settings(path: Path) -> Mapping[str, Any]:
    """Settings of the interrupted run beside `path`; empty without one, or a damaged one."""
    try:
        stored = json.loads((_part(path) / "settings.json").read_text())
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}


class GeneratedFile:
    """The records of one run on their way into a FASTA; made by `start` or `resume`."""

    def __init__(self, path: Path, records_done: int) -> None:
        self.path, self.records_done = path, records_done
        self._records = _part(path) / "records.fa"

    @classmethod
    def start(cls, path: Path, settings: Mapping[str, Any]) -> Self:
        """A file without records yet. Those of an interrupted run are dropped.

        settings: plain values, all that the sequences depend on. Raises InputError where `path`
        cannot be written.
        """
        require_free(path, resume=True)
        folder = _part(path)
        with _write_errors(path):
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir()
            (folder / "records.fa").touch()
            # last, because without it there is nothing to resume
            (folder / "settings.json").write_text(json.dumps(dict(settings), indent=2) + "\n")
        return cls(path, 0)

    @classmethod
    def resume(
        cls, path: Path, settings: Mapping[str, Any], lengths: Sequence[int]
    ) -> tuple[Self, str]:
        """The file of an interrupted run with its whole records, and an empty text.

        lengths: bases of each record, with its prompt where that is written. Where there is
        nothing, or something damaged, a file without records and a line that says why. Raises
        InputError where it was made with other settings (its records stay), and where `path` cannot
        be written.
        """
        require_free(path, resume=True)
        folder = _part(path)
        if not folder.exists():
            return cls.start(path, settings), f"{folder}: nothing to resume"
        stored = stored_settings(path)
        if not stored or not (folder / "records.fa").is_file():
            return cls.start(path, settings), f"{folder}: damaged, starting over"
        other = _difference(stored, settings)
        if other:
            raise InputError(
                f"{folder}: was made with {other}; resume with the same, or remove {folder} to "
                "start over"
            )
        with _write_errors(path), (folder / "records.fa").open("r+b") as stream:
            done, end = _whole_records(stream, lengths)
            stream.truncate(end)  # half a record that a kill may have left
        return cls(path, done), ""

    def append(self, text: str) -> None:
        """Add a record behind those there are. Raises OSError when the disk is full."""
        with self._records.open("ab") as stream:
            stream.write(text.encode("utf-8"))
        self.records_done += 1

    def finish(self) -> None:
        """Give the records their own name, and remove what was beside."""
        self._records.replace(self.path)
        shutil.rmtree(_part(self.path))


def _whole_records(stream: IO[bytes], lengths: Sequence[int]) -> tuple[int, int]:
    """How many whole records a file begins with, and where the last of them ends."""
    done = end = 0
    for length in lengths:
        header = stream.readline()
        size = length + -(-length // LINE)  # a line end for each line
        body = stream.read(size)
        if not (header.startswith(b">") and len(body) == size and body.endswith(b"\n")):
            break
        done, end = done + 1, end + len(header) + size
    return done, end


def _difference(stored: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """The first setting in which two runs differ, in words; empty where there is none.

    The model's name does not count: `weights` says whether it is the same.
    """
    # through JSON, where tuples are lists and keys are text
    now = json.loads(json.dumps(dict(settings)))
    for key in sorted({*stored, *now} - {"model"}):
        if stored.get(key) != now.get(key):
            old, new = str(stored.get(key)), str(now.get(key))
            return f"other {key}" if len(old + new) > 80 else f"{key} {old}, not {new}"
    return ""


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
