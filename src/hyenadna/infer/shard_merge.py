"""The results of all shards beside an output, put together as those of an interrupted whole run.

Nothing is computed: what is left of the run is to write its output, as `--resume` does.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hyenadna.errors import InputError
from hyenadna.file_lock import hold
from hyenadna.infer import (
    embeddings_file,
    embeddings_spill,
    interrupted,
    rows_file,
    score_shards,
    track_spill,
)
from hyenadna.infer.interrupted import LOCK, MERGED, SHARD, Part, damage, difference, part_folder
from hyenadna.infer.shards import FoundShard, find_shards, require_same_units

_SHOWN: Final = 5


@dataclass(frozen=True)
class _Results:
    """What a verb leaves in the folder of a shard."""

    files: Sequence[str]
    check: Callable[[Path], int]
    """Number of results in a folder: see `interrupted.Part.seal`."""
    gather: Callable[[Sequence[Path], Path], None]


RESULTS: Final[Mapping[str, _Results]] = {
    "embed": _Results(embeddings_file.FILES, embeddings_spill.check, embeddings_spill.gather),
    "score": _Results((*rows_file.FILES, "ranked"), score_shards.check, score_shards.gather),
    "predict": _Results(rows_file.FILES, rows_file.check, rows_file.gather),
    "track": _Results(track_spill.FILES, track_spill.check, track_spill.gather),
}


@dataclass(frozen=True)
class WholeRun:
    """What all shards were made with."""

    verb: str
    arguments: Mapping[str, Any]
    """As `shard.json` tells them."""
    folder: Path | None
    """Where the shards were run; None where no argument depends on it."""
    shards: tuple[FoundShard, ...]
    records: tuple[Mapping[str, Any], ...]
    """Of each shard: see `RunRecord`."""
    told: tuple[Mapping[str, Any], ...]
    """All that the shard.json of each shard tells."""


def complete_shards(out: Path) -> WholeRun:
    """All shards of an output, which are complete and of one run.

    Raises InputError, naming the shard to run (again), where one is missing, not complete, damaged,
    or made with other settings than most.
    """
    found = find_shards(out)
    if not found:
        raise InputError(
            f"{out}: has no shards beside it ({out.name}.shard-1-of-…); make them with --shard"
        )
    counts = sorted({each.shard.count for each in found})
    if len(counts) > 1:
        raise InputError(
            f"{out}: has shards of {' and of '.join(f'{n:,}' for n in counts)} beside it; remove "
            f"those that are not wanted ({out.name}.shard-*-of-N)"
        )
    _require_all(out, found, counts[0])
    told = [_told(each) for each in found]
    settings = [_settings(each) for each in found]
    _require_alike(found, told, settings)
    units = [(str(shard.shard), each["units"]) for shard, each in zip(found, told, strict=True)]
    wrong = require_same_units(units)
    if wrong:
        raise InputError(
            f"{out}: shard {wrong} does not begin where the one before ends; run all again with "
            "the same options on machines with the same --max-memory"
        )
    return WholeRun(
        told[0]["verb"],
        told[0]["arguments"],
        Path(told[0]["folder"]) if told[0].get("relative", True) else None,
        tuple(found),
        tuple(each["record"] or {} for each in told),
        tuple(told),
    )


@contextmanager
def assembled(out: Path, run: WholeRun) -> Iterator[None]:
    """OUT.part of the shards, as an interrupted whole run leaves it, for the block to finish.

    It goes where the block fails; what another process has put there stays. Raises InputError where
    it cannot be written, a shard is damaged, and where OUT.part holds what is not of a merge.
    """
    results, part = RESULTS[run.verb], part_folder(out)
    if not (part / MERGED).exists() and any((part / name).exists() for name in results.files):
        raise InputError(
            f"{part}: holds the results of an interrupted run of one process; remove it to merge "
            "the shards, or go on with that run"
        )
    held = Part(out, results.files)
    try:
        held.require_own()
        (part / MERGED).write_text(held.owner)
        _gather(held, run, results)
        held.release()
        yield
    except BaseException:
        held.release()
        with suppress(OSError):
            if (part / MERGED).read_text() == held.owner:
                shutil.rmtree(part)
        raise


def _gather(held: Part, run: WholeRun, results: _Results) -> None:
    folders = [each.folder for each in run.shards]
    settings = interrupted.read_settings(folders[0])
    try:
        with held.cleared(settings, keep=(MERGED,)) as folder:
            results.gather(folders, folder)
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{held.path}: a shard is damaged ({error}); remove it and run it again"
        ) from error


@contextmanager
def held_shards(shards: Sequence[FoundShard]) -> Iterator[None]:
    """The shards, for one merge alone while the block runs. Raises InputError for another."""
    folder = shards[0].folder
    try:
        lock = (folder / LOCK).open("a")
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be held ({error.strerror or error}); did another merge remove it?"
        ) from error
    with lock:
        if not hold(lock):
            raise InputError(f"{folder}: another merge is at work on it; wait for it")
        yield


def _require_all(out: Path, found: Sequence[FoundShard], count: int) -> None:
    there = {each.shard.index: each for each in found}
    missing = [i for i in range(1, count + 1) if i not in there or not there[i].complete]
    if not missing:
        return
    begun = [i for i in missing if i in there]
    shown = ", ".join(f"{i}/{count}" for i in missing[:_SHOWN])
    more = f" and {len(missing) - _SHOWN:,} more" if len(missing) > _SHOWN else ""
    how = " with --resume" if begun else ""
    raise InputError(
        f"{out}: {len(missing):,} of {count:,} shards {'is' if len(missing) == 1 else 'are'} not "
        f"complete; run --shard {shown}{more}{how}"
    )


def _told(shard: FoundShard) -> dict[str, Any]:
    try:
        found = json.loads((shard.folder / SHARD).read_text())
        units = found["units"]
        if found["verb"] not in RESULTS or not {"first", "last", "of"} <= set(units):
            raise ValueError("not of this version")
        _ = found["arguments"], found["folder"], found["record"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(_again(shard, f"is damaged ({error})")) from error
    wrong = damage(shard.folder, found, RESULTS[found["verb"]].check)
    if wrong:
        raise InputError(_again(shard, f"is damaged ({wrong})"))
    return dict(found)


def _settings(shard: FoundShard) -> Mapping[str, Any]:
    settings = interrupted.read_settings(shard.folder)
    if not settings:
        raise InputError(_again(shard, "is damaged (no settings.json)"))
    return settings


def _again(shard: FoundShard, what: str) -> str:
    return f"{shard.folder}: {what}; remove it and run --shard {shard.shard} again"


def _require_alike(
    found: Sequence[FoundShard],
    told: Sequence[Mapping[str, Any]],
    settings: Sequence[Mapping[str, Any]],
) -> None:
    """Refuse the first shard that was made otherwise than most."""
    alike = [{**own, "verb": each["verb"]} for own, each in zip(settings, told, strict=True)]
    keys = [json.dumps({**own, "model": None}, sort_keys=True) for own in alike]
    most = keys.index(Counter(keys).most_common(1)[0][0])
    for shard, own in zip(found, alike, strict=True):
        other = difference(own, alike[most])
        if other:
            raise InputError(
                _again(shard, f"was made with {other} as shard {found[most].shard} and others")
            )


def remove_shards(shards: Sequence[FoundShard]) -> None:
    """Remove the folders of shards, and what another process has begun of them and left."""
    for each in shards:
        beside = part_folder(each.folder)
        if beside.exists() and not interrupted.is_held(each.folder):
            shutil.rmtree(beside)
        with suppress(FileNotFoundError):  # by another merge
            shutil.rmtree(each.folder)
