"""The folder of a training run: what is in it, and how it survives an interruption.

    RUN/run.json    what was asked for: shape, options, genomes with their digests, versions
    RUN/splits/     the train, valid and test regions of each genome, as BED
    RUN/log.jsonl   one line per step and per evaluation
    RUN/last/       newest checkpoint: model (published layout) and everything to go on from it
    RUN/best/       the model that was best on the valid split (published layout)
                    of a model in parts (FSDP) both are in pieces: see checkpoint/pieces.py
    RUN/tensorboard the same figures for TensorBoard, where it is installed
    RUN/lock        held by the process that trains

Every checkpoint is written beside its place and renamed, so that the folder is loadable at any
moment.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from hyenadna.checkpoint.files import StoredTensor
from hyenadna.checkpoint.folder import require_place, standing
from hyenadna.checkpoint.pieces import (
    PIECES,
    TRAINING,
    is_in_pieces,
    joined,
    piece_files,
    save_pieces,
)
from hyenadna.checkpoint.safetensors_file import Content, SafetensorsFile
from hyenadna.checkpoint.save import save
from hyenadna.errors import InputError
from hyenadna.file_lock import hold
from hyenadna.train.loop import Trainer

_VERSION = 1
_FIELDS = {"version", "model", "options", "genomes", "device", "threads", "init"}


def require_free(path: Path) -> None:
    """Nothing, where a new run can be made at `path`. Raises InputError otherwise."""
    if (path / "run.json").exists():
        raise InputError(
            f"{path}: there is a run already; go on with it by --resume, or give another --out"
        )
    unfinished = {"splits", "run.json.part"}  # a start that was killed
    if path.exists() and (not path.is_dir() or {p.name for p in path.iterdir()} - unfinished):
        raise InputError(f"{path}: exists and is not empty; give another --out")
    require_place(path)


class RunFolder:
    """Reads and writes one run folder; see the module for its layout."""

    def __init__(self, path: Path, description: Mapping[str, Any], *, writes: bool = True) -> None:
        """writes: whether this process is the one of its ranks that writes; others read only."""
        self.path = path
        self.description = description
        self.writes = writes

    @classmethod
    def create(
        cls,
        path: Path,
        description: Mapping[str, Any],
        splits: Mapping[str, str],
        *,
        writes: bool = True,
    ) -> Self:
        """A new run at `path`. `splits`: text of the BED file of each genome, in order, by name.

        Raises InputError when there is something at `path` already or it cannot be made.
        """
        run = cls(path, {"version": _VERSION} | dict(description), writes=writes)
        if not writes:
            return run
        require_free(path)
        try:
            (path / "splits").mkdir(parents=True, exist_ok=True)
            for index, (name, text) in enumerate(splits.items()):
                (path / "splits" / f"{index}.{name}.bed").write_text(text)
            # last, because it is what makes the folder a run
            beside = path / "run.json.part"
            beside.write_text(json.dumps(run.description, indent=2) + "\n")
            beside.replace(path / "run.json")
        except OSError as error:
            raise InputError(f"{path}: cannot make the run folder ({error.strerror})") from error
        return run

    @classmethod
    def open(cls, path: Path, *, writes: bool = True) -> Self:
        """The existing run at `path`. Raises InputError where there is none that can be read."""
        file = path / "run.json"
        try:
            description = json.loads(file.read_text())
        except FileNotFoundError:
            raise InputError(f"{path}: no run to resume (there is no run.json)") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{file}: cannot be read ({error})") from error
        missing = _FIELDS - set(description if isinstance(description, dict) else ())
        if missing:
            raise InputError(f"{file}: damaged, there is no {', '.join(sorted(missing))} in it")
        if description["version"] != _VERSION:
            raise InputError(f"{file}: version {description['version']}, not {_VERSION}")
        return cls(path, description, writes=writes)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within the block no other process can train here.

        Raises InputError where another does already.
        """
        if not self.writes:
            yield
            return
        with (self.path / "lock").open("a") as lock:
            if not hold(lock):
                raise InputError(
                    f"{self.path}: another process is training this run; wait for its end"
                )
            yield

    def split_beds(self) -> tuple[Path, ...]:
        """The BED files of the run's split, one a genome, in the order of the genomes."""
        files = (self.path / "splits").glob("*.bed")
        return tuple(sorted(files, key=lambda file: int(file.name.partition(".")[0])))

    def log(self, entry: Mapping[str, Any]) -> None:
        """Append one line to log.jsonl."""
        if not self.writes:
            return
        with (self.path / "log.jsonl").open("a") as file:
            file.write(json.dumps(_finite(entry)) + "\n")

    def entries(self) -> list[dict[str, Any]]:
        """All complete lines of log.jsonl (a kill can leave half a line, which is passed over)."""
        file = self.path / "log.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        entries = []
        for line in lines:
            try:
                entries.append(json.loads(line))
            except ValueError:
                continue
        return entries

    def rewind_log(self, step: int) -> None:
        """Drop what was logged after `step`, so that a resumed log equals an unbroken one."""
        kept = [e for e in self.entries() if e["step"] <= step]
        beside = self.path / "log.jsonl.part"
        beside.write_text("".join(json.dumps(e) + "\n" for e in kept))
        beside.replace(self.path / "log.jsonl")

    def save_last(self, trainer: Trainer) -> None:
        """Write the newest checkpoint with all that `restore` needs; all ranks must ask.

        Raises InputError if the disk is full; the previous checkpoint is then still whole.
        """
        tensors, plain = trainer.state()
        random = trainer.random_state()
        extra: dict[str, Content] = {"trainer.json": json.dumps(plain, indent=2)}
        last = self.path / "last"
        if trainer.parallel.sharded:
            extra["trainer.safetensors"] = random
            save_pieces(trainer.model, last, training=tensors, extra_files=extra)
        elif self.writes:
            extra["trainer.safetensors"] = tensors | random
            save(trainer.model, last, tables=False, extra_files=extra)

    def save_best(self, trainer: Trainer) -> None:
        """Write the best model so far, with the weights that it has now; all ranks must ask."""
        if trainer.parallel.sharded:
            save_pieces(trainer.model, self.path / "best")
        elif self.writes:
            save(trainer.model, self.path / "best")

    def last(self) -> Path | None:
        """The newest checkpoint, None where the run never got to write one."""
        return standing(self.path / "last")

    def restore(self, trainer: Trainer) -> None:
        """Bring a trainer with the model of `last` to where that was written, and the log too.

        Raises InputError where the checkpoint is damaged or belongs to other data.
        """
        last = self.last()
        if last is not None:
            try:
                plain = json.loads((last / "trainer.json").read_text())
                with _open_training(last) as stored:
                    trainer.load_state(stored, plain)
            except (OSError, ValueError, KeyError, TypeError) as error:
                if isinstance(error, InputError):
                    raise
                raise InputError(
                    f"{last}: damaged, cannot resume from it ({type(error).__name__}: {error})"
                ) from error
        if self.writes:
            self.rewind_log(trainer.steps_done)


@contextmanager
def _open_training(last: Path) -> Iterator[dict[str, StoredTensor]]:
    """What a checkpoint holds beside the model, by the names of `Trainer.state`."""
    with SafetensorsFile(last / "trainer.safetensors") as file:
        stored: dict[str, StoredTensor] = dict(file.tensors)
        pieces = joined(piece_files(last / PIECES)) if is_in_pieces(last) else {}
        for name, tensor in pieces.items():
            if name.startswith(TRAINING):
                stored[name.removeprefix(TRAINING)] = tensor
        yield stored


def _finite(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry with None for numbers that JSON has no word for."""
    return {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in entry.items()
    }
