"""One run of a verb as several: its shards, and what is said of each for the merge."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from cyclopts import Parameter

from hyenadna import __version__
from hyenadna.cli.console import make_console
from hyenadna.cli.run_options import RunOptions
from hyenadna.cli.same_arguments import names_relative, other_option
from hyenadna.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from hyenadna.infer.run_record import RunRecord
    from hyenadna.infer.shards import Shard


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SpreadOptions:
    """How a run is spread over processes and machines."""

    shard: str | None = None
    """Compute one part of the input alone, such as `3/8` (from `1/8`); `hyenadna merge OUT` makes
    the output of all parts."""
    engine: Literal["ray"] | None = None
    """`ray`: compute all parts on a Ray cluster, and merge them; needs `hyenadna[ray]`."""
    ray_address: str | None = None
    """Of the Ray cluster: `auto`, `ray://…`, host and port; one on this machine when left out."""
    shards: int | None = None
    """Parts for Ray; four for each task that can run at a time when left out."""
    task_cpus: int | None = None
    """CPUs, and threads, of each Ray task; `--threads`, or 1, when left out."""
    task_gpus: float | None = None
    """GPUs of each Ray task; 1 where the cluster has some and `--device` is not `cpu`."""
    merging: Annotated[Callable[[Any], Any] | None, Parameter(parse=False)] = None
    """That all results are there, of the shards, and only the output is made: gives the record of
    all shards for that of the run."""


USUAL = SpreadOptions()


class Results(Protocol):
    """The results of a run on their way into an output, such as a `RowsFile`."""

    def seal(self, about: Mapping[str, Any]) -> None:
        """Make them those of a complete shard."""
        ...


@dataclass(frozen=True)
class Cut:
    """What of its input a run reads: all of it, or a shard."""

    units: range
    """Units of the shard, of so many in all."""
    of: int
    items: range
    """What they hold: records, windows or sequences, by number."""
    results: int
    """Number of results of it: of those, or rows."""


@dataclass(frozen=True)
class Spread:
    """What a run of a verb is: the whole, or a shard."""

    verb: str
    arguments: Mapping[str, Any]
    """Of the verb's function, by name."""
    out: Path
    shard: Shard | None
    merging: Callable[[RunRecord], RunRecord] | None
    """See `SpreadOptions`."""

    @property
    def place(self) -> Path:
        """What the run makes: the output, or the folder of the shard."""
        from hyenadna.infer.shards import place_of

        return place_of(self.out, self.shard)

    def told(self, note: str, console: Console) -> None:
        """Print why nothing was resumed. Raises InputError where all results should be there."""
        if note and self.merging:
            raise InputError(f"{note}; the shards do not fit together, run them again")
        if note:
            console.print(f"note: {note}")

    def cut(self, items: int, units: Iterable[tuple[int, int]], what: str, console: Console) -> Cut:
        """What of so many items (records, windows) this run reads, which is announced for a shard.

        units: items and work of each unit of the whole run, in order; not asked for without need.
        what: the work, in words.
        """
        if self.shard is None:
            return Cut(range(0), 0, range(items), items)
        ends, work = [0], [0]
        with console.status("cutting the input …"):
            for count, own in units:
                ends.append(ends[-1] + count)
                work.append(work[-1] + own)
        chosen = self.shard.units(work[1:])
        own = work[chosen.stop] - work[chosen.start]
        console.print(f"shard {self.shard}: {own:,} of {work[-1]:,} {what}")
        if len(ends) - 1 < self.shard.count:
            console.print(
                f"note: so small an input is cut in {len(ends) - 1:,} pieces at most (the same for "
                "any number of shards), so some shards are empty"
            )
        held = range(ends[chosen.start], ends[chosen.stop])
        return Cut(chosen, len(ends) - 1, held, len(held))

    def end(self, results: Results, cut: Cut, record: RunRecord, console: Console) -> None:
        """Put the record of a whole run beside its output, or seal the shard with it.

        Raises InputError where it cannot be written.
        """
        from hyenadna.infer.run_record import write_record

        if self.shard is None:
            write_record(self.out, self.merging(record) if self.merging else record)
            return
        results.seal(self.about(cut, record))
        self.say_complete(console)

    def about(self, cut: Cut, record: RunRecord) -> dict[str, Any]:
        """What the merge must know of a complete shard."""
        return {
            **asked(self.verb, self.arguments),
            "units": {"first": cut.units.start, "last": cut.units.stop, "of": cut.of},
            "results": cut.results,
            "record": dataclasses.asdict(record),
        }

    def say_complete(self, console: Console) -> None:
        """How to go on."""
        console.print(
            f"shard {self.shard} is complete: {self.place}; when all are, hyenadna merge {self.out}"
        )


