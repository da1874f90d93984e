"""One HTML file that needs nothing else: no network, no scripts; light or dark, wide or narrow.

A page is a list of blocks, made by the functions here and put together by `write_page`:

    write_page(path, "Title", [paragraph("…"), heading("…"), table(["a", "b"], [[1, 2.5]])])

All text is escaped here and nowhere else.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import count
from pathlib import Path
from typing import Final, NewType

import matplotlib
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from hyenadna.errors import InputError

Block = NewType("Block", str)
"""A finished piece of HTML."""
Cell = str | int | float | None

NO_VALUE: Final = "–"
_numbers = count(1)  # a prefix for the ids of each picture, which share one document

_STYLE: Final = """
:root { color-scheme: light dark; --paper: #fff; --ink: #222; --soft: #5b616b; --line: #dfe2e6;
  --tint: #f5f6f8; --warn: #fff4e0; --warn-line: #e07b1f }
@media (prefers-color-scheme: dark) { :root { --paper: #16181c; --ink: #e4e6ea; --soft: #a2a8b3;
  --line: #363a42; --tint: #1f2228; --warn: #2e2413; --warn-line: #e07b1f } }
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif }
main { max-width: 64rem; margin: 0 auto; padding: 1rem 1rem 3rem }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0 1rem }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid var(--line) }
p { max-width: 46rem; margin: .5rem 0; overflow-wrap: anywhere }
.wide { overflow-x: auto; margin: .6rem 0 }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
caption { text-align: left; color: var(--soft); padding-bottom: .2rem }
th, td { padding: .25rem .7rem .25rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top }
th { font-weight: 600; vertical-align: bottom }
td.number, th.number { text-align: right }
td:first-child { min-width: 7rem }
tr.strong td { font-weight: 600; background: var(--tint) }
.caveat { background: var(--warn); border-left: 4px solid var(--warn-line); padding: .5rem .8rem;
  margin: .5rem 0; max-width: 46rem; overflow-wrap: anywhere }
.pictures { display: grid; gap: 1rem 2rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)) }
figure { margin: 0 } figure svg { width: 100%; height: auto; display: block }
figcaption, footer, .soft { color: var(--soft); font-size: .85rem }
svg text { fill: currentColor }
details { margin: .6rem 0 } summary { cursor: pointer }
footer { margin-top: 3rem }
@media print { details { display: block } .wide { overflow: visible } }
"""
# Nothing may be fetched, and no script may run, whatever stands in a name or a sequence.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def heading(text: str) -> Block:
    """A heading of a section."""
    return Block(f"<h2>{escape(text)}</h2>")


def paragraph(text: str, *, soft: bool = False) -> Block:
    """A paragraph of plain text; soft: for what is said by the way."""
    kind = ' class="soft"' if soft else ""
    return Block(f"<p{kind}>{escape(text)}</p>")


def caveat(text: str) -> Block:
    """A paragraph that a reader must not miss."""
    return Block(f'<p class="caveat" role="note">{escape(text)}</p>')


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    caption: str = "",
    strong: Sequence[int] = (),
) -> Block:
    """A table that scrolls sideways on its own where it is too wide.

    rows: cells of plain values: numbers as `number_text` writes them, None and NaN as a dash; a
    column of them is set to the right. strong: rows, from 0, that are set off.

    Raises ValueError for a row of another length than `columns`.
    """
    body = [list(row) for row in rows]
    for row in body:
        if len(row) != len(columns):
            raise ValueError(f"table: {len(row)} cells in a row of {len(columns)} columns")
    right = [_is_numeric([row[c] for row in body]) for c in range(len(columns))]
    mark = [' class="number"' if each else "" for each in right]
    head = "".join(
        f'<th scope="col"{mark[c]}>{escape(name)}</th>' for c, name in enumerate(columns)
    )
    lines = []
    for index, row in enumerate(body):
        cells = "".join(f"<td{mark[c]}>{escape(cell_text(v))}</td>" for c, v in enumerate(row))
        kind = ' class="strong"' if index in strong else ""
        lines.append(f"<tr{kind}>{cells}</tr>")
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return Block(
        f'<div class="wide" tabindex="0"><table>{title}<thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def records(rows: Sequence[Mapping[str, Cell]], *, caption: str = "") -> Block:
    """A table of mappings: their keys, in the order they first come, are the columns."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return table(
        [key.replace("_", " ") for key in columns],
        [[row.get(key) for key in columns] for row in rows],
        caption=caption,
    )


