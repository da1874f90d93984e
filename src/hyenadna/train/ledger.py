"""The reproduction ledger: one JSON file per run of a benchmark, and the tables made from them.

    ledger/<suite>--<task>--<model>--<digest>.json

A file holds what was run (task, data and their digest, rows of each part, configuration, seeds),
what came out (mean, standard deviation and interval of each metric, the baselines on the same
rows), and what it took (seconds, machine, versions, date). Tables of the documentation are
generated from these files alone, so a figure without a file cannot stand in them.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import math
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal, Self, get_args

from hyenadna.errors import InputError

LEDGER_VERSION: Final = 1
Protocol = Literal["valid", "test"]
"""The split on which step and model were chosen. `test` is what the paper did."""
_NAME: Final = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_WORD: Final = 60  # of a file name, which may have 255 letters in all


@dataclass(frozen=True)
class Score:
    """One metric over the seeds of a run."""

    mean: float
    sd: float | None = None
    """Standard deviation over seeds (n - 1); None for one seed."""
    interval: tuple[float, float] | None = None
    """Low and high end of the bootstrap interval."""
    per_seed: tuple[float, ...] = ()

    @classmethod
    def of(cls, values: Sequence[float], interval: tuple[float, float] | None = None) -> Self:
        """Mean and standard deviation of one value a seed. Raises InputError for none."""
        if not values:
            raise InputError("ledger: a score needs the value of at least one seed")
        sd = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), sd, interval, tuple(map(float, values)))

    @property
    def text(self) -> str:
        """`0.812 ± 0.004 [0.790, 0.831]`, as much of it as is known."""
        text = f"{self.mean:.3f}"
        if self.sd is not None:
            text += f" ± {self.sd:.3f}"
        if self.interval is not None:
            text += f" [{self.interval[0]:.3f}, {self.interval[1]:.3f}]"
        return text


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """One run of one model on one task."""

    suite: str
    task: str
    model: str
    """What was run, in words that a table can show: `tiny-1k, yeast`, `tiny-1k, random weights`."""
    data_digest: str
    """SHA-256 (hex) over sequences, targets and splits."""
    rows: Mapping[str, int]
    """Rows of train, valid and test."""
    config: Mapping[str, Any]
    seeds: tuple[int, ...]
    metric: str
    """The metric of the table; a key of `scores`."""
    scores: Mapping[str, Score]
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Metrics of each baseline on the same rows, by name."""
    protocol: Protocol = "valid"
    scored_on: str = "test"
    """The split that `scores` were measured on."""
    seconds: float
    machine: str
    versions: Mapping[str, str]
    """python, torch, numpy, hyenadna, and the commit where there is one."""
    date: str
    """Day of the run, YYYY-MM-DD."""
    note: str = ""

    def __post_init__(self) -> None:
        where = f"ledger entry {self.suite}/{self.task}"
        _require(
            bool(self.suite and self.task and self.model), where, "suite, task, model", "empty"
        )
        _require(
            re.fullmatch("[0-9a-f]{64}", self.data_digest) is not None,
            where, "data_digest", f"{self.data_digest!r}, not a SHA-256 in hex",
        )  # fmt: skip
        _require(
            min(self.rows.values(), default=0) >= 0 and self.rows.get(self.scored_on, 0) > 0,
            where, "rows", f"{dict(self.rows)}; {self.scored_on} must have some",
        )  # fmt: skip
        _require(len(self.seeds) > 0, where, "seeds", "empty")
        _require(
            self.metric in self.scores, where, "metric",
            f"{self.metric!r}, which has no score; there are {', '.join(self.scores)}",
        )  # fmt: skip
        for name, score in self.scores.items():
            _require(_finite(score), where, f"scores.{name}", f"{score}; numbers must be finite")
            _require(
                len(score.per_seed) in (0, len(self.seeds)),
                where, f"scores.{name}.per_seed",
                f"{len(score.per_seed)} values for {len(self.seeds)} seeds",
            )  # fmt: skip
        _require(self.protocol in get_args(Protocol), where, "protocol", repr(self.protocol))
        _require(
            math.isfinite(self.seconds) and self.seconds >= 0, where, "seconds", str(self.seconds)
        )
        _require(_is_day(self.date), where, "date", f"{self.date!r}, not YYYY-MM-DD")

    @property
    def file_name(self) -> str:
        """Name of the file: another run of the same thing replaces it, anything else does not."""
        names = [self.suite, self.task, self.model]
        rest = [self.data_digest, self.config, list(self.seeds), self.protocol, self.scored_on]
        what = json.dumps([*names, *rest], sort_keys=True, default=str)
        digest = hashlib.sha256(what.encode()).hexdigest()
        words = [_NAME.sub("-", name)[:_LONGEST_WORD].strip("-") for name in names]
        return "--".join([*words, digest[:8]]) + ".json"

    def to_json(self) -> str:
        """The entry as JSON text."""
        values = {"version": LEDGER_VERSION} | dataclasses.asdict(self)
        return json.dumps(values, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: str) -> Self:
        """The entry of JSON text; `where` names the file in messages.

        Raises InputError for text that is no entry, naming what is wrong with it.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise InputError(f"{where}: is not JSON ({error}); run the benchmark again") from None
        if not isinstance(values, dict) or values.pop("version", None) != LEDGER_VERSION:
            raise InputError(f"{where}: is no ledger entry of version {LEDGER_VERSION}")
        known = {f.name: f for f in dataclasses.fields(cls)}
        required = {
            name
            for name, f in known.items()
            if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        }
        for problem, names in (
            ("lacks", required - set(values)),
            ("has unknown", set(values) - set(known)),
        ):
            if names:
                raise InputError(f"{where}: {problem} {', '.join(sorted(names))}")
        try:
            values["scores"] = {name: _score(raw) for name, raw in values["scores"].items()}
            values["seeds"] = tuple(int(seed) for seed in values["seeds"])
            return cls(**values)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            raise InputError(f"{where}: a field is not of its type ({error})") from None


def _score(raw: Mapping[str, Any]) -> Score:
    interval = raw.get("interval")
    sd = raw.get("sd")
    return Score(
        float(raw["mean"]),
        None if sd is None else float(sd),
        None if interval is None else (float(interval[0]), float(interval[1])),
        tuple(float(value) for value in raw.get("per_seed", ())),
    )


def _finite(score: Score) -> bool:
    numbers = [score.mean, *score.per_seed, *(score.interval or ())]
    return all(math.isfinite(x) for x in (numbers if score.sd is None else [*numbers, score.sd]))


def _require(ok: bool, where: str, name: str, problem: str) -> None:
    if not ok:
        raise InputError(f"{where}: {name} is {problem}")


def _is_day(text: str) -> bool:
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def write_entry(entry: LedgerEntry, folder: Path) -> Path:
    """The path of the file of an entry, written beside and renamed; the folder is made.

    Raises InputError where it cannot be written.
    """
    path = folder / entry.file_name
    beside = path.with_name(path.name + ".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        beside.write_text(entry.to_json(), encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    return path


def read_ledger(folder: Path) -> list[LedgerEntry]:
    """All entries of a folder, by file name; none where there is no folder.

    Raises InputError for a file that is no entry, and for one whose name is not that of its entry
    (edited by hand, or renamed).
    """
    entries = []
    for path in sorted(folder.glob("*.json")):
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = "it is no text" if isinstance(error, UnicodeDecodeError) else error.strerror
            raise InputError(f"{path}: is no ledger entry ({why}); remove the file") from None
        entry = LedgerEntry.from_json(text, where=str(path))
        if path.name != entry.file_name:
            raise InputError(
                f"{path}: its content belongs to {entry.file_name}; it was renamed or edited - "
                "remove the file, and run the benchmark again where the entry is needed"
            )
        entries.append(entry)
    return entries


def machine_text() -> str:
    """This machine in a line: processor, cores that this process may use, system."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    return f"{_processor()}, {cores} cores, {platform.system()}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of python, torch, numpy, scikit-learn and hyenadna, and the commit of a checkout."""
    found = {"python": platform.python_version()}
    for package in ("torch", "numpy", "scikit-learn", "hyenadna"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    commit = _commit(Path(__file__).resolve().parent)
    return found | ({"commit": commit} if commit else {})


def _commit(folder: Path) -> str | None:
    """Commit of the checkout that tracks this code, with `+` where tracked files are changed."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if not git("ls-files", "--error-unmatch", "build.py"):
        return None  # installed inside of some other checkout
    commit = git("rev-parse", "--short=12", "HEAD")
    if not commit:
        return None
    return commit + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def make_table(
    entries: Iterable[LedgerEntry],
    tasks: Sequence[tuple[str, str]],
    published: Mapping[tuple[str, str], Sequence[tuple[str, str]]] | None = None,
) -> str:
    """A markdown table of runs: one row a run, and an empty row for a task without one.

    tasks: (suite, task) of each row, in order. published: columns of figures from the literature,
    (name, text) of each, by (suite, task). Entries of other tasks are left out.
    """
    published = published or {}
    by_task: dict[tuple[str, str], list[LedgerEntry]] = {}
    for entry in entries:
        by_task.setdefault((entry.suite, entry.task), []).append(entry)
    shown = [entry for key in tasks for entry in by_task.get(key, [])]
    figures = _in_order(name for key in tasks for name, _ in published.get(key, ()))
    baselines = _in_order(name for entry in shown for name in entry.baselines)
    head = ["task", "metric", "model", "score", *baselines, *figures, "rows", "minutes", "protocol"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for key in tasks:
        cited = dict(published.get(key, ()))
        runs: Sequence[LedgerEntry | None] = by_task.get(key) or [None]
        for run in runs:
            ours = _cells(run, baselines)
            cells = [
                _cell(key[1]),
                *ours[:-3],
                *(cited.get(name, "") for name in figures),
                *ours[-3:],
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cells(entry: LedgerEntry | None, baselines: Sequence[str]) -> list[str]:
    """Metric, model, score, each baseline, rows, minutes, protocol; all empty without a run."""
    if entry is None:
        return [""] * (6 + len(baselines))
    compared = [entry.baselines.get(name, {}).get(entry.metric) for name in baselines]
    rows = " / ".join(str(entry.rows.get(part, 0)) for part in ("train", "valid", "test"))
    chosen = f"chosen on {entry.protocol}, scored on {entry.scored_on}"
    return [
        entry.metric,
        _cell(entry.model),
        entry.scores[entry.metric].text,
        *("" if value is None else f"{value:.3f}" for value in compared),
        rows,
        f"{entry.seconds / 60:.1f}",
        f"{chosen}, {len(entry.seeds)} seed{'s'[: len(entry.seeds) != 1]}",
    ]


def _cell(text: str) -> str:
    """Text that stays in its cell of a markdown table."""
    return text.replace("|", "/")


def _in_order(names: Iterable[str]) -> list[str]:
    """Each name once, in the order of its first occurrence."""
    return list(dict.fromkeys(names))
