"""Species classification: from which genome is this stretch? Windows of any length up to a million.

One folder of FASTA files, or one FASTA file, for each species:

    DATA/human/chr1.fna.gz, chr2.fna.gz, ...      or      DATA/human.fa.gz

Test is chromosomes 1, 3, 12 and 13 of every species, as in the paper. The paper chose its models on
those same chromosomes; here valid is 5, 7, 9, 10 and 11, which the original keeps out of training
as well, and train is the rest. A genome without these chromosomes (one contig, say) is cut into
stretches: of each contig, train, valid and test take 70, 15 and 15 % in turn, up to five times
over, in stretches that hold at least two windows. No base is in two parts. A part that holds less
than two windows has hardly more than one to show, however many are drawn; a genome of which a part
holds none (a phage of 48 kb at 64 kb) is refused.

A window starts anywhere in a region of its part with equal chance and is always full: species are
drawn in turn, so that classes are balanced, and in a species every start is as likely as any other.
A window that is more than half N is drawn again. (The original fills a part of its windows with N
that the genome has bases for, and draws anew on every visit, so that its test set is another one
each time; here a set is a function of the seed.) Nothing is read until it is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from hyenadna.alphabet import N
from hyenadna.data.benchmarks.remote import NCBI, RemoteFile
from hyenadna.data.benchmarks.suite import BenchmarkTask, Suite
from hyenadna.data.genome_windows import ContigSource, GenomeWindows, Int64s, WindowedData
from hyenadna.data.labelled_data import Task
from hyenadna.data.strata import below, random_bits
from hyenadna.data.text_files import stem_of, suffix_of
from hyenadna.errors import InputError
from hyenadna.genome.fasta import Genome, GenomeReader
from hyenadna.genome.intervals import Interval

LENGTHS: Final[Mapping[str, int]] = {
    "1k": 1024,
    "32k": 32768,
    "250k": 250_000,
    "450k": 450_000,
    "1m": 1_000_000,
}
"""Bases of the tasks of the paper; any other length is written as a number."""
PARTS: Final = ("train", "valid", "test")
TEST_CHROMOSOMES: Final = frozenset((1, 3, 12, 13))
VALID_CHROMOSOMES: Final = frozenset((5, 7, 9, 10, 11))

_SHARES: Final = (("train", 0.70), ("valid", 0.15), ("test", 0.15))
_MOST_ROUNDS: Final = 5
_MAX_N: Final = 0.5
_REDRAWS: Final = 100
_IN_MEMORY: Final = 1 << 30
"""Up to so many bases of all species together are held in memory, 1 byte each; more are not."""
_CHROMOSOME: Final = re.compile(r"(?:chr|chromosome)[_ ]?0*(\d+)", re.IGNORECASE)
_PLAIN_NUMBER: Final = re.compile(r"0*(\d{1,2})")
_FASTA: Final = frozenset((".fa", ".fasta", ".fna", ".fas"))

Regions = Mapping[str, Sequence[tuple[int, Interval]]]


def list_tasks() -> tuple[BenchmarkTask, ...]:
    """The lengths of the paper, of five species."""
    return tuple(
        BenchmarkTask(name=name, kind="classes", outputs=5, length=length, metric="accuracy")
        for name, length in LENGTHS.items()
    )


def task_length(task: str) -> int:
    """Bases of a window: of a task of the paper (`32k`), or of a number (`4096`).

    Raises InputError for other text and for a length below 1.
    """
    if task in LENGTHS:
        return LENGTHS[task]
    if not (task.isascii() and task.isdigit() and int(task) >= 1):
        raise InputError(
            f"species: task {task!r} is no length; it is {', '.join(LENGTHS)}, or a number of bases"
        )
    return int(task)


def load(
    task: str,
    data_dir: str | Path,
    *,
    seed: int = 0,
    windows: Mapping[str, int] | None = None,
    region_length: int | None = None,
) -> WindowedData:
    """Windows of all species of a folder, read on demand; classes are species, sorted.

    task: length of a window, `1k` .. `1m` or a number of bases. windows: how many of train, valid
    and test, all species together; 1000 each by default. region_length: the longest window that
    the parts are laid out for, `task` by default; regions that cannot hold it are left out, so one
    value for several lengths measures them all on the same regions.

    Raises InputError where a species has no region that holds a window, and for a folder with
    fewer than two species.
    """
    length = task_length(task)
    longest = length if region_length is None else region_length
    if longest < length:
        raise InputError(f"species: region_length is {longest}, below the window of {length} bases")
    genomes = open_species(Path(data_dir))
    sources: list[ContigSource] = []
    regions: dict[str, dict[str, list[tuple[int, Interval]]]] = {}
    for species, readers in genomes.items():
        mine = [ContigSource(reader, contig) for reader in readers for contig in reader.contigs]
        regions[species] = split_regions(mine, longest, first=len(sources))
        sources += mine
    wanted = dict.fromkeys(PARTS, 1000) | dict(windows or {})
    columns: list[list[Int64s]] = [[], [], [], []]
    splits: list[str] = []
    for part_number, part in enumerate(PARTS):
        for label, species in enumerate(genomes):
            count = wanted[part] // len(genomes) + (label < wanted[part] % len(genomes))
            where = f"{species}, {part}"
            fitting = [r for r in regions[species][part] if r[1].length >= longest]
            if count and not fitting:
                raise InputError(
                    f"species: {where} has no region of {longest} bases; take shorter windows, or "
                    "leave this genome out"
                )
            keys = (seed, part_number, label)
            source, start = _draw(sources, fitting, count, length, keys, where)
            for column, values in zip(
                columns, (source, start, start + length, np.full(count, label)), strict=True
            ):
                column.append(values)
            splits += [part] * count
    source, start, stop, targets = (np.concatenate(column) for column in columns)
    cut = GenomeWindows(sources, source, start, stop)
    groups = [f"{genomes_name}:{contig}" for genomes_name, contig in _places(genomes, targets, cut)]
    return WindowedData.of(
        f"species-{task}", cut, targets, Task("classes", tuple(genomes)), splits, groups=groups
    )


def _places(
    genomes: Mapping[str, object], targets: Int64s, windows: GenomeWindows
) -> list[tuple[str, str]]:
    names = tuple(genomes)
    return [(names[t], c) for t, c in zip(targets.tolist(), windows.contigs, strict=True)]


def open_species(folder: Path) -> dict[str, list[GenomeReader]]:
    """The genomes of each species, in the order of their names.

    Raises InputError for a folder that is missing or has fewer than two species.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one with a FASTA or folder per species")
    files: dict[str, list[Path]] = {}
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            inside = sorted(p for p in entry.iterdir() if _is_fasta(p))
            if inside:
                files[entry.name] = inside
        elif _is_fasta(entry):
            files.setdefault(stem_of(entry), []).append(entry)
    if len(files) < 2:
        raise InputError(
            f"{folder}: holds {len(files)} species ({', '.join(files) or 'none'}); at least two "
            "are needed, each a FASTA file or a folder of them"
        )
    genomes = {name: [Genome.open(path) for path in files[name]] for name in sorted(files)}
    small = sum(genome.bases for mine in genomes.values() for genome in mine) <= _IN_MEMORY
    return {
        name: [genome.load() if small else genome for genome in mine]
        for name, mine in genomes.items()
    }


