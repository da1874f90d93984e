"""Values of a track run on disk while it runs, so that they need no memory and survive a crash.

OUT.part/settings.json   what the values are computed with
OUT.part/done.json       how many windows are done
OUT.part/values          float32: for each strand and channel, every base of the regions
OUT.part/places          of a shard alone, whose values stand one after the other: where they belong
OUT.part/track0, …       the files that are made of them in the end
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from hyenadna.errors import InputError
from hyenadna.genome.intervals import Interval
from hyenadna.infer import interrupted
from hyenadna.infer.shards import Shard, place_of
from hyenadna.infer.track import TrackedBases, TrackedBatch
from hyenadna.infer.track_windows import Strand, TrackPlan

_VALUES, _PLACES, _DONE = "values", "places", "done.json"
MOST_FILES: Final = 32
_ITEM: Final = 4
_PAIR: Final = np.dtype("<i8")
FILES: Final = (_VALUES, _PLACES, _DONE, f"{_DONE}.new", *(f"track{i}" for i in range(MOST_FILES)))
"""What stands in the folder of a run."""

Floats = npt.NDArray[np.float32]


class TrackSpill:
    """The values of one run; made by `start` or `resume`."""

    def __init__(
        self, path: Path, plan: TrackPlan, channels: Sequence[str], shard: Shard | None = None
    ) -> None:
        """Hold the folder beside `path`, or beside its shard.

        Raises InputError where another process does.
        """
        self.path, self.plan, self.channels = path, plan, tuple(channels)
        self.windows_done = 0
        """Windows whose values are there, of the whole run or of the shard."""
        self._shard = shard
        self._end = self._cuts = 0  # of a shard: bytes of values, and number of their places
        self._part = interrupted.Part(place_of(path, shard), FILES)
        self._places = _places(plan.regions)

    @classmethod
    def start(
        cls,
        path: Path,
        plan: TrackPlan,
        channels: Sequence[str],
        settings: Mapping[str, Any],
        shard: Shard | None = None,
    ) -> Self:
        """A spill without values yet; those of an interrupted run are dropped.

        settings: plain values, all that the values depend on. shard: of which these are the values,
        where it is not the whole. Raises InputError where it cannot be written.
        """
        return cls(path, plan, channels, shard)._emptied(settings)

    @classmethod
    def resume(
        cls,
        path: Path,
        plan: TrackPlan,
        channels: Sequence[str],
        settings: Mapping[str, Any],
        shard: Shard | None = None,
    ) -> tuple[Self, str]:
        """The spill of an interrupted run, and an empty text.

        Where there is none, or a damaged one, an empty spill and a line that says why. Raises
        InputError where it was made with other settings; it stays.
        """
        spill = cls(path, plan, channels, shard)
        reason = spill._part.why_not_resumed(settings)
        if not reason and not spill._restored():
            reason = spill._part.damaged()
        return (spill._emptied(settings), reason) if reason else (spill, "")

    @property
    def size(self) -> int:
        """Bytes of the values."""
        return _ITEM * self.plan.bases * len(self.channels) * len(self.plan.strands)

    def append(self, batch: TrackedBatch) -> None:
        """Put the values of a batch in their places. Raises InputError when the disk is full."""
        self._part.require_mine()
        try:
            placed = [each for tracked in batch.tracked for each in self._cut(tracked)]
            with self._values.open("r+b") as file:
                for place, values in placed:
                    file.seek(place if self._shard is None else self._end)
                    file.write(values.tobytes())
                    self._end += values.nbytes
            if self._shard is not None:
                pairs = np.array([(p, v.nbytes) for p, v in placed], dtype=_PAIR)
                with (self._part.folder / _PLACES).open("r+b") as file:
                    file.seek(2 * _PAIR.itemsize * self._cuts)
                    file.write(pairs.tobytes())
                self._cuts += len(placed)
            self.windows_done += batch.windows
            self._mark()
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror or error}); make room and go on "
                "with --resume"
            ) from error

    def read(self, channel: str, strand: Strand, at: Interval) -> Floats:
        """Values of bases inside one region: float32, (bases,)."""
        starts, regions, before = self._places[at.contig]
        index = bisect.bisect_right(starts, at.start) - 1
        place = self._place(
            self.channels.index(channel), strand, before[index] + at.start - regions[index].start
        )
        with self._values.open("rb") as file:
            file.seek(place)
            return np.fromfile(file, dtype="<f4", count=at.length).astype(np.float32, copy=False)

    def beside(self, number: int) -> Path:
        """Where the file of a track is written until the run ends."""
        if number >= MOST_FILES:
            raise ValueError(f"track {number} of at most {MOST_FILES}")
        return self._part.folder / f"track{number}"

    def seal(self, about: Mapping[str, Any]) -> None:
        """The values so far are those of a complete shard; see `interrupted.Part.seal`."""
        self._part.seal(about, check)

    def finish(self, files: Sequence[Path]) -> None:
        """The files written so far take these names, and the rest goes."""
        self._part.finish_all({self.beside(i): path for i, path in enumerate(files)})

    @property
    def _values(self) -> Path:
        return self._part.folder / _VALUES

    def _place(self, channel: int, strand: Strand, base: int) -> int:
        """Byte of a value; base: from the first of all regions on."""
        row = self.plan.strands.index(strand) * len(self.channels) + channel
        return _ITEM * (row * self.plan.bases + base)

    def _cut(self, tracked: TrackedBases) -> list[tuple[int, Floats]]:
        """Place and values of what lies in the regions."""
        starts, regions, before = self._places[tracked.contig]
        stop = tracked.start + tracked.values.shape[1]
        found = []
        for index in range(max(0, bisect.bisect_right(starts, tracked.start) - 1), len(regions)):
            region = regions[index]
            if region.start >= stop:
                break
            first, last = max(region.start, tracked.start), min(region.stop, stop)
            if first >= last:
                continue
            base = before[index] + first - region.start
            for channel, row in enumerate(tracked.values):
                values = row[first - tracked.start : last - tracked.start].astype("<f4")
                found.append((self._place(channel, tracked.strand, base), values))
        return found

    def _emptied(self, settings: Mapping[str, Any]) -> Self:
        with self._part.cleared(settings):
            with self._values.open("wb") as file:
                file.truncate(self.size if self._shard is None else 0)
            if self._shard is not None:
                (self._part.folder / _PLACES).write_bytes(b"")
            self.windows_done = self._end = self._cuts = 0
            self._mark()
        return self

    def _mark(self) -> None:
        beside = self._part.folder / f"{_DONE}.new"
        state = {"windows": self.windows_done}
        if self._shard is not None:
            state |= {"end": self._end, "cuts": self._cuts, "size": self.size}
        beside.write_text(json.dumps(state))
        beside.replace(self._part.folder / _DONE)

    def _restored(self) -> bool:
        """Whether the state of an interrupted run is whole."""
        try:
            state = json.loads((self._part.folder / _DONE).read_text())
            done = int(state["windows"])
            whole = self._values.stat().st_size == self.size
            if self._shard is not None:
                self._end, self._cuts = int(state["end"]), int(state["cuts"])
                whole = _holds(self._part.folder, self._end, self._cuts)
        except (OSError, ValueError, KeyError, TypeError):
            return False
        self.windows_done = done
        return whole and 0 <= done <= self.plan.count


def _holds(folder: Path, end: int, cuts: int) -> bool:
    """Whether the files of a shard are as long as its state says, or longer."""
    places = (folder / _PLACES).stat().st_size
    return (folder / _VALUES).stat().st_size >= end and places >= 2 * _PAIR.itemsize * cuts


def check(part: Path) -> int:
    """Windows of the complete shard in a folder.

    Raises OSError, ValueError, KeyError and TypeError for one that is damaged.
    """
    state = json.loads((part / _DONE).read_text())
    interrupted.require_size(part / _VALUES, state["end"])
    interrupted.require_size(part / _PLACES, 2 * _PAIR.itemsize * state["cuts"])
    return int(state["windows"])


def gather(parts: Sequence[Path], folder: Path) -> None:
    """Put the values of the folders of complete shards in their places in that of a whole run.

    Raises OSError and ValueError for one that is damaged.
    """
    windows, size = 0, 0
    with (folder / _VALUES).open("wb") as out:
        for part in parts:
            state = json.loads((part / _DONE).read_text())
            if not _holds(part, state["end"], state["cuts"]):
                raise ValueError(f"{part}: ends too early")
            with (part / _VALUES).open("rb") as values:
                for place, count in _pairs(part / _PLACES, state["cuts"]):
                    out.seek(place)
                    out.write(values.read(count))
            windows, size = windows + state["windows"], state["size"]
        out.truncate(size)
    (folder / _DONE).write_text(json.dumps({"windows": windows}))


def _pairs(path: Path, cuts: int) -> Iterator[tuple[int, int]]:
    """Place and bytes of each piece of the values of a shard."""
    with path.open("rb") as stream:
        while cuts:
            pairs = np.fromfile(stream, _PAIR, 2 * min(cuts, 1 << 16)).reshape(-1, 2)
            yield from ((int(place), int(count)) for place, count in pairs)
            cuts -= len(pairs)


_Placed = tuple[list[int], list[Interval], list[int]]


def _places(regions: Sequence[Interval]) -> dict[str, _Placed]:
    """By contig: starts of the regions, the regions, and the bases of all regions before each."""
    places: dict[str, _Placed] = {}
    before = 0
    for region in regions:
        starts, mine, bases = places.setdefault(region.contig, ([], [], []))
        starts.append(region.start)
        mine.append(region)
        bases.append(before)
        before += region.length
    return places
