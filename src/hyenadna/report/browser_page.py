"""A genome browser in one HTML file that needs no network: igv.js, sequence and tracks inside.

igv.js (MIT) comes from the installed package igv-notebook. The sequence is a FASTA record named
`contig:first-last @len=bases of the contig`, which igv.js takes for a piece of that contig, so that
positions are those of the genome. The page's policy forbids everything but its own two scripts,
told by their digests, and data inside the page.
"""

from __future__ import annotations

import base64
import gzip
import importlib.metadata
import importlib.util
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hyenadna.errors import InputError
from hyenadna.genome.intervals import Interval
from hyenadna.report.page import Block, details, paragraph, scripted_page_html
from hyenadna.report.plots import BLUE, GREY, INK, ORANGE

MOST_BASES: Final = 200_000
"""A page holds no more: browsers slow down, and the page is read in one piece."""
SMOOTHED: Final = 100
_CHECKED: Final = 40
_UNNAMED: Final = re.compile(r"[^A-Za-z0-9._*#-]")
_IGV: Final = ("js", "igv.min.js")
_STYLE: Final = """
html { overflow-y: scroll } /* a bar that comes later would shift the region */
main { max-width: 90rem } #browser { background: #fff; border: 1px solid var(--line);
  border-radius: 4px; padding: .3rem; margin: .8rem 0; min-height: 18rem }
#status { color: var(--soft) }
.keys { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; padding: 0; list-style: none }
.keys i { display: inline-block; width: .8em; height: .8em; border-radius: 2px;
  margin-right: .4em }
"""
_COLOURS: Final = {"average": BLUE, "forward": BLUE, "reverse": ORANGE}
_PALE: Final = {"average": "#9dbdf0", "forward": "#9dbdf0", "reverse": "#f2c294"}
"""Of single bases, beside the means of many."""
_LETTERS: Final = {"A": "#2e9e4f", "C": "#2a6fdb", "G": "#c98a00", "T": "#d23b3b"}

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Signal:
    """A track of one number a base."""

    name: str
    """As in `surprisal.forward`."""
    title: str
    """As people read it, with its unit."""
    values: Floats
    """One for each base of the page's region; NaN where there is none."""
    least: float
    most: float
    """Ends of the axis."""
    colour: str
    height: int = 80
    guide: float | None = None
    """Where a dotted line is drawn across."""


@dataclass(frozen=True)
class Annotated:
    """Features to show below: the lines of a file that lie in the region."""

    title: str
    format: str
    """`bed`, `gff3` or `gtf`."""
    lines: tuple[str, ...]
    """With the contig's name as the page has it, and the positions as the file has them."""
    height: int = 130
    mode: str = "EXPANDED"


@dataclass(frozen=True)
class Shown:
    """The region of a page and its bases."""

    region: Interval
    contig_length: int
    letters: str
    """Of the region, upper and lower case."""


def signals(name: str, values: Floats) -> list[Signal]:
    """A track of `hyenadna track` as it is shown: with its title, colour and axis.

    Before surprisal comes its mean over 100 bases, in which stretches show that single bases hide.
    """
    channel, strand = name.split(".")
    kind, _, letter = channel.partition("_")
    where = {
        "average": "mean of both strands", "forward": "forward", "reverse": "reverse",
    }[strand]  # fmt: skip
    if kind == "probability":
        return [Signal(name, f"p({letter}), {where}", values, 0, 1, _LETTERS[letter], 44)]
    known = values[~np.isnan(values)]
    if kind == "entropy":
        return [Signal(name, f"entropy (bits), {where}", values, 0, 2, GREY)]
    high = float(np.quantile(known, 0.995)) if len(known) else 4.0
    most = min(max(4.0, float(np.ceil(high))), 12.0)
    colour = _COLOURS[strand]
    smooth = running_mean(values, SMOOTHED)
    least, top = _ends(smooth)
    return [
        Signal(
            f"{name}.smooth", f"surprisal, mean of {SMOOTHED} bases (bits), {where}", smooth,
            least, top, colour, guide=2.0,
        ),
        Signal(name, f"surprisal (bits), {where}", values, 0, most, _PALE[strand], guide=2.0),
    ]  # fmt: skip