def _is_fasta(path: Path) -> bool:
    return path.is_file() and suffix_of(path) in _FASTA


def chromosome_number(source: ContigSource) -> int | None:
    """Number of the chromosome by the contig's name, or by the file's where it holds one contig."""
    found = _CHROMOSOME.fullmatch(source.contig) or _PLAIN_NUMBER.fullmatch(source.contig)
    if found is None and len(source.genome.contigs) == 1:
        found = _CHROMOSOME.fullmatch(stem_of(source.genome.path))
    return int(found[1]) if found else None


def split_regions(
    sources: Sequence[ContigSource], longest: int, *, first: int = 0
) -> dict[str, list[tuple[int, Interval]]]:
    """(index of the contig, interval) of each region of train, valid and test of one species.

    By chromosome number where that gives each part a contig, otherwise in stretches, as told at
    the head of this file. `first` is added to the indices. `longest`: bases of the longest window.
    """
    regions: dict[str, list[tuple[int, Interval]]] = {part: [] for part in PARTS}
    for i, source in enumerate(sources):
        number = chromosome_number(source)
        part = (
            "test" if number in TEST_CHROMOSOMES
            else "valid" if number in VALID_CHROMOSOMES
            else "train"
        )  # fmt: skip
        regions[part].append((first + i, Interval(source.contig, 0, source.length)))
    if all(regions.values()):
        return regions
    regions = {part: [] for part in PARTS}
    for i, source in enumerate(sources):
        for part, interval in _stretches(source, longest):
            regions[part].append((first + i, interval))
    return regions