def _is_numeric(column: Sequence[Cell]) -> bool:
    """Whether all of a column is numbers, or text that begins with one, or nothing."""
    texts = [cell_text(value) for value in column]
    return all(map(_like_number, texts)) and any(text != NO_VALUE for text in texts)


def _like_number(text: str) -> bool:
    """Whether a text begins as a number does, such as "0.81 (0.79 to 0.83)", or is a dash."""
    return text == NO_VALUE or re.match(r"[-−+]?\d[\d,.]*(\s|$)", text) is not None


def cell_text(value: Cell) -> str:
    """A value as a table shows it; a dash for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NO_VALUE
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number_text(value) if isinstance(value, int | float) else value


def number_text(value: float) -> str:
    """A number for people: whole ones with commas, others to four significant places or so."""
    if math.isnan(value):
        return NO_VALUE
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == int(value) and (isinstance(value, int) or abs(value) >= 1000):
        text = f"{int(value):,}"
    elif 0 < abs(value) < 0.001:
        text = f"{value:.2e}"
    else:
        text = f"{value:,.4f}" if abs(value) < 100 else f"{value:,.1f}"
    return text.replace("-", "−") if text.startswith("-") else text


def details(summary: str, blocks: Iterable[Block]) -> Block:
    """Blocks that open on a tap."""
    inside = "".join(blocks)
    return Block(f"<details><summary>{escape(summary)}</summary>{inside}</details>")


def pictures(blocks: Iterable[Block]) -> Block:
    """Pictures side by side where there is room, one under the other on a phone."""
    return Block(f'<div class="pictures">{"".join(blocks)}</div>')


def picture(figure: Figure, description: str) -> Block:
    """A figure as a drawing inside the page, in the page's colours; the figure is closed.

    description: what it shows, in a sentence; read out where the picture cannot be seen, and shown
    below it.
    """
    return Block(
        f'<figure role="group">{_svg(figure, description)}'
        f"<figcaption>{escape(description)}</figcaption></figure>"
    )


def _svg(figure: Figure, description: str) -> str:
    stream = io.StringIO()
    # Text stays text, in the reader's font; the salt makes the same figure the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "hyenadna"}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    plt.close(figure)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    prefix = f"p{next(_numbers)}-"
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    text = re.sub(r'url\(#|href="#', lambda found: found.group() + prefix, text)
    # Black and the ink of plots.py follow the page, so that they are seen on a dark one.
    text = re.sub(r"#(?:000000|222222)\b", "currentColor", text)
    text = text.replace("#e6e8eb", "var(--line)")
    label = escape(description, quote=True)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1).strip()


def page_html(title: str, blocks: Iterable[Block], *, footer: str = "") -> str:
    """The whole document. footer: a line at the end, such as what made it and when."""
    return _html(title, blocks, _POLICY, footer, _STYLE)


def scripted_page_html(
    title: str,
    blocks: Iterable[Block],
    scripts: Sequence[str],
    *,
    footer: str = "",
    style: str = "",
) -> str:
    """A document that runs these scripts, in order, and no other: the policy holds their digests.

    Nothing may be fetched but data inside the page. style: added to that of all pages.

    Raises ValueError for a script that would end its own element.
    """
    if any("</script" in script.casefold() for script in scripts):
        raise ValueError("a script inside a page must not hold </script")
    digests = (
        base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
        for script in scripts
    )
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; connect-src data: blob:; font-src data:"
    )
    tail = [Block(f"<script>{script}</script>") for script in scripts]
    return _html(title, blocks, policy, footer, _STYLE + style, tail)


def _html(
    title: str,
    blocks: Iterable[Block],
    policy: str,
    footer: str,
    style: str,
    tail: Sequence[Block] = (),
) -> str:
    body = "\n".join(blocks)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n"
        f"<body><main><h1>{escape(title)}</h1>\n{body}\n"
        f"<footer>{escape(footer)}</footer></main>{''.join(tail)}</body></html>\n"
    )


def write_page(path: Path, title: str, blocks: Iterable[Block], *, footer: str = "") -> None:
    """Write the document beside and rename, so that it is whole or absent.

    Raises InputError where it cannot be written.
    """
    write_text(path, page_html(title, blocks, footer=footer))


def write_text(path: Path, html: str) -> None:
    """Write a document beside and rename. Raises InputError where it cannot be written."""
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_text(html, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot write the page ({error.strerror})") from error