def begin(verb: str, arguments: Mapping[str, Any]) -> Spread | None:
    """What this run is; None where nothing is left to do: Ray has done it, or it was complete.

    arguments: of the verb's function, `spread`, `out` and `resume` among them. Raises InputError
    for options that exclude each other, and as the verb does where Ray runs it.
    """
    spread, out = arguments["spread"], arguments["out"]
    if spread.engine or spread.shard:
        _require_files(arguments)
    if spread.engine == "ray":
        from hyenadna.cli.ray_engine import run_on_ray

        if spread.shard is not None:
            raise InputError("--shard is one part alone, --engine ray runs all; give one of them")
        run_on_ray(verb, arguments)
        return None
    for name in ("ray_address", "shards", "task_cpus", "task_gpus"):
        if getattr(spread, name) is not None:
            raise InputError(f"--{name.replace('_', '-')} is for --engine ray; give that as well")
    if spread.shard is None:
        return Spread(verb, arguments, out, None, spread.merging)
    from hyenadna.infer.interrupted import SHARD
    from hyenadna.infer.shards import Shard

    shard = Shard.parse(spread.shard)
    mine = Spread(verb, arguments, out, shard, None)
    if out.exists():
        raise InputError(f"{out}: exists; remove it, or give another --out")
    if not mine.place.exists():
        return mine
    if not arguments["resume"] and (mine.place / SHARD).is_file():
        raise InputError(
            f"{mine.place}: this shard is complete; merge it (hyenadna merge {out}), or remove it "
            "to compute it again"
        )
    require_same(mine.place, verb, arguments)
    mine.say_complete(make_console())
    return None


def _require_files(arguments: Mapping[str, Any]) -> None:
    """Refuse an input that can be read once alone, such as a pipe."""
    for name, value in arguments.items():
        for path in value if isinstance(value, (list, tuple)) else [value]:
            if not isinstance(path, Path) or name == "out" or not path.exists():
                continue
            if not (path.is_file() or path.is_dir()):
                raise InputError(
                    f"{path}: is no file; every shard reads its inputs, and so does the merge"
                )


def require_same(place: Path, verb: str, arguments: Mapping[str, Any]) -> None:
    """Nothing, where the complete shard in this folder was asked for in the same way.

    Raises InputError otherwise, and for a damaged one. What the files hold is left to the merge.
    """
    from hyenadna.infer.interrupted import SHARD

    try:
        told = json.loads((place / SHARD).read_text())
        now = json.loads(json.dumps(asked(verb, arguments)))
        other = _difference(told, now)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{place}: this shard is damaged ({error}); remove it and run it again"
        ) from error
    if other:
        raise InputError(
            f"{place}: this shard is complete, made with {other}; ask for the same, or "
            "remove it to compute it again"
        )


def _difference(told: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    for name in ("hyenadna", "verb"):
        if told[name] != now[name]:
            return f"{name} {told[name]}, not {now[name]}"
    return other_option(told, now)


def asked(verb: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What a run was asked for, for JSON: version, verb, arguments and the folder they are from.

    relative: whether the arguments name something from there.
    """
    plain = _plain(arguments)
    return {
        "hyenadna": __version__,
        "verb": verb,
        "arguments": plain,
        "folder": str(Path.cwd()),
        "relative": names_relative(plain),
    }


def call(verb: str, arguments: Mapping[str, Any]) -> None:
    """Run a verb in this process. Raises as it does."""
    import importlib
    import inspect

    module = verb.replace("-", "_")
    function = getattr(importlib.import_module(f"hyenadna.cli.{module}"), module)
    rest = dict(arguments)
    kinds = inspect.signature(function).parameters.values()
    first = [rest.pop(each.name) for each in kinds if each.kind is each.POSITIONAL_ONLY]
    function(*first, **rest)


def changed(arguments: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """The arguments with other options, also those that stand in `on`, where the verb has them."""
    found = dict(arguments)
    for name, value in options.items():
        if name in found:
            found[name] = value
        elif isinstance(on := found.get("on"), RunOptions):
            found["on"] = dataclasses.replace(on, **{name: value})
    return found


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments for JSON, without how they were spread."""
    return {name: _to_plain(value) for name, value in arguments.items() if name != "spread"}


def _to_plain(value: Any) -> Any:
    if isinstance(value, Path):
        return {"path": str(value)}
    if isinstance(value, RunOptions):
        return {"on": dataclasses.asdict(value)}
    if isinstance(value, (list, tuple)):
        return [_to_plain(each) for each in value]
    return value


def from_plain(value: Any) -> Any:
    """The arguments that `Spread.about` told."""
    if isinstance(value, list):
        return [from_plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"path"}:
        return Path(value["path"])
    if set(value) == {"on"} and isinstance(value["on"], dict) and "on" not in value["on"]:
        return RunOptions(**value["on"])
    return {name: from_plain(each) for name, each in value.items()}
