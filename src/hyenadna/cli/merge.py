"""`hyenadna merge`."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from hyenadna.cli.console import make_console
from hyenadna.cli.same_arguments import other_words
from hyenadna.cli.spread import SpreadOptions, call, changed, from_plain
from hyenadna.cli.units import counted, duration
from hyenadna.errors import InputError

if TYPE_CHECKING:
    from hyenadna.infer.run_record import RunRecord
    from hyenadna.infer.shard_merge import WholeRun
    from hyenadna.infer.shards import FoundShard


def merge(
    out: Path,
    /,
    *,
    keep_shards: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Make the output of all shards: what one process would have written.

    For `embed`, `score`, `track` and `predict` with `--shard i/n`. Says which shard is missing, or
    was made with another model, input or other settings. Model and inputs are read again (not run)
    to see that they are still the same; then the output is written beside and renamed, with its
    record, and the shards are removed.

    Parameters
    ----------
    out
        The output that the shards were given with `--out`.
    keep_shards
        Leave the shards where they are.
    """
    console = make_console()
    count, seconds = merge_shards(out, keep=keep_shards)
    console.print(f"{counted(count, 'shard')} merged in {duration(seconds)}: {out}")


def merge_shards(out: Path, *, keep: bool = False) -> tuple[int, float]:
    """Write the output of all shards; returns their number and the seconds that it took.

    keep: leave the shards there. Raises InputError where they are not all there, complete and of
    one run, and where the model or an input is no longer what it was.
    """
    from hyenadna.infer.shard_merge import complete_shards, held_shards, remove_shards

    begun = time.monotonic()
    if not keep and (merged := _merged_before(out)):
        remove_shards(merged)
        return merged[0].shard.count, time.monotonic() - begun
    _require_free(out)
    run = complete_shards(out)
    _require_same_arguments(run)
    with held_shards(run.shards):
        _require_free(out)
        _make(run, out)
        if not keep:
            remove_shards(run.shards[1:])
    if not keep:
        remove_shards(run.shards[:1])  # not held any more: NFS keeps a folder with an open file
    return len(run.shards), time.monotonic() - begun


def _merged_before(out: Path) -> list[FoundShard]:
    """The shards that a merge which was killed had put into this output, as its record tells.

    Empty where not all of them are such. One that it had begun to remove may lack its files.
    """
    from hyenadna.infer.interrupted import SHARD
    from hyenadna.infer.run_record import read_record
    from hyenadna.infer.shards import find_shards

    try:
        figures = read_record(out).figures
        files = [out, *(out.with_name(name) for name in figures.get("files", {}).values())]
        merged = {each["shard"]: each for each in figures["each_shard"]}
        found = find_shards(out)
        for each in found:
            own, told = merged[str(each.shard)], each.folder / SHARD
            if told.exists():
                mine = _of_shard(str(each.shard), json.loads(told.read_text())["record"])
                if own != mine:
                    return []
    except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    there = any(file.exists() for file in files)
    return found if there and all(each.complete for each in found) else []


def _require_same_arguments(run: WholeRun) -> None:
    """Refuse the first shard whose options, those on which no number depends, are not the first's.

    The others are settings, which are compared before.
    """
    for shard, told in zip(run.shards, run.told, strict=True):
        other = other_words(told, run.told[0], run.records[0].get("settings") or {})
        if other:
            raise InputError(
                f"{shard.folder}: was made with {other} as shard {run.shards[0].shard}; remove it "
                f"and run --shard {shard.shard} again"
            )


def _require_free(out: Path) -> None:
    if out.exists():
        raise InputError(f"{out}: exists; remove it to merge the shards again")


def _make(run: WholeRun, name: Path) -> None:
    """Write the output of all shards, with its record."""
    from hyenadna.infer.interrupted import OtherSettings
    from hyenadna.infer.shard_merge import assembled

    out = name.absolute()
    try:
        with assembled(out, run), _folder(run, name):
            _write(run, out)
    except OtherSettings as error:
        raise InputError(
            f"{name}: the shards were made with {error.difference}: the model or an input has "
            "changed since; run the shards again, or put back what was there"
        ) from error
    except InputError as error:
        raise InputError(_advice(str(error))) from error


def _advice(line: str) -> str:
    """A line of a verb, with what it advises as one can do it in a merge."""
    line = line.replace(", or give another --out", "").replace(", or stop it and", ", and")
    return re.sub(r"(, or )?go on with --resume.*", "merge again", line)


def _write(run: WholeRun, out: Path) -> None:
    """Run the verb once more, which finds that only the output is left to write."""
    arguments = {name: from_plain(value) for name, value in run.arguments.items()}
    arguments |= {
        "out": out,
        "resume": True,
        "spread": SpreadOptions(merging=partial(_record, run)),
    }
    call(run.verb, changed(arguments, device="cpu", max_memory=None, threads=None))


def _folder(run: WholeRun, out: Path) -> contextlib.AbstractContextManager[Any]:
    """The folder where the shards were run, on which the names of their inputs depend."""
    if run.folder is None or run.folder == Path.cwd():
        return contextlib.nullcontext()
    if not run.folder.is_dir():
        raise InputError(
            f"{out}: its shards were run in {run.folder}, which is not here; merge it on a machine "
            "that has this folder, or give the shards whole paths"
        )
    return contextlib.chdir(run.folder)


def _record(run: WholeRun, record: RunRecord) -> RunRecord:
    """The record of the output with what the shards took, in place of what the merge took."""
    import dataclasses

    own = [_of_shard(str(s.shard), r) for s, r in zip(run.shards, run.records, strict=True)]
    figures = {k: v for k, v in record.figures.items() if not _of_one_process(k)}
    seconds = [float(each["seconds"]) for each in own]
    figures |= {
        "shards": len(own),
        "seconds": sum(seconds),
        "seconds_of_the_longest_shard": max(seconds),
        "peak_memory_bytes": max((each["peak_memory_bytes"] or 0 for each in own), default=None),
        "each_shard": own,
    }
    machine = own[0]["machine"] or record.machine
    command = _without_shard(str(run.records[0].get("command"))) or record.command
    return dataclasses.replace(record, figures=figures, machine=machine, command=command)


def _without_shard(command: str) -> str:
    """The command of the whole run; empty where that of a shard does not tell (a task of Ray)."""
    words = shlex.split(command)
    own = [word for word in words if word != "--resume" and not word.startswith("--shard=")]
    if "--shard" in own:
        at = own.index("--shard")
        del own[at : at + 2]
    return shlex.join(own) if len(words) - len(own) > ("--resume" in words) else ""


def _of_shard(name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    figures = record.get("figures") or {}
    return {
        "shard": name,
        "made": record.get("made"),
        "machine": record.get("machine") or {},
        "seconds": figures.get("seconds") or 0.0,
        "peak_memory_bytes": figures.get("peak_memory_bytes"),
    }


def _of_one_process(figure: str) -> bool:
    return figure.endswith(("_a_second", "_per_second", "_of_this_run", "scoring_seconds"))
