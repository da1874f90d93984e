"""What an interrupted run leaves beside its output, and whether another may go on with it.

OUT.part/settings.json says what the results so far, in other files of that folder, were made with;
OUT.part/lock is held by the process that writes, and OUT.part/owner names the last that came, where
the file system has no locks. Of a shard (see `shards`) the output is a folder,
in which OUT.part itself ends, with shard.json, which says what it is. OUT.part/merged stands where
the results are not of a run but of all shards.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hyenadna.errors import InputError
from hyenadna.file_lock import hold

_SETTINGS, _OWNER = "settings.json", "owner"
SHARD, MERGED, LOCK = "shard.json", "merged", "lock"


class OtherSettings(InputError):
    """Results that were made with other settings; `difference` is the first of them, in words."""

    def __init__(self, message: str, difference: str) -> None:
        super().__init__(message)
        self.difference = difference


def part_folder(path: Path) -> Path:
    """The folder beside an output that is not whole yet."""
    return path.with_name(path.name + ".part")


def require_free(path: Path, *, what: str, resume: bool) -> None:
    """Nothing, where `path` can be written. Raises InputError otherwise.

    what: the results of an interrupted run, for its message. resume: whether there may be some.
    """
    if path.is_dir() or not path.name:
        raise InputError(f"{path}: is a folder; give the name of a file with --out")
    if path.exists():
        raise InputError(f"{path}: exists; remove it, or give another --out")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}; make it first")
    part = part_folder(path)
    if part.exists() and not resume:
        raise InputError(
            f"{part}: holds the {what} of an interrupted run; go on with --resume, or remove it"
        )


def stored_settings(path: Path) -> Mapping[str, Any]:
    """Settings of the interrupted run beside `path`; empty without one, or a damaged one."""
    return read_settings(part_folder(path))


def read_settings(folder: Path) -> Mapping[str, Any]:
    """Settings of the results in a folder; empty without some, or damaged ones."""
    try:
        stored = json.loads((folder / _SETTINGS).read_text())
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}


def stored_tokens(path: Path, usual: int) -> int:
    """Tokens of a pass of the interrupted run beside `path`, which must keep them; or the usual."""
    tokens = stored_settings(path).get("batch_tokens")
    return tokens if isinstance(tokens, int) and tokens > 0 else usual


class Part:
    """The folder of a run, held by this process alone.

    files: names of the results in it. Raises InputError where another process holds it.
    """

    def __init__(self, path: Path, files: Sequence[str]) -> None:
        self.path, self.folder = path, part_folder(path)
        self._own = {*files, _SETTINGS, LOCK, _OWNER, SHARD, f"{SHARD}.new", MERGED}
        self.found = self.folder.exists()
        """Whether an interrupted run had left it."""
        with write_errors(path):
            self.folder.mkdir(exist_ok=True)
            self._lock = (self.folder / LOCK).open("a")
        if not hold(self._lock):
            self._lock.close()
            raise InputError(
                f"{self.folder}: another run is writing it; wait for it, or stop it and go on with "
                "--resume"
            )
        self.owner = f"process {os.getpid()} on {platform.node()}, {uuid.uuid4().hex}"
        with write_errors(path):
            (self.folder / _OWNER).write_text(self.owner)

    def require_mine(self) -> None:
        """Nothing, where no other process has taken the folder over since.

        That can be where the file system has no locks. Raises InputError otherwise.
        """
        try:
            owner = (self.folder / _OWNER).read_text()
        except OSError:
            owner = "another process, which has removed or completed it"
        if owner != self.owner:
            raise InputError(
                f"{self.folder}: was taken over by {owner.rpartition(', ')[0] or owner}; this run "
                "stops"
            )

    def require_own(self) -> None:
        """Nothing, where the folder holds files of runs alone. Raises InputError otherwise."""
        foreign = sorted(file.name for file in self.folder.iterdir() if file.name not in self._own)
        if foreign:
            raise InputError(
                f"{self.folder}: holds {foreign[0]}, which is not of an interrupted run; move it "
                "away, or give another --out"
            )

    @contextmanager
    def cleared(self, settings: Mapping[str, Any], keep: Sequence[str] = ()) -> Iterator[Path]:
        """The folder without results, to write into while the block runs; then the settings.

        keep: files that stay. The settings come last, because without them there is nothing to
        resume. Raises InputError where it cannot be written, or holds files that no run of ours has
        made; these stay.
        """
        self.require_own()
        with write_errors(self.path):
            for name in self._own - {LOCK, _OWNER, *keep}:
                remove(self.folder / name)
            yield self.folder
            (self.folder / _SETTINGS).write_text(json.dumps(dict(settings), indent=2) + "\n")

    def why_not_resumed(self, settings: Mapping[str, Any]) -> str:
        """Why there is nothing to go on with, in a line; empty where there is.

        Raises InputError where the results were made with other settings; they stay.
        """
        if not self.found:
            return f"{self.folder}: nothing to resume"
        stored = stored_settings(self.path)
        if not stored:
            return self.damaged()
        other = difference(stored, settings)
        if other:
            raise OtherSettings(
                f"{self.folder}: was made with {other}; resume with the same, or remove "
                f"{self.folder} to start over",
                other,
            )
        return ""

    def damaged(self) -> str:
        """The line for results that cannot be read."""
        return f"{self.folder}: damaged, starting over"

    def finish(self, whole: Path) -> None:
        """The file `whole` of the folder takes the name of the output, and the rest goes."""
        self.finish_all({whole: self.path})

    def seal(self, about: Mapping[str, Any], check: Callable[[Path], int]) -> None:
        """The folder itself, with `about` in it, takes the name of the output: a complete shard.

        check: number of results in a folder, which must be that of `about`; ValueError where its
        files are not what its state says. Where another process was first, its shard stays, which
        holds the same results. Raises InputError where the folder is damaged or cannot be written.
        """
        self.require_mine()
        wrong = damage(self.folder, about, check)
        if wrong:
            raise InputError(f"{self.folder}: is damaged ({wrong}); remove it and run it again")
        with write_errors(self.path):
            beside = self.folder / f"{SHARD}.new"
            beside.write_text(json.dumps(dict(about), indent=2) + "\n")
            beside.replace(self.folder / SHARD)
        try:
            self.folder.replace(self.path)
        except OSError as error:
            if not (self.path / SHARD).exists():
                raise InputError(
                    f"{self.path}: cannot be written ({error.strerror or error})"
                ) from error
            self._remove()
        self._lock.close()

    def release(self) -> None:
        """Leave the folder as it is, to another part of the program."""
        self._lock.close()

    def finish_all(self, files: Mapping[Path, Path]) -> None:
        """Each of these files of the folder takes its own name, and the rest goes."""
        self.require_mine()
        for whole, path in files.items():
            whole.replace(path)
        self._remove()

    def _remove(self) -> None:
        self._lock.close()  # before: NFS keeps a folder with an open file
        shutil.rmtree(self.folder)


def damage(folder: Path, about: Mapping[str, Any], check: Callable[[Path], int]) -> str:
    """What is wrong with the results of a shard, in words; empty where nothing is.

    about: what is told of it, with the number of its `results`. check: see `Part.seal`.
    """
    try:
        found, wanted = check(folder), int(about["results"])
    except FileNotFoundError as error:
        return f"no {Path(error.filename).name}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return str(error)
    return "" if found == wanted else f"{found:,} results, not {wanted:,}"


def require_size(file: Path, size: int) -> None:
    """Nothing, where a file has so many bytes. Raises ValueError otherwise, OSError without it."""
    found = file.stat().st_size
    if found != size:
        raise ValueError(f"{file.name} has {found:,} bytes, not {size:,}")


def difference(stored: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """The first setting in which two runs differ, in words; empty where there is none.

    The model's name does not count: `weights` says whether it is the same.
    """
    now = json.loads(json.dumps(dict(settings)))  # where tuples are lists and keys are text
    for key in sorted({*stored, *now} - {"model"}):
        if stored.get(key) != now.get(key):
            old, new = str(stored.get(key)), str(now.get(key))
            return f"other {key}" if len(old + new) > 80 else f"{key} {old}, not {new}"
    return ""


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def is_held(path: Path) -> bool:
    """Whether some process is at work on this output."""
    try:
        with (part_folder(path) / LOCK).open("a") as lock:
            return not hold(lock)
    except OSError:
        return False


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Errors of the disk as InputError while the block runs."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
