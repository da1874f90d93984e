"""The tasks: which genomes, which classes, which windows, and what is held out."""

from __future__ import annotations

import dataclasses
import gzip
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hyenadna.data.labelled import LabelledData, read_labelled
from hyenadna.data.splits import hold_out

TEST_SHARE, VALID_SHARE = 0.25, 0.15
BACTERIA = ("Bacillus", "Staph")
CHR22_END = 22_000_000
"""The sequence at hand ends here, the annotation of chromosome 22 does not."""


@dataclass(frozen=True)
class Task:
    """One question to ask of every base."""

    name: str
    title: str
    what: str
    """What is learnt from, in a sentence."""
    read: Callable[[Path, Path, int], list[LabelledData]]
    """(folder of the data, folder for files made, bases of a window) -> a set for each genome."""


def coding_frames(data: Path, work: Path, tile: int) -> list[LabelledData]:
    """The place in a codon of each base of two bacteria."""
    folder = data / "bacteria_4"
    return [
        read_labelled(
            None, genome=folder / f"{name}.fa.gz", frames=folder / f"{name}.gff.gz", tile=tile
        )
        for name in BACTERIA
    ]


def human_genes(data: Path, work: Path, tile: int) -> list[LabelledData]:
    """Exon, intron or intergenic for each base of parts of two human chromosomes."""
    inside = work / "refseq_hg19_chr22.inside.gtf"
    whole = data / "human_hg19_chr22_transcripts" / "refseq_hg19_chr22.gtf.gz"
    with gzip.open(whole, "rt") as text:
        rows = [line for line in text if int(line.split("\t")[4]) <= CHR22_END]
    inside.write_text("".join(rows))
    chr9 = data / "human_hg38_chr9_1Mb"
    return [
        read_labelled(
            None, genome=data / "human_hg19_chr22_6Mb" / "chr22_1-22000000.fa.gz", genes=inside,
            tile=tile,
        ),
        read_labelled(
            None, genome=chr9 / "chr9_1-1000000.fa.gz",
            genes=chr9 / "ensembl91_chr9_1-1000000.gtf.gz", tile=tile,
        ),
    ]  # fmt: skip


TASKS = (
    Task(
        "frames",
        "Coding frame of two bacteria",
        "*Bacillus subtilis* (4.0 Mb) and *Staphylococcus aureus* (2.8 Mb), Ensembl Bacteria GFF3: "
        "none, the place in a codon on the strand that is read (+1 +2 +3) or on the other (-1 -2 "
        "-3).",
        coding_frames,
    ),
    Task(
        "genes",
        "Exon, intron, intergenic of human",
        "Chromosome 22 to 22 Mb (hg19, RefSeq GTF) and the first Mb of chromosome 9 (GRCh38, "
        "Ensembl 91 GTF), on either strand.",
        human_genes,
    ),
)


def prepare(
    task: Task, data: Path, work: Path, *, tile: int, windows: int, seed: int
) -> LabelledData:
    """The windows of a task with their splits: whole stretches of the genomes, drawn by the seed.

    windows: about as many in all, the same share of each genome.
    """
    sets = task.read(data, work, tile)
    share = min(1.0, windows / sum(map(len, sets)))
    together = join(task.name, [some_stretches(each, share, seed) for each in sets])
    held_out = hold_out(together, "test", seed=seed, fraction=TEST_SHARE, by="group")
    valid_share = VALID_SHARE / (1 - TEST_SHARE)
    return hold_out(held_out, "valid", seed=seed, fraction=valid_share, by="group")


def some_stretches(data: LabelledData, share: float, seed: int) -> LabelledData:
    """Whole stretches of about this share of the windows, in the order of the genome."""
    assert data.groups is not None
    names = list(dict.fromkeys(data.groups))
    count = min(len(names), max(5, round(share * len(names))))  # each part gets one at least
    taken = np.random.default_rng(seed).choice(len(names), count, replace=False)
    kept = {names[i] for i in taken.tolist()}
    return data.select(np.array([group in kept for group in data.groups]))


def join(name: str, sets: Sequence[LabelledData]) -> LabelledData:
    """Several sets of one task as one; ids and groups begin with the name of their genome."""
    first = sets[0]
    assert all(each.task == first.task and each.groups is not None for each in sets)
    return dataclasses.replace(
        first,
        name=name,
        sequences=tuple(ids for each in sets for ids in each.sequences),
        targets=tuple(row for each in sets for row in each.targets),
        splits=np.concatenate([each.splits for each in sets]),
        ids=tuple(f"{each.name} {id}" for each in sets for id in each.ids),
        groups=tuple(f"{each.name} {group}" for each in sets for group in each.groups or ()),
        notes=tuple(dict.fromkeys(note for each in sets for note in each.notes)),
    )
