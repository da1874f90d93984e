"""The browser page of a track run: while it runs, or later from its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hyenadna.errors import InputError
from hyenadna.genome.fasta import Genome
from hyenadna.genome.intervals import Interval
from hyenadna.infer.run_record import RunRecord
from hyenadna.infer.track_read import Floats, stored_tracks, values_in
from hyenadna.infer.track_regions import read_region
from hyenadna.report.browser_page import (
    Annotated,
    Shown,
    browser_html,
    lower_case,
    require_igv,
    require_shown,
    signals,
)
from hyenadna.report.browser_tracks import annotated
from hyenadna.report.page import paragraph, write_text

_WHAT: tuple[str, ...] = (
    "Surprisal is −log2 of the probability that the model gave to the base that stands there: "
    "2 bits is a guess among four, 0 is certain. It is low in tandem repeats and in what the model "
    "has learned by heart; low surprisal alone is no sign of function.",
    "Drag to move, zoom in to read bases. The page needs no network.",
)


def write_track_browser(
    path: Path,
    genome: Genome,
    region: Interval,
    values: Mapping[str, Floats],
    annotations: Sequence[Annotated] = (),
    *,
    model: str,
    context: int,
    footer: str = "",
) -> None:
    """Write the page.

    values: by the name of the track, one for each base of the region, NaN where there is none.
    context: least bases before a base. footer: what made it, and when.

    Raises InputError where it cannot be written, and as `browser_html` does.
    """
    letters = genome.letters(region.contig, region.start, region.stop).decode("latin-1")
    shown = Shown(region, genome.contigs[region.contig], letters)
    place = f"{region.contig}:{region.start + 1:,}–{region.stop:,}"
    html = browser_html(
        f"What {Path(model).name} expects of {place}",
        shown,
        [each for name, row in values.items() for each in signals(name, row)],
        [*annotations, lower_case(shown)],
        lead=[
            f"Model {model} on {genome.path.name}, {place} ({region.length:,} bases). Each base is "
            f"predicted from at least {context:,} bases before it on its strand, fewer at the ends "
            "of a contig.",
        ],
        notes=[paragraph(text) for text in _WHAT],
        footer=footer,
    )
    write_text(path, html)


def write_stored_browser(
    path: Path, out: Path, record: RunRecord, region: str, annotation: Sequence[Path] = ()
) -> None:
    """Write the page of a run that is done, from its bigWig or Parquet files.

    region: such as `chr1:1-20000`, up to 200,000 bases. The genome is read from where the run read
    it. Raises InputError for a run of another verb, where a file is gone or cannot be read back,
    where no base of the region has a value, and as `write_track_browser` does.
    """
    if record.verb != "track":
        raise InputError(f"{out}: is of hyenadna {record.verb}; a browser page shows tracks")
    genome = Genome.open(record.inputs["genome"])
    at = read_region(region, genome, [])
    require_igv()
    require_shown(at)
    values = values_in(out, record, list(stored_tracks(out, record)), at)
    if all(np.isnan(row).all() for row in values.values()):
        raise InputError(f"{out}: no base of {at} has a value; give a region that the run read")
    write_track_browser(
        path,
        genome,
        at,
        values,
        [annotated(file, at, genome) for file in annotation],
        model=record.model["name"],
        context=record.settings["context"],
        footer=f"hyenadna {record.hyenadna}, {record.made}",
    )
