"""Generated sequences on disk: records go into a file beside, which in the end takes the name.

OUT.part/settings.json    what the sequences are made with
OUT.part/records.fa       the records so far
OUT                       FASTA, one record for each sequence
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, Self

from hyenadna.errors import InputError
from hyenadna.infer import interrupted
from hyenadna.infer.generate import Generated
from hyenadna.infer.sampling import Sampling

LINE: Final = 80
"""Bases of a line."""
_COMPRESSED: Final = (".gz", ".bgz")
_RECORDS: Final = "records.fa"


def record(
    generated: Generated,
    name: str,
    *,
    count: int = 1,
    sampling: Sampling | None = None,
    prompt: str | None = None,
    soft_tokens: int = 0,
) -> str:
    """The FASTA record of a sequence, with its line ends.

    name: of the prompt; the record is called so, with _1, _2 … behind where there are several
    sequences of a prompt (count > 1). sampling: written into the header when given. prompt:
    letters that are written in front of the new bases; the figures are about the new bases.
    soft_tokens: vectors that stood before the prompt; written into the header where there are any.
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
    if soft_tokens:
        words.append(f"soft_tokens={soft_tokens}")
    if sampling is not None:
        options = {"top_k": sampling.top_k, "top_p": sampling.top_p}
        words.append(f"temperature={sampling.temperature:g}")
        words += [f"{key}={value}" for key, value in options.items() if value is not None]
        words.append(f"seed={sampling.seed}")
    text = (prompt or "") + generated.sequence
    lines = [text[start : start + LINE] for start in range(0, len(text), LINE)]
    return "\n".join([" ".join(words), *lines]) + "\n"


def require_free(path: Path, *, resume: bool = False) -> None:
    """Nothing, where sequences can be written to `path`. Raises InputError otherwise."""
    if path.suffix in _COMPRESSED:
        raise InputError(f"{path}: FASTA is written as plain text; leave out {path.suffix}")
    interrupted.require_free(path, what="sequences", resume=resume)


class GeneratedFile:
    """The records of one run on their way into a FASTA; made by `start` or `resume`."""

    def __init__(self, path: Path) -> None:
        """Hold the folder beside `path`. Raises InputError where another process does."""
        self.path, self.records_done = path, 0
        self._part = interrupted.Part(path, (_RECORDS,))
        self._records = self._part.folder / _RECORDS

    @classmethod
    def start(cls, path: Path, settings: Mapping[str, Any]) -> Self:
        """A file without records yet. Those of an interrupted run are dropped.

        settings: plain values, all that the sequences depend on. Raises InputError where `path`
        cannot be written.
        """
        require_free(path, resume=True)
        return cls(path)._emptied(settings)

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
        file = cls(path)
        reason = file._part.why_not_resumed(settings)
        if not reason and not file._records.is_file():
            reason = file._part.damaged()
        if reason:
            return file._emptied(settings), reason
        with interrupted.write_errors(path), file._records.open("r+b") as stream:
            file.records_done, end = _whole_records(stream, lengths)
            stream.truncate(end)  # half a record that a kill may have left
        return file, ""

    def _emptied(self, settings: Mapping[str, Any]) -> Self:
        with self._part.cleared(settings):
            self._records.touch()
        return self

    def append(self, text: str) -> None:
        """Add a record behind those there are. Raises InputError when the disk is full."""
        self._part.require_mine()
        try:
            with self._records.open("ab") as stream:
                stream.write(text.encode("utf-8"))
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror or error}); make room and go on "
                "with --resume"
            ) from error
        self.records_done += 1

    def finish(self) -> None:
        """Give the records their own name, and remove what was beside."""
        self._part.finish(self._records)


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
