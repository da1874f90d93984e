"""Values of a track run on disk while it runs, so that they need no memory and survive a crash.

OUT.part/settings.json   what the values are computed with
OUT.part/done.json       how many windows are done
OUT.part/values          float32: for each strand and channel, every base of the regions
OUT.part/track0, …       the files that are made of them in the end
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from hyenadna.errors import InputError
from hyenadna.genome.intervals import Interval
from hyenadna.infer import interrupted
from hyenadna.infer.track import TrackedBases, TrackedBatch
from hyenadna.infer.track_windows import Strand, TrackPlan

_VALUES, _DONE = "values", "done.json"
MOST_FILES: Final = 32
_ITEM: Final = 4

Floats = npt.NDArray[np.float32]


class TrackSpill:
    """The values of one run; made by `start` or `resume`."""

    def __init__(self, path: Path, plan: TrackPlan, channels: Sequence[str]) -> None:
        """Hold the folder beside `path`. Raises InputError where another process does."""
        self.path, self.plan, self.channels = path, plan, tuple(channels)
        self.windows_done = 0
        own = (_VALUES, _DONE, f"{_DONE}.new", *(f"track{i}" for i in range(MOST_FILES)))
        self._part = interrupted.Part(path, own)
        self._places = _places(plan.regions)

    @classmethod
    def start(
        cls, path: Path, plan: TrackPlan, channels: Sequence[str], settings: Mapping[str, Any]
    ) -> Self:
        """A spill without values yet; those of an interrupted run are dropped.

        settings: plain values, all that the values depend on. Raises InputError where it cannot be
        written.
        """
        return cls(path, plan, channels)._emptied(settings)

    @classmethod
    def resume(
        cls, path: Path, plan: TrackPlan, channels: Sequence[str], settings: Mapping[str, Any]
    ) -> tuple[Self, str]:
        """The spill of an interrupted run, and an empty text.

        Where there is none, or a damaged one, an empty spill and a line that says why. Raises
        InputError where it was made with other settings; it stays.
        """
        spill = cls(path, plan, channels)
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
        try:
            with self._values.open("r+b") as file:
                for tracked in batch.tracked:
                    for place, values in self._cut(tracked):
                        file.seek(place)
                        file.write(values.tobytes())
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
                file.truncate(self.size)
            self.windows_done = 0
            self._mark()
        return self

    def _mark(self) -> None:
        beside = self._part.folder / f"{_DONE}.new"
        beside.write_text(json.dumps({"windows": self.windows_done}))
        beside.replace(self._part.folder / _DONE)

    def _restored(self) -> bool:
        """Whether the state of an interrupted run is whole."""
        try:
            done = int(json.loads((self._part.folder / _DONE).read_text())["windows"])
            whole = self._values.stat().st_size == self.size
        except (OSError, ValueError, KeyError, TypeError):
            return False
        self.windows_done = done
        return whole and 0 <= done <= self.plan.count


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