def _stretches(source: ContigSource, longest: int) -> list[tuple[str, Interval]]:
    """A contig in stretches of train, valid and test, in rounds that each part fits twice in."""
    least = min(share for _, share in _SHARES)
    fits = int(source.length * least / (2 * longest))
    rounds = min(max(fits, 1), _MOST_ROUNDS)
    ends = np.cumsum([share for _ in range(rounds) for _, share in _SHARES]) / rounds
    cuts = [0, *np.rint(ends * source.length).astype(int).tolist()]
    parts = [part for _ in range(rounds) for part, _ in _SHARES]
    return [
        (part, Interval(source.contig, start, stop))
        for part, start, stop in zip(parts, cuts[:-1], cuts[1:], strict=True)
        if stop > start
    ]


def _draw(
    sources: Sequence[ContigSource],
    regions: Sequence[tuple[int, Interval]],
    count: int,
    length: int,
    keys: tuple[int, int, int],
    where: str,
) -> tuple[Int64s, Int64s]:
    """(source, start) of windows, each start of each region as likely as any other."""
    if not count:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    starts = np.cumsum([interval.length - length + 1 for _, interval in regions])
    index = np.arange(count)
    source, start = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    todo = index
    for turn in range(_REDRAWS):
        at = below(random_bits(*keys, todo, turn), int(starts[-1]))
        region = np.searchsorted(starts, at, side="right")
        before = np.concatenate([[0], starts[:-1]])[region]
        source[todo] = [regions[r][0] for r in region]
        start[todo] = at - before + [regions[r][1].start for r in region]
        todo = todo[[_too_much_n(sources[source[i]], int(start[i]), length) for i in todo]]
        if not len(todo):
            return source, start
    raise InputError(
        f"species: {where}: nearly all N; {len(todo)} of {count} windows of {length} bases have "
        f"over {_MAX_N:.0%} N after {_REDRAWS} draws"
    )


def _too_much_n(source: ContigSource, start: int, length: int) -> bool:
    ids = source.genome.tokens(source.contig, start, start + length)
    return bool(np.count_nonzero(ids == N) > _MAX_N * length)


def where_from() -> str:
    """Where the genomes come from, and the steps."""
    return (
        "Five mammals of the paper: human, mouse, ring-tailed lemur, pig and hippopotamus, "
        "assemblies of NCBI (https://www.ncbi.nlm.nih.gov/datasets/genome/). --download fetches "
        "those that the original names, chromosome by chromosome (several GB).\n"
        "1. Download the FASTA of each assembly, with one file per chromosome or one file in all.\n"
        "2. Put it at DATA/<species>/chr1.fna.gz, ... or DATA/<species>.fa.gz. Contigs called chr1 "
        "or 1, or files called chr1.fna, are chromosomes by number.\n"
        "Any other genomes do as well: those without numbered chromosomes are cut into stretches."
    )


# Species, accession with name, chromosomes: the assemblies of the original's README
# (HazyResearch/hyena-dna, "Species Classification"), the chromosomes of its splits.
_ASSEMBLIES: Final = (
    ("human", "GCA_009914755.4_T2T-CHM13v2.0", 22, "XY"),
    ("lemur", "GCA_020740605.1_mLemCat1.pri", 27, "XY"),
    ("mouse", "GCA_921998355.2_A_J_v3", 19, "X"),
    ("pig", "GCA_002844635.1_USMARCv1.0", 18, "XY"),
    ("hippo", "GCA_023065835.1_ASM2306583v1", 17, "X"),
)


def remote_files() -> tuple[RemoteFile, ...]:
    """The chromosomes of the five mammals; an accession with its version never changes."""
    return tuple(
        RemoteFile(
            address=f"{_assembly_address(assembly)}/chr{chromosome}.fna.gz",
            path=f"{species}/chr{chromosome}.fna.gz",
        )
        for species, assembly, numbered, lettered in _ASSEMBLIES
        for chromosome in (*map(str, range(1, numbered + 1)), *lettered)
    )


def _assembly_address(assembly: str) -> str:
    """The folder of the chromosomes of an assembly: its digits, three by three, are the path."""
    digits = assembly.split("_")[1].split(".")[0]
    parts = "/".join(digits[i : i + 3] for i in range(0, 9, 3))
    return (
        f"{NCBI}/{assembly[:3]}/{parts}/{assembly}/{assembly}_assembly_structure/"
        "Primary_Assembly/assembled_chromosomes/FASTA"
    )


SUITE: Final = Suite("species", "Species from sequence", list_tasks, load, where_from, remote_files)
