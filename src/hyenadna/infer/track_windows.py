"""The windows in which a genome is read for its tracks: a grid on each contig and strand.

In the direction of its strand, window i of a contig begins at base i S, where S = length - context,
and gives values to the bases that no window before it gave any: window 0 to the bases 0 .. length,
window i > 0 to S bases from i S + context + 1 on. So every base, but those of window 0, has more
than `context` bases before it. Nothing of this depends on the regions asked for: they only choose
windows, and cut off what lies behind the last base of them, which no value before depends on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from hyenadna.errors import InputError
from hyenadna.genome.intervals import Interval

_STRETCH_WINDOWS: Final = 4096

Strand = Literal["forward", "reverse"]
STRANDS: Final[tuple[Strand, ...]] = ("forward", "reverse")


@dataclass(frozen=True, slots=True)
class TrackWindow:
    """A stretch that the model reads at once, and the bases in it that get values."""

    contig: str
    strand: Strand
    start: int
    """First base that is read or gets a value, on the forward strand; `stop` is behind the last."""
    stop: int
    first: int
    """First base that gets a value, on the forward strand; `last` is behind the last."""
    last: int

    @property
    def length(self) -> int:
        """Tokens that the model reads: the last base in its direction is only predicted."""
        return self.stop - self.start - 1


class _Span(NamedTuple):
    """Windows front .. back of a contig, and the bases [start, stop) that they are needed for."""

    front: int
    back: int
    start: int
    stop: int


@dataclass(frozen=True)
class TrackPlan:
    """Windows over the regions of a genome.

    Raises InputError for a length below 1 and a context that is not below the length.
    """

    contigs: Mapping[str, int]
    """Lengths of all contigs by name, in the order of the genome."""
    regions: tuple[Interval, ...]
    """Bases that get values: in the order of the genome; they neither overlap nor touch."""
    length: int
    """Tokens of a window."""
    context: int
    """Least bases before a base that gets a value, except near the beginning of a contig."""
    strands: tuple[Strand, ...] = STRANDS

    def __post_init__(self) -> None:
        if not 0 <= self.context < self.length:
            raise InputError(
                f"windows of {self.length} bases with a context of {self.context}: the context "
                "must be below the length, and not below 0"
            )

    @property
    def bases(self) -> int:
        """Bases in all regions."""
        return sum(region.length for region in self.regions)

    @property
    def count(self) -> int:
        """Number of windows on all strands."""
        return sum(span.back - span.front + 1 for span in self._spans())

    @property
    def tokens(self) -> int:
        """Tokens that are read in all windows, without padding."""
        stride = self.length - self.context
        return sum(
            (span.back - span.front) * self.length + span.stop - 1 - span.back * stride
            for span in self._spans()
        )

    @property
    def longest(self) -> int:
        """Tokens of the longest window."""
        stride = self.length - self.context
        return max(
            (
                self.length
                if span.back > span.front
                else max(1, span.stop - 1 - span.back * stride)
                for span in self._spans()
            ),
            default=1,
        )

    def windows(self) -> Iterator[TrackWindow]:
        """Contig by contig, each strand in its own direction."""
        for contig, size, strand, spans in self._by_strand():
            for span in spans:
                for index in range(span.front, span.back + 1):
                    yield self._window(contig, size, strand, span, index)

    def _window(
        self, contig: str, size: int, strand: Strand, span: _Span, index: int
    ) -> TrackWindow:
        start = index * (self.length - self.context)
        first = max(start + self.context + 1 if index else 0, span.start)
        last = min(start + self.length + 1, span.stop)
        if strand == "reverse":
            return TrackWindow(contig, strand, size - last, size - start, size - last, size - first)
        return TrackWindow(contig, strand, start, last, first, last)

    def _spans(self) -> Iterator[_Span]:
        for _, _, _, spans in self._by_strand():
            yield from spans

    def _by_strand(self) -> Iterator[tuple[str, int, Strand, list[_Span]]]:
        """Contig, its length, strand, and the windows on it, in the direction of the strand."""
        regions: dict[str, list[Interval]] = {}
        for region in self.regions:
            regions.setdefault(region.contig, []).append(region)
        for contig, mine in regions.items():
            size = self.contigs[contig]
            for strand in self.strands:
                ends = [(region.start, region.stop) for region in mine]
                if strand == "reverse":
                    ends = [(size - stop, size - start) for start, stop in reversed(ends)]
                yield contig, size, strand, self._needed(ends)

    def _needed(self, ends: Sequence[tuple[int, int]]) -> list[_Span]:
        """Windows that hold the bases of these stretches; stretches that share one are joined."""
        spans: list[_Span] = []
        for start, stop in ends:
            span = _Span(self._index(start), self._index(stop - 1), start, stop)
            if spans and spans[-1].back == span.front:
                span = span._replace(front=spans[-1].front, start=spans.pop().start)
            spans.append(span)
        return spans

    def _index(self, base: int) -> int:
        """The window that gives a base its value."""
        return max(0, -(-(base - self.length) // (self.length - self.context)))


def stretches(windows: Iterable[TrackWindow], batch_tokens: int) -> Iterator[list[TrackWindow]]:
    """Windows in order, about a batch at a time, which share no batch with others.

    batch_tokens: tokens of a batch. What a stretch holds depends on the windows alone, not on the
    bases in them: so it is known without reading the genome.
    """
    stretch: list[TrackWindow] = []
    tokens = 0
    for window in windows:
        full = tokens + window.length > batch_tokens or len(stretch) >= _STRETCH_WINDOWS
        if stretch and full:
            yield stretch
            stretch, tokens = [], 0
        stretch.append(window)
        tokens += window.length
    if stretch:
        yield stretch
