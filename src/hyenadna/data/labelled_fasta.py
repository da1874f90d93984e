"""Rows of labelled FASTA files: the label in the header, or in the name of the file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal, get_args

from hyenadna.alphabet import encode
from hyenadna.data.labelled_data import split_named
from hyenadna.data.labelled_rows import LabelledRows
from hyenadna.data.labelled_table import FILE_CLASS
from hyenadna.data.text_files import open_text, stem_of
from hyenadna.errors import InputError

HeaderLabel = Literal["auto", "key", "last-field", "last-word", "last-character"]
"""Where in `>name ... label` the label stands: `label=1` (key), behind the last `|`, the last word,
or the last character of the line. `auto` takes the first of the former three that fits all."""

LABEL: Final = "label"
_LABEL_KEYS: Final = (LABEL, "class", "target")
_KEY: Final = re.compile(r"(?:^|[\s;|,])([A-Za-z_][\w.-]*)=(\"[^\"]*\"|[^\s;|,]*)")
_CUT_SHORT: Final = re.compile(r"(?i:label|class|target)=[^\s;|,\"]+ +[^\s=;|,]+(?=[\s;|,]|$)")
_AT_BLANK: Final = (
    "labels in FASTA headers end at the first blank; put double quotes around one that has blanks"
)
_SPLIT_KEYS: Final = ("split", "set")
_GROUP_KEYS: Final = ("group", "chrom", "chr", "chromosome")
_HOW: Final[tuple[HeaderLabel, ...]] = get_args(HeaderLabel)


def read_fasta_rows(
    rows: LabelledRows,
    path: Path,
    *,
    header: HeaderLabel = "auto",
    labels: Sequence[str] | None = None,
    split: str = "",
    label: str | None = None,
    optional: bool = False,
) -> None:
    """Add the records of one FASTA file to `rows`; the first word of a header is the id.

    header: where the label stands. labels: keys, for several labels (`a=1 b=0.5`); an empty
    sequence: no labels. Keys are read in any case (`Label=1`; `class=` and `target=` are labels as
    well); a value ends at the first blank, `;`, `|` or `,`, unless it stands in double quotes. A
    last field or word that is a split in all headers (`name|label|training`) is taken for it.
    split, label: of all records, where the name of the file gives them.
    optional: whether headers may have no label (where `header` is `auto`, and no key is named).
    `split=`, `chrom=` and `group=` in a header are read as well.

    Raises InputError for a header without the label, a letter that is no base, and a file that is
    no FASTA.
    """
    if header not in _HOW:
        raise InputError(f"header label is {header!r}; it is {', '.join(_HOW)}")
    found = list(_records(path))
    if not found:
        raise InputError(f"{path}: holds no FASTA record (no line begins with '>')")
    keys = () if labels is not None and not labels else tuple(labels or (LABEL,))
    texts_of, splits = _apart([text for _, text, _ in found], header)
    if label is None and keys:
        how = _find(texts_of, header, named=labels is not None)
        if how is None and not optional:
            raise InputError(_no_label(path, found[0][1]))
        header, keys = how or header, keys if how else ()
    for (line, whole, sequence), text, own in zip(found, texts_of, splits, strict=True):
        place = f"{path}:{line}"
        pairs = _pairs(text)
        if label is None and LABEL in keys and header == "key" and _CUT_SHORT.search(text):
            rows.remarks.append(_AT_BLANK)
        if label is not None:
            texts = {FILE_CLASS: label}
        else:
            texts = {key: _label_in(text, header, key, pairs, place) for key in keys}
        rows.add(
            place,
            encode(sequence, name=f"{place} {_first_word(whole)}".rstrip()),
            labels=texts,
            split=split or own or _first(pairs, _SPLIT_KEYS),
            id=_first_word(whole) or f"{stem_of(path)}:{line}",
            group=_first(pairs, _GROUP_KEYS),
        )


def read_sequence_file(rows: LabelledRows, path: Path, *, split: str, label: str) -> None:
    """Add the one sequence that a text file holds, line ends left out, to `rows`.

    A file that begins with `>` is FASTA after all.

    Raises InputError for a letter that is no base.
    """
    with open_text(path) as text:
        content = text.read()
    if content.startswith(">"):
        read_fasta_rows(rows, path, split=split, label=label)
        return
    sequence = "".join(content.split())
    id = "/".join(part for part in (split, label, stem_of(path)) if part)
    rows.add(
        str(path),
        encode(sequence, name=str(path)),
        labels={FILE_CLASS: label},
        split=split,
        id=id,
    )


def _records(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line of the header, header without `>`, letters) of each record."""
    line, header, parts = 0, "", list[str]()
    with open_text(path) as text:
        for number, raw in enumerate(text, start=1):
            stripped = raw.strip()
            if stripped.startswith(">"):
                if line:
                    yield line, header, "".join(parts)
                line, header, parts = number, stripped[1:].strip(), []
            elif line:
                parts.append(stripped)
            elif stripped:
                raise InputError(f"{path}: is not FASTA: it begins with {stripped[:20]!r}, not '>'")
    if line:
        yield line, header, "".join(parts)


def _find(headers: Sequence[str], how: HeaderLabel, *, named: bool) -> HeaderLabel | None:
    """The place of the label that fits all headers; None where `auto` finds none."""
    if named:
        return "key"
    if how != "auto":
        return how
    if all(LABEL in _pairs(text) for text in headers):
        return "key"
    if all("|" in text for text in headers):
        return "last-field"
    return "last-word" if all(len(text.split()) > 1 for text in headers) else None


def _pairs(text: str) -> dict[str, str]:
    """Values of a header by key in lower case; LABEL also where it goes by another usual name."""
    found = {key.casefold(): value.strip('"') for key, value in _KEY.findall(text)}
    named = next((found[key] for key in _LABEL_KEYS if key in found), None)
    return found if named is None else found | {LABEL: named}


def _apart(headers: Sequence[str], how: HeaderLabel) -> tuple[list[str], list[str]]:
    """Headers without the split that is the last field or word of all, and the splits."""
    if how in ("auto", "last-field", "last-word"):
        for mark in "|", " ":
            cut = [
                (" ".join(text.split()) if mark == " " else text).rpartition(mark)
                for text in headers
            ]
            if all(mark_ and split_named(last) for _, mark_, last in cut):
                return [before for before, _, _ in cut], [last for _, _, last in cut]
    return list(headers), [""] * len(headers)


def _no_label(path: Path, header: str) -> str:
    return (
        f"{path}: no label in the header {header[:60]!r} (label=…, a last field behind '|', or a "
        "last word, the same way in all); say where it stands, or give one file for each class"
    )


def _label_in(text: str, how: HeaderLabel, key: str, pairs: dict[str, str], place: str) -> str:
    if how == "key":
        if key.casefold() not in pairs:
            raise InputError(f"{place}: the header has no {key}=…: {text[:60]!r}")
        return pairs[key.casefold()]
    if how == "last-field":
        return text.rsplit("|", 1)[-1].strip()
    words = text.split()
    if not words or (how == "last-word" and len(words) < 2):
        raise InputError(f"{place}: the header {text[:60]!r} has no label behind the name")
    return words[-1] if how == "last-word" else text[-1]


def _first_word(text: str) -> str:
    return (text.split(maxsplit=1) or [""])[0]


def _first(pairs: dict[str, str], keys: Sequence[str]) -> str:
    return next((pairs[key] for key in keys if key in pairs), "")
