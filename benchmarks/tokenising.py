"""How fast a FASTA becomes token ids, beside other ways, and where the time goes.

    python benchmarks/tokenising.py [MEGABYTES]

Makes a FASTA of random letters (200 MB when left out; lines of 60, a fifth of them lower case) in a
temporary folder, plain, gzip and bgzip, and takes the median of three runs of each way, on one
thread. Prints a table and writes docs/benchmarks/tokenising.md.
"""

from __future__ import annotations

import gzip
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pysam

from hyenadna.alphabet import TOKENS, UNK, encode
from hyenadna.genome.faidx import PIECE_BYTES, layout
from hyenadna.genome.fasta import Genome

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "tokenising.md"
CONTIGS, LINE, WINDOW, REPEATS = 4, 60, 32_768, 3
LOAD_BGZIP, UNPACK_BGZIP = "bgzip: `Genome.load`", "bgzip: unpacking alone"
PACKED_SHARE = 5
"""The packed files hold this part of the plain one: packing them takes longer than measuring."""


def main() -> None:
    """Make the files, measure, print and write the page."""
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = write_fasta(folder / "plain.fa", megabytes * 1_000_000)
        small = write_fasta(folder / "small.fa", max(1, megabytes // 100) * 1_000_000)
        packed = write_packed(folder, megabytes * 1_000_000 // PACKED_SHARE)
        rows = [*plain_rows(plain, small), *packed_rows(*packed)]
    text = page(rows, megabytes)
    PAGE.write_text(text)
    print(text)


def write_fasta(path: Path, size: int) -> Path:
    """A FASTA of about `size` bytes with random letters in lines of one length."""
    rng = np.random.default_rng(0)
    count = size // CONTIGS // (LINE + 1)
    alphabet = np.frombuffer(b"ACGTACGTACGTACGTacgt", dtype=np.uint8)
    with path.open("wb") as stream:
        for contig in range(CONTIGS):
            lines = np.full((count, LINE + 1), ord("\n"), dtype=np.uint8)
            lines[:, :LINE] = alphabet[rng.integers(0, len(alphabet), (count, LINE), np.uint8)]
            stream.write(b">chr%d\n" % (contig + 1))
            stream.write(lines.tobytes())
    return path


def write_packed(folder: Path, size: int) -> tuple[Path, Path, Path]:
    """The same letters plain, in gzip and in bgzip."""
    plain = write_fasta(folder / "part.fa", size)
    letters = plain.read_bytes()
    one, other = folder / "part.gzip.fa.gz", folder / "part.bgzip.fa.gz"
    one.write_bytes(gzip.compress(letters, 6))
    with pysam.BGZFile(str(other), "w", index=None) as stream:
        stream.write(letters)
    return plain, one, other


def plain_rows(plain: Path, small: Path) -> list[tuple[str, float]]:
    """Megabytes of a plain file a second, each way."""
    genome = Genome.open(plain)

    def windows() -> None:
        for contig, length in genome.contigs.items():
            for start in range(0, length, WINDOW):
                genome.tokens(contig, start, min(start + WINDOW, length))

    return [
        (
            "`Genome.load`: every letter checked and counted, ids in memory",
            rate(plain, genome.load),
        ),
        ("`Genome.check`: the same without keeping the ids", rate(plain, genome.check)),
        (f"`Genome.tokens` from disk in windows of {WINDOW:,}", rate(plain, windows)),
        ("making the index (once for each file)", rate(plain, lambda: layout(plain))),
        ("reading the file alone", rate(plain, lambda: read(plain))),
        ("pysam `fetch` of a contig, then `encode`", rate(plain, lambda: fetch_and_encode(plain))),
        (
            "letter by letter in plain Python, as the original does",
            rate(small, lambda: by_letter(small)),
        ),
    ]


def packed_rows(plain: Path, gzipped: Path, bgzipped: Path) -> list[tuple[str, float]]:
    """Megabytes of unpacked text a second from packed files."""
    size = plain.stat().st_size
    block = Genome.open(bgzipped)

    def first_use() -> None:
        with tempfile.TemporaryDirectory() as cache:
            Genome.open(gzipped, cache=cache)

    def unpack(path: Path) -> None:
        with gzip.open(path, "rb") as stream:
            while stream.read(PIECE_BYTES):
                pass

    return [
        (LOAD_BGZIP, rate(size, block.load)),
        (UNPACK_BGZIP, rate(size, lambda: unpack(bgzipped))),
        ("gzip: first use, which unpacks it into the cache", rate(size, first_use)),
        ("gzip: unpacking alone", rate(size, lambda: unpack(gzipped))),
    ]


def read(path: Path) -> None:
    """Read a file to its end."""
    with path.open("rb") as stream:
        while stream.read(PIECE_BYTES):
            pass


def fetch_and_encode(path: Path) -> None:
    """Contigs through pysam, which makes text, and the checked encoder of single sequences."""
    with pysam.FastaFile(str(path)) as fasta:
        for contig in fasta.references:
            encode(fasta.fetch(contig))


def by_letter(path: Path) -> list[int]:
    """One dictionary look-up a letter."""
    ids = {letter: token for token, letter in enumerate(TOKENS)}
    found: list[int] = []
    with pysam.FastaFile(str(path)) as fasta:
        for contig in fasta.references:
            found = [ids.get(letter, UNK) for letter in fasta.fetch(contig).upper()]
    return found


def rate(size: Path | int, way: Callable[[], object]) -> float:
    """Megabytes a second: median of several runs, after one that warms up."""
    seconds = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        way()
        seconds.append(time.perf_counter() - start)
    count = size if isinstance(size, int) else size.stat().st_size
    return count / statistics.median(seconds[1:]) / 1e6


def page(rows: list[tuple[str, float]], megabytes: int) -> str:
    """The table, and what it says about packed files."""
    speed = dict(rows)
    share = speed[LOAD_BGZIP] / speed[UNPACK_BGZIP]
    lines = [
        "# From FASTA to token ids",
        "",
        f"Random letters, {megabytes} MB plain (packed: {megabytes // PACKED_SHARE} MB of text), "
        f"lines of {LINE}, one thread; {platform.machine()}, Python {platform.python_version()}, "
        f"numpy {np.__version__}, pysam {pysam.__version__}. Megabytes of text a second, median of "
        f"{REPEATS} runs. Generated by `python benchmarks/tokenising.py`.",
        "",
        "| way | MB/s |",
        "|---|---|",
        *(f"| {name} | {value:,.0f} |" for name, value in rows),
        "",
        f"Of the time that `Genome.load` of a bgzip file takes, unpacking alone is {share:.0%}. "
        "A gzip file is unpacked once; after that it is a plain one.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
