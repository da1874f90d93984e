"""GenomicBenchmarks: eight classification tasks in four layouts.

    DATA/<task>/<train|test>/<class>/*.txt       what the package unpacks: a sequence in each file
    DATA/<task>/<train|test>/<class>.csv.gz      intervals: id, region, start, end, strand (0-based)
    DATA/<task>.csv                              columns sequence, label, split
    DATA/<task>/<train|test>.parquet             columns seq, label: the authors' data on the hub

Intervals are cut from genomes on demand: each region is looked up in all that are given, `chr1` and
`1` being the same contig. Classes are sorted by name. There is no valid split:
`hyenadna.data.splits.with_valid` makes one from train.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np

from hyenadna.data.benchmarks.layouts import find_task_files
from hyenadna.data.benchmarks.remote import RemoteFile, hub_address
from hyenadna.data.benchmarks.suite import BenchmarkTask, Suite, find_task
from hyenadna.data.genome_windows import ContigSource, GenomeWindows, WindowedData
from hyenadna.data.labelled import LabelledData, read_labelled
from hyenadna.data.labelled_data import Task
from hyenadna.data.tables import listed, open_table
from hyenadna.data.text_files import stem_of, suffix_of
from hyenadna.errors import InputError
from hyenadna.genome.fasta import Genome, GenomeReader

# name, classes, longest, train rows, test rows: counted from the package's coordinate tables.
_ROWS: Final = (
    ("dummy_mouse_enhancers_ensembl", 2, 4707, 968, 242),
    ("demo_coding_vs_intergenomic_seqs", 2, 200, 75000, 25000),
    ("demo_human_or_worm", 2, 200, 75000, 25000),
    ("human_enhancers_cohn", 2, 500, 20843, 6948),
    ("human_enhancers_ensembl", 2, 573, 123872, 30970),
    ("human_ensembl_regulatory", 3, 802, 231348, 57713),
    ("human_nontata_promoters", 2, 251, 27097, 9034),
    ("human_ocr_ensembl", 2, 593, 139804, 34952),
)
_HUB: Final = "katarinagresova/Genomic_Benchmarks_"
# Commit and the files for train and test, as the hub's own pages have them on record
# (huggingface.co/datasets/<repository>/tree/<commit>/data, or .../default where the commit is of
# the hub's conversion to Parquet, the same rows).
_PARQUET: Final = ("default/train/0000.parquet", "default/test/0000.parquet")
_COMMITS: Final = {
    "dummy_mouse_enhancers_ensembl": ("02eb7864818c43dcb249c9b5801d875520932989", *_PARQUET),
    "demo_coding_vs_intergenomic_seqs": ("6465cfbcbc4e5a6158db11b9a052d8beb7d899b0", *_PARQUET),
    "demo_human_or_worm": (
        "f54572612828ff90a4b235a49eb46f5bb8e47427",
        "data/train-00000-of-00001-0d5a5f4de37ce201.parquet",
        "data/test-00000-of-00001-1033586105338bbd.parquet",
    ),
    "human_enhancers_cohn": ("a08d2a926909a99402c760cd75f9bbe82e0d8a3b", *_PARQUET),
    "human_enhancers_ensembl": (
        "1e4a3993d89263e6496b64824cad9716c5f6643b",
        "data/train-00000-of-00001-cb81734ed6488aa3.parquet",
        "data/test-00000-of-00001-21964d4fd7a45ed3.parquet",
    ),
    "human_ensembl_regulatory": ("c399f8c7e4203a71ed32057d1a2d96318da4f24d", *_PARQUET),
    "human_nontata_promoters": (
        "e0003669df0a180c8570ebe091ed91f20fa080ec",
        "data/train-00000-of-00001-aeb55728756a44ae.parquet",
        "data/test-00000-of-00001-d7614d9116c62f44.parquet",
    ),
    "human_ocr_ensembl": ("9fcbfc9e47fbbd37216f81070d413d4c9ea2204f", *_PARQUET),
}
_INTERVAL: Final = ("id", "region", "start", "end", "strand")
_TABLES: Final = (".csv", ".tsv")
_STRANDS: Final = {"+": False, "-": True, "1": False, "-1": True, ".": False, "": False}

Absent = Literal["refuse", "drop"]


def list_tasks() -> tuple[BenchmarkTask, ...]:
    """The eight tasks of the paper; accuracy."""
    return tuple(
        BenchmarkTask(
            name=name, kind="classes", outputs=classes, length=length, metric="accuracy",
            train=train, test=test,
        )
        for name, classes, length, train, test in _ROWS
    )  # fmt: skip


def load(
    task: str,
    data_dir: str | Path,
    *,
    genomes: Sequence[str | Path | GenomeReader] = (),
    absent: Absent = "refuse",
) -> LabelledData:
    """One task, split into train and test as its files say.

    genomes: FASTA files that intervals are cut from. absent: an interval that is on none of them
    is refused, or the row dropped (and counted in a note), for parts of a genome.

    Raises InputError for an unknown task, for files that are missing or not as told above, and for
    a contig that two genomes have.
    """
    facts = find_task(list_tasks(), task, "genomic_benchmarks")
    found = find_task_files(data_dir, facts.file_names)
    tables = _interval_tables(found)
    if not tables:
        return read_labelled(found, task="classes", name=facts.name)
    if not genomes:
        raise InputError(f"{found}: holds intervals; give the genomes that they are cut from")
    return _from_intervals(facts.name, tables, genomes, absent)


def _interval_tables(folder: Path) -> list[tuple[str, str, Path]]:
    """(split, class, file) of the interval layout; none for another layout."""
    if not folder.is_dir():
        return []
    return [
        (split, stem_of(path), path)
        for split in ("train", "test")
        if (folder / split).is_dir()
        for path in sorted((folder / split).iterdir())
        if path.is_file() and suffix_of(path) in _TABLES
    ]


def _from_intervals(
    name: str,
    tables: Sequence[tuple[str, str, Path]],
    genomes: Sequence[str | Path | GenomeReader],
    absent: Absent,
) -> WindowedData:
    sources = _sources(genomes)
    index = {_plain(source.contig): i for i, source in enumerate(sources)}
    classes = tuple(sorted({label for _, label, _ in tables}))
    rows: list[tuple[int, int, int, bool, int]] = []
    splits, ids, dropped = list[str](), list[str](), 0
    for split, label, path in tables:
        table = open_table(path)
        missing = [column for column in _INTERVAL if column not in table.columns]
        if missing:
            raise InputError(f"{path}: lacks {', '.join(missing)}; it has {listed(table.columns)}")
        for number, cells in table.rows(_INTERVAL):
            place = table.place(number)
            start, stop, reverse = _interval(cells, place)
            source = index.get(_plain(cells[1]))
            if source is None or stop > sources[source].length:
                if absent == "refuse":
                    raise InputError(
                        f"{place}: {cells[1]}:{start + 1}-{stop} is on none of the genomes; give "
                        "the right assembly, or drop such rows"
                    )
                dropped += 1
                continue
            rows.append((source, start, stop, reverse, classes.index(label)))
            splits.append(split)
            ids.append(f"{split}/{label}/{cells[0]}")
    if not rows:
        raise InputError(f"{name}: no interval is on the genomes given; is it another assembly?")
    columns = np.array(rows, dtype=np.int64).T
    return WindowedData.of(
        name,
        GenomeWindows(sources, *columns[:4]),
        columns[4].copy(),
        Task("classes", classes),
        splits,
        ids=ids,
        notes=(f"{dropped} intervals on none of the genomes dropped",) if dropped else (),
    )


def _interval(cells: Sequence[str], place: str) -> tuple[int, int, bool]:
    try:
        start, stop = int(cells[2]), int(cells[3])
    except ValueError:
        raise InputError(
            f"{place}: start and end are {cells[2]!r}, {cells[3]!r}; they must be whole numbers"
        ) from None
    if not 0 <= start < stop:
        raise InputError(f"{place}: start {start}, end {stop}: it must hold that 0 <= start < end")
    if cells[4] not in _STRANDS:
        raise InputError(f"{place}: strand is {cells[4]!r}; it must be + or -")
    return start, stop, _STRANDS[cells[4]]


def _sources(genomes: Sequence[str | Path | GenomeReader]) -> list[ContigSource]:
    readers = [g if isinstance(g, GenomeReader) else Genome.open(g) for g in genomes]
    sources = [ContigSource(reader, contig) for reader in readers for contig in reader.contigs]
    seen: dict[str, ContigSource] = {}
    for source in sources:
        other = seen.setdefault(_plain(source.contig), source)
        if other is not source:
            raise InputError(
                f"contig {source.contig} is in {other.genome.path} and in {source.genome.path}; "
                "give one of the two"
            )
    return sources


def _plain(contig: str) -> str:
    # The package itself takes Ensembl's `1` for `chr1`, and its tables say `chr1`.
    return contig.removeprefix("chr")


def where_from() -> str:
    """Where the data comes from, and the steps."""
    return (
        "https://github.com/ML-Bioinfo-CEITEC/genomic_benchmarks (Apache-2.0). --download fetches "
        "the sequences that its authors put on the Hugging Face hub.\n"
        "1. `pip install genomic-benchmarks`, then "
        "genomic_benchmarks.loc2seq.download_dataset(task) writes "
        "~/.genomic_benchmarks/<task>/<train|test>/<class>/*.txt: give ~/.genomic_benchmarks as "
        "DATA.\n"
        "2. Or clone the repository and give its folder datasets as DATA, with the genomes that "
        "metadata.yaml of each task names (GRCh38; WBcel235 for the worm; cDNA for coding_seqs)."
    )


def remote_files() -> tuple[RemoteFile, ...]:
    """Train and test of each task, sequences in Parquet."""
    return tuple(
        RemoteFile(
            address=hub_address(_HUB + task, commit, path),
            path=f"{task}/{split}.parquet",
            tasks=(task,),
        )
        for task, (commit, train, test) in _COMMITS.items()
        for split, path in (("train", train), ("test", test))
    )


SUITE: Final = Suite(
    "genomic_benchmarks", "GenomicBenchmarks", list_tasks, load, where_from, remote_files
)