def running_mean(values: Floats, width: int) -> Floats:
    """Mean of the values up to width / 2 to either side; NaN where there is no value itself."""
    known = ~np.isnan(values)
    sums = np.cumsum(np.concatenate([[0.0], np.where(known, values, 0).astype(np.float64)]))
    counts = np.cumsum(np.concatenate([[0], known]))
    at = np.arange(len(values))
    first, last = np.maximum(at - width // 2, 0), np.minimum(at + width - width // 2, len(values))
    mean = (sums[last] - sums[first]) / np.maximum(counts[last] - counts[first], 1)
    return np.where(known, mean, np.nan).astype(np.float32)


def _ends(values: Floats) -> tuple[float, float]:
    """Ends of an axis that shows nearly all of the values and 2 bits, to tenths."""
    known = values[~np.isnan(values)]
    low, high = (float(np.quantile(known, q)) for q in (0.002, 0.998)) if len(known) else (1.0, 2.0)
    return np.floor(10 * low - 1) / 10, np.ceil(10 * max(high, 2.0) + 1) / 10


def lower_case(shown: Shown) -> Annotated:
    """The lower-case (soft-masked) stretches of the bases: repeats, in most genomes."""
    bases = np.frombuffer(shown.letters.encode("ascii"), dtype=np.uint8)
    low = np.concatenate([[False], (bases >= ord("a")) & (bases <= ord("z")), [False]])
    edges = (np.flatnonzero(low[1:] != low[:-1]) + shown.region.start).tolist()
    contig = page_name(shown.region.contig)
    lines = (f"{contig}\t{a}\t{b}" for a, b in zip(edges[::2], edges[1::2], strict=True))
    return Annotated("lower case (repeats)", "bed", tuple(lines), 30, "COLLAPSED")


def require_igv() -> Path:
    """The file of igv.js. Raises InputError where igv-notebook is not installed."""
    found = importlib.util.find_spec("igv_notebook")
    path = Path(found.origin).parent.joinpath(*_IGV) if found and found.origin else None
    if path is None or not path.is_file():
        raise InputError(
            "the browser page needs igv.js, which is not installed; "
            "`pip install 'hyenadna[browser]'`"
        )
    return path


def require_shown(region: Interval) -> None:
    """Raises InputError for a region without bases, or of more than a page shows."""
    if not 0 < region.length <= MOST_BASES:
        raise InputError(
            f"browser page: {region} has {region.length:,} bases; it shows 1 to {MOST_BASES:,}"
        )


def browser_html(
    title: str,
    shown: Shown,
    signals: Sequence[Signal],
    annotations: Sequence[Annotated] = (),
    *,
    lead: Sequence[str] = (),
    notes: Iterable[Block] = (),
    footer: str = "",
) -> str:
    """The whole document. lead: paragraphs above the browser; notes: blocks below it.

    Raises InputError for a region without bases or of too many, and without igv-notebook.
    """
    region = shown.region
    require_shown(region)
    script = require_igv().read_text(encoding="utf-8")
    own = resources.files("hyenadna.report").joinpath("browser.js").read_text(encoding="utf-8")
    spec = json.dumps(_spec(shown, signals, annotations)).replace("<", "\\u003c")
    body = [
        *(paragraph(text) for text in lead),
        _keys(signals),
        Block('<p id="status" role="status">Loading the browser …</p>'),
        Block('<div id="browser"></div><output id="loaded" hidden></output>'),
        *notes,
        details("igv.js draws the browser: its licence", [*map(paragraph, _licence())]),
        Block(f'<script type="application/json" id="spec">{spec}</script>'),
    ]
    return scripted_page_html(title, body, [script, own], footer=footer, style=_STYLE)


def _licence() -> list[str]:
    """The paragraphs of the licence of igv.js, which goes with every copy of it."""
    found = importlib.metadata.distribution("igv-notebook")
    for file in found.files or ():
        if file.name.upper().startswith("LICENSE"):
            text = file.read_text(encoding="utf-8")
            return [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]
    return ["MIT License. Copyright (c) igvteam."]


def _keys(signals: Sequence[Signal]) -> Block:
    from html import escape

    items = "".join(
        f'<li><i style="background:{signal.colour}"></i>{escape(signal.title)}</li>'
        for signal in signals
    )
    return Block(f'<ul class="keys">{items}</ul>')


def _spec(
    shown: Shown, signals: Sequence[Signal], annotations: Sequence[Annotated]
) -> dict[str, Any]:
    """What the page's script needs, plain values."""
    region, contig = shown.region, page_name(shown.region.contig)
    record = f">{contig}:{region.start + 1}-{region.stop} @len={shown.contig_length}"
    tracks: list[dict[str, Any]] = [{"type": "sequence", "order": -1}]
    tracks += [_signal_track(contig, region, signal) for signal in signals]
    tracks += [_annotation_track(each) for each in annotations]
    locus = f"{contig}:{region.start + 1}-{region.stop}"
    known = np.flatnonzero(~np.isnan(signals[0].values)) if signals else np.zeros(1, int)
    start = region.start + (int(known[0]) if len(known) else 0)
    return {
        "browser": {
            "reference": {
                "id": "genome", "name": contig, "indexed": False, "wholeGenomeView": False,
                "fastaURL": _data(f"{record}\n{shown.letters}\n"),
            },
            "locus": locus, "tracks": tracks, "minimumBases": 20,
            "loadDefaultGenomes": False, "search": False, "showSVGButton": True,
        },
        "check": {
            "contig": contig, "start": start, "stop": min(start + _CHECKED, region.stop),
            "first": region.start, "last": region.stop,
        },
    }  # fmt: skip


def page_name(contig: str) -> str:
    """The contig as igv.js can name it.

    A colon would begin positions (`HLA-A*01:01`), `gi|…` is taken apart, other letters are not
    found, and `all` is the whole genome.
    """
    name = _UNNAMED.sub("_", contig)
    return f"{name}_" if name == "all" else name


def _signal_track(contig: str, region: Interval, signal: Signal) -> dict[str, Any]:
    # not fixedStep, in which igv.js loses count where it reads a track twice at the same time
    head = f"variableStep chrom={contig} span=1"
    known = np.flatnonzero(~np.isnan(signal.values))
    numbers = (
        f"{base}\t{value:.4g}"
        for base, value in zip(
            (region.start + 1 + known).tolist(), signal.values[known].tolist(), strict=True
        )
    )
    guides = [] if signal.guide is None else [{"color": INK, "dotted": True, "y": signal.guide}]
    return {
        "type": "wig", "format": "wig", "name": signal.title, "color": signal.colour,
        "guideLines": guides, "min": signal.least, "max": signal.most, "autoscale": False,
        "height": signal.height, "windowFunction": "mean",
        "url": _data("\n".join([head, *numbers]) + "\n"),
    }  # fmt: skip


def _annotation_track(annotated: Annotated) -> dict[str, Any]:
    return {
        "type": "annotation", "format": annotated.format, "name": annotated.title,
        "color": "#3c4654", "height": annotated.height, "displayMode": annotated.mode,
        "searchable": False, "visibilityWindow": -1,
        "url": _data("\n".join(annotated.lines) + "\n"),
    }  # fmt: skip


def _data(text: str) -> str:
    """A text inside the page, as a data URI; the same text is the same URI."""
    packed = gzip.compress(text.encode("utf-8"), mtime=0)
    return f"data:application/gzip;base64,{base64.b64encode(packed).decode('ascii')}"
