"""Which tasks, which numbers of tokens and shots, which costs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """One labelled table of the shared data."""

    name: str
    title: str
    table: str
    """Below the folder of the data."""
    split: tuple[str, ...] = ("--split-by", "similarity")
    """How what is held out is drawn, where the table does not say."""
    tokens: str = "0,2,32,128,512,2048,8192"
    """Soft tokens, where a head reads the answer."""
    word_tokens: str = "0,32,512"
    """Soft tokens, where it is read in label words."""
    shots: str = "0,2,8,32"


MODEL = r"""
hyenadna pretrain chr22.fa.gz chr2.fa.gz chr9.fa.gz yeast_R64.fa.gz Bacillus.fa.gz Caul.fa.gz \
    ecoli.fa.gz --out RUN --preset tiny-1k --max-seq-len 34000 --weights 3,2,1,4,1.5,0.5,1.5 \
    --valid-contigs yeast_R64:VI --test-contigs yeast_R64:IV,yeast_R64:XV \
    --exclude-contigs yeast_R64:Mito --tokens-per-step 8192 --steps 4200 --length 8192 \
    --stages 1024:3700 --lr 0.0015 --final-lr 0.02 --embed-dropout 0 --threads 2 --seed 1 \
    --evaluate-every 1000 --evaluate-bases 50000
""".strip()
"""The run that the committed page is of; the genomes are those of the shared data, renamed."""


OWN_SPLIT = ("--test-fraction", "0.2", "--split-by", "similarity")

TASKS = (
    Task(
        "human", "human core promoters with TATA, 70 bases (GUE prom_core_tata)",
        "gue_promoter/prom_core_tata.csv.gz",
    ),
    Task(
        "bacteria", "sigma-70 promoters of E. coli, 81 bases (own split)",
        "cnnpromoter/ecoli_sigma70.csv.gz", OWN_SPLIT,
        tokens="0,2,32,512,2048,8192", shots="0,2,8",
    ),
    Task(
        "yeast", "histone mark H3 of yeast, 500 bases (GUE, own split of the rows at hand)",
        "gue_emp_yeast_histone/H3.csv.gz", ("--split", "none", *OWN_SPLIT),
        tokens="0,32,512,8192", word_tokens="0,512", shots="0,2,8",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """Sequences behind soft tokens, by the shared prefix and by its slow twin."""

    tokens: int
    rows: int
    length: int
    twin: bool = True
    """Whether the twin is measured too: it takes rows times the tokens."""


@dataclass(frozen=True)
class Plan:
    """What is run of each task, and which costs are measured."""

    tokens: str | None = None
    """Instead of those of the task."""
    word_tokens: str | None = None
    shots: str | None = None
    tuning_samples: str = "0,2,16,64,256"
    draws: int = 3
    limit: int = 300
    """Rows that few shots are measured on, at most."""
    epochs: int = 5
    patience: int = 2
    costs: tuple[Cost, ...] = ()


FULL = Plan(
    costs=tuple(
        Cost(tokens, 16, length)
        for length in (80, 500)
        for tokens in (32, 512, 2048, 8192)
    ) + (Cost(32768, 16, 80, twin=False), Cost(32768, 1, 80)),
)  # fmt: skip
TINY = Plan(
    tokens="0,4", word_tokens="0,4", shots="0,1", tuning_samples="0,2", draws=2, limit=60,
    epochs=1, patience=1,
    costs=(Cost(64, 4, 80),),
)  # fmt: skip
