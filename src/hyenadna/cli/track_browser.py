"""The browser page of `hyenadna track`."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hyenadna import __version__
from hyenadna.errors import InputError
from hyenadna.genome.intervals import Interval, overlap

if TYPE_CHECKING:
    from hyenadna.genome.fasta import Genome
    from hyenadna.infer.track_files import Floats, Track
    from hyenadna.infer.track_spill import TrackSpill
    from hyenadna.infer.track_windows import TrackPlan
    from hyenadna.report.browser_page import Annotated


@dataclass(frozen=True)
class BrowserJob:
    """What goes into the page."""

    path: Path
    region: Interval
    reader: Genome
    annotations: tuple[Annotated, ...]
    model: str

    @classmethod
    def prepare(
        cls,
        page: tuple[Path | None, str | None],
        reader: Genome,
        regions: Sequence[Interval],
        annotation: Sequence[Path],
        model: str,
    ) -> BrowserJob | None:
        """The page asked for; None where there is none.

        page: file and region. Raises InputError where the file exists or has another suffix, the
        region is too long, not on the genome, or without a base that gets a value, and without
        igv-notebook.
        """
        path, text = page
        if path is None:
            if text is not None:
                raise InputError("--browser-region is the region of a page; give --browser as well")
            return None
        from hyenadna.infer.track_regions import read_region
        from hyenadna.report.browser_page import MOST_BASES, require_igv, require_shown
        from hyenadna.report.browser_tracks import annotated

        if path.suffix.casefold() not in (".html", ".htm"):
            raise InputError(f"{path}: a browser page is HTML; give a name that ends in .html")
        if path.exists():
            raise InputError(f"{path}: exists; remove it, or give another --browser")
        if not path.parent.is_dir():
            raise InputError(f"{path}: there is no folder {path.parent}; make it first")
        require_igv()
        if text is None:
            region = _first_bases(reader, regions, MOST_BASES)
        else:
            region = read_region(text, reader, [])
        require_shown(region)
        if overlap([region], regions) is None:
            raise InputError(
                f"--browser-region {region}: no base of it is in the regions of --bed or --region"
            )
        shown = tuple(annotated(file, region, reader) for file in annotation)
        return cls(path, region, reader, shown, model)

    def values(self, spill: TrackSpill, tracks: Sequence[Track]) -> dict[str, Floats]:
        """The tracks over the region, read before the run's files take their names."""
        import numpy as np

        from hyenadna.infer.track_files import values_at

        found = {}
        for track in tracks:
            values = np.full(self.region.length, np.nan, dtype=np.float32)
            for region in spill.plan.regions:
                start = max(region.start, self.region.start)
                stop = min(region.stop, self.region.stop)
                if region.contig == self.region.contig and start < stop:
                    at = slice(start - self.region.start, stop - self.region.start)
                    values[at] = values_at(spill, track, Interval(region.contig, start, stop))
            found[track.name] = values
        return found

    def write(self, values: Mapping[str, Floats], plan: TrackPlan) -> None:
        """Write the page. Raises InputError where it cannot be written."""
        from hyenadna.report.track_browser import write_track_browser

        made = datetime.datetime.now(datetime.UTC).astimezone().isoformat(timespec="seconds")
        write_track_browser(
            self.path,
            self.reader,
            self.region,
            values,
            self.annotations,
            model=self.model,
            context=plan.context,
            footer=f"hyenadna {__version__}, {made}",
        )


def _first_bases(reader: Genome, regions: Sequence[Interval], most: int) -> Interval:
    """The first region from its first base A C G T on, at most so many bases."""
    import numpy as np

    from hyenadna.alphabet import BASES

    step = 1 << 22
    for region in regions:
        for start in range(region.start, region.stop, step):
            stop = min(start + step, region.stop)
            known = np.flatnonzero(np.isin(reader.tokens(region.contig, start, stop), BASES))
            if len(known):
                first = start + int(known[0])
                return Interval(region.contig, first, min(first + most, region.stop))
    return Interval(
        regions[0].contig, regions[0].start, min(regions[0].stop, regions[0].start + most)
    )
