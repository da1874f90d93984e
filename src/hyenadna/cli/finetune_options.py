"""What a fine-tuning run is asked for, in plain values: how to read, split, measure and learn.

The dataclasses are options of the command line too; nothing here loads torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from cyclopts import Parameter

from hyenadna.errors import InputError
from hyenadna.task_kinds import TaskKind
from hyenadna.training_config import FinetuneConfig

# The words of modules that load torch or pysam; a test compares them.
HeaderLabel = Literal["auto", "key", "last-field", "last-word", "last-character"]
Outside = Literal["refuse", "pad"]
Missing = Literal["refuse", "mask"]
Empty = Literal["refuse", "drop"]
SplitBy = Literal["random", "group", "similarity"]
Pooling = Literal["mean", "last", "first", "sum", "attention", "token"]
Strands = Literal["forward", "average", "concatenate"]
LeakLook = Literal["near", "same", "none"]

BASELINE_CHOICES: Final = ("majority", "kmer", "hmm", "cnn", "random", "transformer")
"""The last two are trained as the model is, from random weights."""

_Each = Parameter(consume_multiple=False)


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How labelled sequences are read from their files; see `hyenadna.data.labelled`."""

    task: TaskKind | None = None
    """`classes`: one of several for each sequence; `labels`: several yes/no; `values`: numbers;
    `tokens`: a class for each base. By the look of the labels when left out."""
    sequence: str | None = None
    """Column of the sequences; the usual names when left out."""
    pair: str | None = None
    """Column of a second sequence, where pairs are classified."""
    label: Annotated[tuple[str, ...], _Each] = ()
    """Column of the label, several times for several, or a pattern such as `y_*`; the usual names
    when left out. FASTA: key in the header."""
    split: str | None = None
    """Column that says train, valid or test; `none` says that there is none."""
    id: str | None = None
    """Column of names of rows."""
    group: str | None = None
    """Column of groups, such as chromosomes, for `--split-by group`."""
    header: HeaderLabel = "auto"
    """Where in a FASTA header the label stands."""
    genome: str | None = None
    """FASTA to cut intervals from: of a BED, or of columns chrom, start, end (0-based, half open)
    and strand."""
    window: int | None = None
    """Bases to cut around the middle of each interval, instead of the interval."""
    outside: Outside = "refuse"
    """What to do with a window past the end of a contig; `pad` puts N there."""
    track: Annotated[tuple[str, ...], _Each] = ()
    """NAME=FILE, once for each class, for a class of each base of the intervals. FILE is a BED, or
    features of a GFF or GTF: `exon=genes.gtf:exon`, `rrna=genes.gff3:exon,biotype=rRNA`."""
    frames: str | None = None
    """GFF or GTF with CDS: the class of a base is its place in a codon, `+1` `+2` `+3` on the
    strand that is read, `-1` `-2` `-3` on the other one, or `none`."""
    genes: str | None = None
    """GFF or GTF with exons: the class of a base is `exon`, `intron` or `intergenic`."""
    stranded: bool = False
    """Classes of `--track` and `--genes` are two, for features on either strand: `+exon` on the
    strand that is read, `-exon` on the other."""
    tile: int | None = None
    """Windows of so many bases side by side over the whole genome, instead of DATA; give
    `--split-by group`, which keeps stretches of 50,000 bases on one side."""
    bigwig: Annotated[tuple[str, ...], _Each] = ()
    """NAME=FILE, once for each value, for means of bigWig tracks over the intervals."""
    missing: Missing = "refuse"
    """What to do with a row without a class; missing labels and values are always masked."""
    empty: Empty = "refuse"
    """What to do with an empty sequence."""

    def for_predicting(self) -> dict[str, Any]:
        """What `hyenadna predict` must know to read sequences in the same way."""
        return {name: getattr(self, name) for name in ("sequence", "pair", "window", "outside")}


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """What is held out of the data, and what is looked for before training."""

    valid_fraction: float = 0.1
    """Share of the training rows for validation, where the data has no valid part."""
    test_fraction: float | None = None
    """Share of the training rows for test, where the data has no test part; none when left out."""
    split_by: SplitBy = "random"
    """What is held out together: rows with the same sequence, whole groups, or whole families of
    similar sequences."""
    split_seed: int = 0
    """Another one holds out other rows."""
    leaks: LeakLook = "near"
    """What is looked for between the splits: `same` sequences on either strand, or `near`
    duplicates as well (seconds for 10,000 sequences)."""
    drop_leaks: bool = False
    """Leave out training rows that stand in valid or test, and valid rows that stand in test."""
    choose_on_test: bool = False
    """The paper's protocol: choose the model on the test part, which flatters it. The report says
    so; rows of a valid part are not used."""

    def __post_init__(self) -> None:
        for name in ("valid_fraction", "test_fraction"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise InputError(f"--{_flag(name)} is {value}; it must be between 0 and 1")
        if self.drop_leaks and self.leaks == "none":
            raise InputError("--drop-leaks with --leaks none: give --leaks same or near")


@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """The head on the backbone; see `hyenadna.model.heads`."""

    pooling: Pooling | None = None
    """One vector of the states of a sequence; `mean` when left out (`token` for a class of each
    base, the only one there)."""
    strands: Strands = "forward"
    """`average` or `concatenate` both strands, at twice the time. Averaging hurts where the strand
    matters; concatenating shows each base what follows it."""
    dropout: float = 0.0
    """Dropout on what the head reads."""


@dataclass(frozen=True, kw_only=True)
class FinetuneRequest:
    """All that the result of a run depends on, but device and threads."""

    model: str = ""
    """Run, folder or name; `random:` before it for its shape from random weights."""
    data: tuple[str, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict)
    """Instead of `data`: train, valid, test -> file."""
    reading: ReadingOptions = ReadingOptions()
    splitting: SplitOptions = SplitOptions()
    head: HeadOptions = HeadOptions()
    options: FinetuneConfig = FinetuneConfig()  # noqa: RUF009 - frozen
    seeds: tuple[int, ...] = (0,)
    baselines: tuple[str, ...] = ("majority", "kmer")

    @classmethod
    def of(
        cls,
        model: str | None,
        data: Sequence[Path],
        train: Path | None,
        valid: Path | None,
        test: Path | None,
        **others: Any,
    ) -> Self:
        """From the arguments of a command; others: fields by name."""
        files = {"train": train, "valid": valid, "test": test}
        parts = {split: str(path) for split, path in files.items() if path is not None}
        return cls(model=model or "", data=tuple(map(str, data)), parts=parts, **others)

    def to_dict(self) -> dict[str, Any]:
        """Plain values by field name."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`, also through JSON. Raises InputError for other values."""
        try:
            return cls(
                model=str(values["model"]),
                data=tuple(values["data"]),
                parts=dict(values["parts"]),
                reading=_made(ReadingOptions, values["reading"]),
                splitting=_made(SplitOptions, values["splitting"]),
                head=_made(HeadOptions, values["head"]),
                options=FinetuneConfig.from_dict(values["options"]),
                seeds=tuple(values["seeds"]),
                baselines=tuple(values["baselines"]),
            )
        except (KeyError, TypeError) as error:
            raise InputError(f"the request of the run cannot be read ({error!r})") from error

    def flat(self) -> dict[str, Any]:
        """Value of each option by its flag."""
        plain = self.to_dict()
        found = {"MODEL": plain["model"], "DATA": plain["data"]}
        found |= {f"--{split}": plain["parts"].get(split) for split in ("train", "valid", "test")}
        for name in ("reading", "splitting", "head", "options"):
            found |= {f"--{_flag(key)}": value for key, value in plain[name].items()}
        return found | {"--seeds": self.seeds, "--baselines": self.baselines}


def seed_list(text: str) -> tuple[int, ...]:
    """The seeds that `--seeds` names: `3` is 0, 1 and 2; `3,5` is 3 and 5; `7,` is 7.

    Raises InputError for anything else.
    """
    parts = [part.strip() for part in text.split(",")]
    wanted = [part for part in parts if part]
    if not wanted or not all(part.isdecimal() for part in wanted):
        raise InputError(f"--seeds is {text!r}; give how many, such as 3, or which, such as 3,5")
    numbers = tuple(int(part) for part in wanted)
    if len(parts) == 1:
        if not 1 <= numbers[0] <= 1000:
            raise InputError(f"--seeds is {text}; give 1 to 1,000 seeds, or which, such as 3,5")
        return tuple(range(numbers[0]))
    if len(set(numbers)) < len(numbers):
        raise InputError(f"--seeds {text}: one comes twice")
    return numbers


def name_list(flag: str, text: str, choices: Sequence[str]) -> tuple[str, ...]:
    """The names that an option lists, each once; none for `none` or nothing.

    Raises InputError for a name that is no choice.
    """
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if names == ("none",):
        return ()
    for name in names:
        if name not in choices:
            raise InputError(
                f"{flag}: there is no {name!r}; there are {', '.join(choices)}, or none"
            )
    return names


def named_files(flag: str, texts: tuple[str, ...]) -> dict[str, str] | None:
    """NAME=FILE, each, as a mapping; None for none. Raises InputError for another form."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not (name and equals and path) or name in found:
            raise InputError(f"{flag} {text}: give NAME=FILE, each name once")
        found[name] = path
    return found or None


def _made(kind: Any, values: Mapping[str, Any]) -> Any:
    """An options object of plain values; lists of JSON are tuples."""
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def _flag(name: str) -> str:
    return name.replace("_", "-")
