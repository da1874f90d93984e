"""A checkpoint folder that is always whole: written beside, renamed into place.

A folder cannot be replaced by one rename. The old one is renamed aside to `.NAME.previous`, the new
one takes its place, and the old one is deleted; a crash between the two renames leaves only the one
aside, which `standing` finds and the next `replace` puts back. One writer at a time is assumed.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hyenadna.errors import InputError


def standing(folder: Path) -> Path | None:
    """The folder itself, or the previous one aside after a crash, or None when there is neither."""
    if folder.is_dir():
        return folder
    aside = _aside(folder)
    return aside if aside.is_dir() else None


def replace(folder: Path, fill: Callable[[Path], None]) -> None:
    """Write a folder with `fill(temporary folder)` and put it in the place of `folder`.

    The old folder stands until the new one is complete and on disk.

    Raises InputError when `folder` is something that must not be replaced (a file, or a folder that
    is no checkpoint), or when the disk is full or not writable; the old folder is then untouched.
    """
    folder = folder.resolve()
    fresh = folder.with_name(f".{folder.name}.writing")
    _refuse_other_things(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _recover(folder)
        _remove(fresh)
        fresh.mkdir()
        try:
            fill(fresh)
            _sync(fresh)
            _swap(folder, fresh)
        except BaseException:
            _remove(fresh)
            raise
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written ({error.strerror or error}); what stood there before "
            "is untouched. Free some space or choose another folder"
        ) from error


def require_place(path: Path) -> None:
    """Nothing, where a folder can be made at `path`, as far as can be told without making it.

    Raises InputError otherwise: before anything slow is done for it.
    """
    above = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
    if not above.is_dir():
        raise InputError(f"{path}: {above} is a file, not a folder; choose another place")
    if not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"{path}: {above} cannot be written; choose another place")


_WEIGHTS: Final = re.compile(r".*\.safetensors|weights.*\.ckpt|pytorch_model.*\.bin")
_PART: Final = re.compile(_WEIGHTS.pattern + r"|.*\.json|README\.md|.*\.(txt|bin|part)")
"""Files that a checkpoint folder consists of; any other is somebody's, and replacing deletes."""


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous")


def _refuse_other_things(folder: Path) -> None:
    """Replacing deletes: only what looks like a checkpoint of one model may go."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file; choose another place for the checkpoint")
    inside = list(folder.iterdir())
    if not inside:
        return
    whole = (folder / "config.json").is_file() and any(_WEIGHTS.fullmatch(e.name) for e in inside)
    strangers = [e.name for e in inside if e.is_dir() or not _PART.fullmatch(e.name)]
    if strangers or not whole:
        what = f"holds {strangers[0]}" if strangers else "is no checkpoint folder"
        raise InputError(f"{folder}: exists and {what}, so it is not replaced; choose another")


def _recover(folder: Path) -> None:
    """Finish a swap that a crash cut short."""
    aside = _aside(folder)
    if aside.is_dir():
        if folder.exists():
            _remove(aside)
        else:
            aside.rename(folder)


def _swap(folder: Path, fresh: Path) -> None:
    aside = _aside(folder)
    if folder.exists():
        folder.rename(aside)
        try:
            fresh.rename(folder)
        except BaseException:
            aside.rename(folder)
            raise
    else:
        fresh.rename(folder)
    _sync_one(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)  # the new one stands; the next `replace` tries again


def _remove(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)


def _sync(folder: Path) -> None:
    """Put every file of the folder, and the folder, on disk before it is named."""
    for entry in folder.iterdir():
        _sync_one(entry)
    _sync_one(folder)


def _sync_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
