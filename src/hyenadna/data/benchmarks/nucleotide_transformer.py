"""The 18 tasks of the Nucleotide Transformer, first release, in two layouts.

    DATA/<task>/*<train|test>*.fasta     the label is the last character of each header
    DATA/<task>.csv                      columns sequence, label, split (also one table per split)

There is no valid split: `hyenadna.data.splits.with_valid` makes one from train.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hyenadna.data.benchmarks.layouts import find_task_files
from hyenadna.data.benchmarks.remote import RemoteFile, hub_address
from hyenadna.data.benchmarks.suite import FASTA, TABLES, BenchmarkTask, Suite, find_task
from hyenadna.data.labelled import LabelledData, read_labelled
from hyenadna.data.sources import require_no_named_classes
from hyenadna.data.text_files import suffix_of

_SUFFIXES: Final = (*TABLES, *FASTA)
# The hub's own pages have this commit on record (huggingface.co/datasets/<repository>/tree/<commit>
# with /H3K4me2, /splice_sites_all and others): the first release.
_REPOSITORY: Final = (
    "InstaDeepAI/nucleotide_transformer_downstream_tasks",
    "35505196a3ce21d6db1ad42462094ede77108916",
)
# name, bases, classes, train rows, other names; train rows from the original repository.
_ROWS: Final = (
    ("enhancer", 200, 2, 14968, ("enhancers",)),
    ("enhancer_types", 200, 3, 14968, ("enhancers_types",)),
    ("H3", 500, 2, 13468, ()),
    ("H3K4me1", 500, 2, 28509, ()),
    ("H3K4me2", 500, 2, 27614, ()),
    ("H3K4me3", 500, 2, 33119, ()),
    ("H3K9ac", 500, 2, 25003, ()),
    ("H3K14ac", 500, 2, 29743, ()),
    ("H3K36me3", 500, 2, 31392, ()),
    ("H3K79me3", 500, 2, 25953, ()),
    ("H4", 500, 2, 13140, ()),
    ("H4ac", 500, 2, 30685, ()),
    ("promoter_all", 300, 2, 53276, ()),
    ("promoter_non_tata", 300, 2, 47759, ("promoter_no_tata",)),
    ("promoter_tata", 300, 2, 5517, ()),
    ("splice_sites_acceptor", 600, 2, 19961, ("splice_sites_acceptors",)),
    ("splice_sites_donor", 600, 2, 19775, ("splice_sites_donors",)),
    ("splice_sites_all", 400, 3, 27000, ()),
)


def list_tasks() -> tuple[BenchmarkTask, ...]:
    """The 18 tasks: MCC for enhancers and histone marks, macro F1 for the rest."""
    return tuple(
        BenchmarkTask(
            name=name, kind="classes", outputs=classes, length=length,
            metric="mcc" if name.startswith(("H3", "H4", "enhancer")) else "f1_macro",
            train=train, aliases=aliases,
        )
        for name, length, classes, train, aliases in _ROWS
    )  # fmt: skip


def load(task: str, data_dir: str | Path) -> LabelledData:
    """One task, split into train and test as its files say.

    Raises InputError for an unknown task and for files that are missing or not as told above.
    """
    facts = find_task(list_tasks(), task, "nucleotide_transformer")
    found = find_task_files(data_dir, facts.file_names, suffixes=_SUFFIXES)
    require_no_named_classes(found)
    fasta = suffix_of(found) in FASTA or (
        found.is_dir() and any(suffix_of(path) in FASTA for path in found.iterdir())
    )
    return read_labelled(
        found,
        task="classes",
        header="last-character" if fasta else "auto",
        name=facts.name,
    )


def where_from() -> str:
    """Where the data comes from, and the steps."""
    return (
        "InstaDeep, data set nucleotide_transformer_downstream_tasks of the Hugging Face hub "
        "(InstaDeepAI), first release: the 18 tasks of the paper. --download fetches them. (The "
        "later nucleotide_transformer_downstream_tasks_revised has other tasks: marks of human "
        "histones in 1,000 bases, where these are of yeast.)\n"
        "1. Download the train and test FASTA of each task.\n"
        "2. Put them at DATA/<task>/train.fna and DATA/<task>/test.fna; the label is the last "
        "character of each header.\n"
        "Tables DATA/enhancers.csv and DATA/enhancers_types.csv (iEnhancer-2L) are read as well. "
        "In these 100 of the 200 enhancers of the test part stand in the training part too: "
        "--drop-leaks.\n"
        "The paper of HyenaDNA used splits of its own making, which are not published, so its "
        "figures are of other rows."
    )


def remote_files() -> tuple[RemoteFile, ...]:
    """Train and test FASTA of each task, at a commit of the first release."""
    return tuple(
        RemoteFile(
            address=hub_address(*_REPOSITORY, f"{name}/{split}.fna"),
            path=f"{name}/{split}.fna",
            tasks=(task.name,),
        )
        for task in list_tasks()
        for name in [task.file_names[-1]]  # as the data set calls it
        for split in ("train", "test")
    )


SUITE: Final = Suite(
    "nucleotide_transformer", "Nucleotide Transformer tasks", list_tasks, load, where_from,
    remote_files, _SUFFIXES,
)  # fmt: skip
