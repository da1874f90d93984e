"""The work of `hyenadna mutate`: what is read, in which pieces, and the rows that come of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from hyenadna.alphabet import BASES, TOKENS, A, T, reverse_complement_ids
from hyenadna.errors import InputError

if TYPE_CHECKING:
    from hyenadna.alphabet import Ids
    from hyenadna.data.stretches import Stretch
    from hyenadna.infer.mutate import Reach, Strands
    from hyenadna.infer.rows_file import ColumnType
    from hyenadna.model.backbone import HyenaDNA
    from hyenadna.model.heads import TaskModel

FLANK: Final = 4096
"""Bases of a genome before each position, when nobody says: docs/mutate.md has what it costs."""

_OTHERS: Final = len(BASES) - 1
Progress = Callable[[int], None]
Stretches = Callable[[], "Iterator[Stretch]"]


_CAUSAL: Final = (
    "The model is causal: on one strand a base is judged by what stands before it. Near the start "
    "of a sequence that is little; the mean of both strands, or flanks from a genome, help."
)
_SURPRISE: Final = (
    "A score says how surprised the model is, not what a cell does: a substitution can be unlikely "
    "and harmless, or likely and harmful."
)
_LEARNED: Final = (
    "A score says what the fine-tuned model makes of a substitution; it is no better than the "
    "examples that the model learned from."
)


class Job(Protocol):
    """One way of scoring substitutions."""

    columns: dict[str, ColumnType]
    caveats: tuple[str, ...]
    row_tokens: int
    """Tokens of a pass, at most (or one row)."""

    def settings(self) -> dict[str, Any]:
        """Plain values that the scores depend on, the weights among them."""
        ...

    @property
    def network(self) -> HyenaDNA:
        """The backbone that is read."""
        ...

    def parts(self, stretch: Stretch) -> list[tuple[int, int]]:
        """Positions that are worked on together, first and one past the last of each.

        Raises InputError for a stretch that cannot be scored.
        """
        ...

    def tokens(self, stretch: Stretch, first: int, last: int) -> int:
        """Tokens that are read for one part."""
        ...

    def rows(
        self, stretch: Stretch, first: int, last: int, progress: Progress
    ) -> Iterator[list[str]]:
        """The rows of one part, as text."""
        ...

    def read(self, stretch: Stretch) -> tuple[int, int]:
        """First and one past the last base that the scores of a stretch depend on."""
        ...

    def window(self, stretch: Stretch) -> int:
        """Tokens of the longest row that is read for a stretch."""
        ...


class LikelihoodJob:
    """Substitutions scored by the likelihood of a language model."""

    def __init__(
        self,
        network: HyenaDNA,
        *,
        after: int | None,
        context: int | None,
        strands: Strands,
        genome: bool,
        precision: Any = None,
    ) -> None:
        from hyenadna.model.decoding import Decoder
        from hyenadna.model.decoding.shared_reading import ROW_TOKENS

        self._network, self.after, self.strands = network, after, strands
        self.context, self.precision = context, precision
        self._decoder, self.row_tokens = Decoder(network), ROW_TOKENS
        self.columns = _columns(genome, last="score_allele")
        reach = "all" if after is None else f"the first {after:,}"
        self.caveats: tuple[str, ...] = (
            _SURPRISE,
            _CAUSAL,
            f"Of what follows a substitution {reach} bases count (--after).",
        )

    def settings(self) -> dict[str, Any]:
        """See `Job`."""
        from hyenadna.infer.mutate import BLOCK, PIECE
        from hyenadna.model.digest import weights_digest

        return {
            "weights": weights_digest(self.network),
            "after": "all" if self.after is None else self.after,
            "context": "all" if self.context is None else self.context,
            "strands": self.strands,
            "block": BLOCK,
            "piece": PIECE,
        }

    @property
    def network(self) -> HyenaDNA:
        """See `Job`."""
        return self._network

    def reach(self, stretch: Stretch) -> Reach:
        """How far is read around its positions. Raises InputError, with its place."""
        from hyenadna.infer.mutate import fit_reach

        try:
            return fit_reach(self.network, stretch.length, after=self.after, context=self.context)
        except InputError as error:
            raise InputError(f"{stretch.place}: {stretch.id!r}: {error}") from None

    def parts(self, stretch: Stretch) -> list[tuple[int, int]]:
        """See `Job`."""
        return [(piece.first, piece.last) for piece in self._pieces(stretch)]

    def _pieces(self, stretch: Stretch) -> Iterator[Any]:
        from hyenadna.infer.mutate import pieces

        return pieces(stretch.start, stretch.stop, stretch.length, self.reach(stretch))

    def _piece(self, stretch: Stretch, first: int, last: int) -> tuple[Any, Reach]:
        from hyenadna.infer.mutate import pieces

        reach = self.reach(stretch)
        return next(pieces(first, last, stretch.length, reach)), reach

    def tokens(self, stretch: Stretch, first: int, last: int) -> int:
        """See `Job`."""
        from hyenadna.infer.mutate import piece_tokens

        piece, reach = self._piece(stretch, first, last)
        return piece_tokens(piece, stretch.length, reach, self._directed(stretch))

    def read(self, stretch: Stretch) -> tuple[int, int]:
        """See `Job`."""
        reach = self.reach(stretch)
        around = max(reach.context + reach.piece, reach.after)
        return max(0, stretch.start - around), min(stretch.length, stretch.stop + around)

    def window(self, stretch: Stretch) -> int:
        """See `Job`."""
        reach = self.reach(stretch)
        return min(stretch.length, reach.context + reach.piece + reach.after)

    def _directed(self, stretch: Stretch) -> Strands:
        """The strands of the text: those of an interval on the other strand are the other way."""
        other: dict[Strands, Strands] = {"forward": "reverse", "reverse": "forward"}
        return other.get(self.strands, self.strands) if stretch.reverse else self.strands

    def rows(
        self, stretch: Stretch, first: int, last: int, progress: Progress
    ) -> Iterator[list[str]]:
        """See `Job`."""
        import torch

        from hyenadna.infer.mutate import mutate_piece

        piece, reach = self._piece(stretch, first, last)
        device = self.network.head_weight.device.type
        with torch.autocast(device, dtype=self.precision, enabled=self.precision is not None):
            found = mutate_piece(
                self._decoder,
                stretch.text,
                stretch.length,
                piece,
                reach,
                self._directed(stretch),
                row_tokens=self.row_tokens,
                progress=progress,
            )
        return _rows(_front(stretch), first, found.bases, found.score, found.allele)


class TaskJob:
    """Substitutions scored by the change of one output of a fine-tuned model."""

    def __init__(
        self, task_model: TaskModel, output: str | None, *, genome: bool, precision: Any = None
    ) -> None:
        from hyenadna.infer.mutate_task import choose_output
        from hyenadna.model.decoding.shared_reading import ROW_TOKENS

        self.task_model, self.precision = task_model, precision
        self.row_tokens = ROW_TOKENS
        self.output = task_model.task.names[choose_output(task_model, output)]
        self.columns = _columns(genome, last="output")
        self.caveats: tuple[str, ...] = (_LEARNED,)

    def settings(self) -> dict[str, Any]:
        """See `Job`."""
        from hyenadna.infer.mutate_task import BLOCK
        from hyenadna.model.digest import weights_digest

        task_model = self.task_model
        others = {k: v for k, v in task_model.state_dict().items() if not k.startswith("model.")}
        return {
            "weights": weights_digest(task_model.model, **others),
            "output": self.output,
            "task": task_model.task.kind,
            "strands": task_model.strands,
            "block": BLOCK,
        }

    @property
    def network(self) -> HyenaDNA:
        """See `Job`."""
        return self.task_model.model

    def parts(self, stretch: Stretch) -> list[tuple[int, int]]:
        """See `Job`."""
        from hyenadna.infer.mutate import PIECE

        longest, length = self.task_model.max_length, self.window(stretch)
        if length > longest:
            raise InputError(
                f"{stretch.place}: {stretch.id!r} has {length:,} bases, but this model "
                f"reads up to {longest:,}, and its output is of all of them; cut it"
            )
        firsts = range(stretch.start, stretch.stop, PIECE)
        return [(first, min(first + PIECE, stretch.stop)) for first in firsts]

    def tokens(self, stretch: Stretch, first: int, last: int) -> int:
        """See `Job`."""
        from hyenadna.infer.mutate_task import task_tokens

        return task_tokens(self.task_model, self.window(stretch), *_inside(stretch, first, last))

    def read(self, stretch: Stretch) -> tuple[int, int]:
        """See `Job`. The model reads what it says something of, and nothing around it."""
        return stretch.start, stretch.stop

    def window(self, stretch: Stretch) -> int:
        """See `Job`."""
        return stretch.stop - stretch.start

    def rows(
        self, stretch: Stretch, first: int, last: int, progress: Progress
    ) -> Iterator[list[str]]:
        """See `Job`."""
        import torch

        from hyenadna.infer.mutate_task import mutate_task

        ids = stretch.text(stretch.start, stretch.stop)
        begin, end = _inside(stretch, first, last)
        with torch.autocast(
            self.task_model.device.type, dtype=self.precision, enabled=self.precision is not None
        ):
            found = mutate_task(
                self.task_model,
                reverse_complement_ids(ids) if stretch.reverse else ids,
                output=self.output,
                first=begin,
                last=end,
                row_tokens=self.row_tokens,
                progress=progress,
            )
        turned = slice(None, None, -1 if stretch.reverse else 1)
        score, output = (values[turned, turned] for values in (found.score, found.output))
        bases = ids[first - stretch.start : last - stretch.start]
        return _rows(_front(stretch), first, bases, score, output)


def _columns(genome: bool, *, last: str) -> dict[str, ColumnType]:
    """Of the output; a contig only where there is a genome."""
    place: dict[str, ColumnType] = {"contig": "text"} if genome else {}
    return {
        "id": "text",
        **place,
        "position": "integer",
        "ref": "text",
        "alt": "text",
        "score": "number",
        last: "number",
    }


def _front(stretch: Stretch) -> list[str]:
    """The first cells of all rows of a stretch."""
    return [stretch.id] if stretch.contig is None else [stretch.id, stretch.contig]


def _inside(stretch: Stretch, first: int, last: int) -> tuple[int, int]:
    """Positions of the text as those of the stretch alone, in its own direction."""
    if stretch.reverse:
        return stretch.stop - last, stretch.stop - first
    return first - stretch.start, last - stretch.start


def _rows(
    front: Sequence[str], first: int, bases: Ids, *values: npt.NDArray[np.float64]
) -> Iterator[list[str]]:
    """A row for each base that is not there; numbers in as few digits as say float32 exactly."""
    texts = [np.where(np.isnan(each), "", each.astype(np.float32).astype(str)) for each in values]
    for at, token in enumerate(bases.tolist()):
        for column, base in enumerate(BASES):
            if base != token:
                numbers = [str(text[at, column]) for text in texts]
                yield [*front, str(first + at), TOKENS[token], TOKENS[base], *numbers]


@dataclass(frozen=True)
class Survey:
    """What there is to do, found before the first score."""

    stretches: int
    positions: int
    substitutions: int
    unknown: int
    """Positions that are not A, C, G or T."""
    parts: int
    tokens: int
    longest: int
    """Positions of the longest stretch."""
    window: int
    """Tokens of the longest row that is read."""
    digest: str
    """Of all bases that the scores depend on, and of where they stand."""


def survey(job: Job, stretches: Stretches, source: str) -> Survey:
    """Read everything once, so that a bad row is told before the first score.

    Raises InputError for a stretch that cannot be scored, and where there is none.
    """
    count = positions = known = parts = tokens = longest = window = 0
    digest = hashlib.sha256()
    for stretch in stretches():
        own = job.parts(stretch)
        begin, end = job.read(stretch)
        ids = stretch.text(begin, end)
        inside = ids[stretch.start - begin : stretch.stop - begin]
        here = int(((inside >= A) & (inside <= T)).sum())
        count, positions, known = count + 1, positions + len(inside), known + here
        parts += len(own)
        tokens += sum(job.tokens(stretch, *part) for part in own)
        longest = max(longest, len(inside))
        window = max(window, job.window(stretch))
        where = (stretch.id, stretch.contig, stretch.start, stretch.stop, stretch.reverse, begin)
        digest.update(repr(where).encode())
        digest.update(ids.tobytes())
    if not count:
        raise InputError(f"{source}: holds no sequences")
    return Survey(
        count,
        positions,
        _OTHERS * known,
        positions - known,
        parts,
        tokens,
        longest,
        window,
        digest.hexdigest(),
    )
