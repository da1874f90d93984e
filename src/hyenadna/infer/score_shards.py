"""The random variants of `score --background`, scored a piece in each shard.

A percentile needs the scores of all random variants, of which a shard knows its own alone. So the
rows of a shard hold a mark in the place of each percentile, with the exact score in it, and the
marks become percentiles when all shards are put together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hyenadna.genome.variants import Allele, Note
from hyenadna.infer import rows_file
from hyenadna.infer.interrupted import read_settings
from hyenadna.infer.rows_file import DONE, KEPT, ROWS
from hyenadna.infer.score import Score
from hyenadna.infer.score_background import RANKED, Background, group_of, percent_text

PIECE: Final = 256
"""Random variants that are scored together: side by side on the genome, so they share windows."""
_OWN: Final = "of_this_shard"
_MARK: Final = "\x01hyenadna:{group}:{name}:{value}:{missing}\x02"
_MARKS: Final = re.compile(rb"\x01hyenadna:([^:\x02]+):(\w+):([^:\x02]+):(\.?)\x02")


def pieces(drawn: Mapping[str, Sequence[Allele]]) -> list[list[tuple[str, int]]]:
    """Group and number of the random variants of each piece, always cut in the same way."""
    places = [
        (allele.contig, allele.start, group, number)
        for group, own in drawn.items()
        for number, allele in enumerate(own)
    ]
    order = sorted(range(len(places)), key=lambda i: (*places[i][:2], i))
    named = [places[i][2:] for i in order]
    return [named[i : i + PIECE] for i in range(0, len(named), PIECE)]


class UnknownBackground:
    """Marks in the place of percentiles, where only a shard of the background is known."""

    def texts(self, allele: Allele | Note, score: Score, missing: str = "") -> list[str]:
        """As `Background.texts`, but marks."""
        group = group_of(allele)
        return [_mark(group, name, getattr(score, name), missing) for name in RANKED]


def kept_of_shard(scores: Sequence[tuple[str, Score]]) -> dict[str, Any]:
    """Groups and scores of the random variants of a shard, for `gather`."""
    return {_OWN: [[group, *(getattr(score, name) for name in RANKED)] for group, score in scores]}


def check(part: Path) -> int:
    """As `rows_file.check`, with the scores of random variants where the run has some."""
    if read_settings(part).get("background"):
        _ = json.loads((part / KEPT).read_text())[_OWN]
    return rows_file.check(part)


def gather(parts: Sequence[Path], folder: Path) -> None:
    """As `rows_file.gather`, with percentiles in the place of marks.

    Raises OSError and ValueError for a shard that is damaged.
    """
    rows_file.gather(parts, folder)
    if not (parts[0] / KEPT).exists():
        return
    values: dict[str, dict[str, list[float]]] = {}
    for part in parts:
        for group, *scores in json.loads((part / KEPT).read_text())[_OWN]:
            own = values.setdefault(group, {name: [] for name in RANKED})
            for name, score in zip(RANKED, scores, strict=True):
                own[name].append(float(score))
    background = Background(values)
    state = json.loads((folder / DONE).read_text())
    with (folder / ROWS).open("rb") as marked, (folder / "ranked").open("wb") as out:
        for line in _lines(marked.read, 1 << 24):
            out.write(_MARKS.sub(lambda found: _percentile(background, found), line))
        state["end"] = out.tell()
    (folder / "ranked").replace(folder / ROWS)
    (folder / DONE).write_text(json.dumps(state))
    (folder / KEPT).write_text(json.dumps(background.to_dict()))


def _lines(read: Any, size: int) -> Iterator[bytes]:
    """Blocks of a file that end where lines end."""
    rest = b""
    while block := read(size):
        whole, newline, rest = (rest + block).rpartition(b"\n")
        yield whole + newline
    yield rest


def _mark(group: str, name: str, value: float, missing: str) -> str:
    if not group or value != value:
        return missing
    return _MARK.format(group=group, name=name, value=value.hex(), missing=missing)


def _percentile(background: Background, found: re.Match[bytes]) -> bytes:
    group, name, value, missing = (each.decode() for each in found.groups())
    rank = background.rank(group, name, float.fromhex(value))
    return percent_text(rank, missing).encode()
