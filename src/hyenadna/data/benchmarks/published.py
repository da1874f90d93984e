"""Published figures as data, each with its source and how it was read.

All values are fractions of 1. HyenaDNA: arXiv 2306.15794 v2. Its own figures on GenomicBenchmarks
and the Nucleotide Transformer tasks were chosen on the test split, on splits of the authors' own
making for the latter; the runs of the Caduceus paper (arXiv 2403.03234) hold out a validation
split, so its HyenaDNA column is the one that an honest protocol can be set against.

Grades: A, read in the primary text; B, read in an abstract or README; C, as another paper cites it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Published:
    """One published figure."""

    suite: str
    task: str
    model: str
    metric: str
    value: float
    source: str
    grade: str
    protocol: str = ""
    """How model and step were chosen, where it is known."""

    @property
    def text(self) -> str:
        """The value in three digits."""
        return f"{self.value:.3f}"


def published(suite: str, task: str, metric: str | None = None) -> tuple[Published, ...]:
    """The published figures of a task, of one metric or all, in the order of the sources."""
    return tuple(
        row
        for row in PUBLISHED
        if (row.suite, row.task) == (suite, task) and metric in (None, row.metric)
    )


def best_known(
    suite: str, task: str, metric: str | None = None, *, but: str = "HyenaDNA"
) -> Published | None:
    """The highest published figure of another model than `but`, or None.

    Sources use splits of their own, so this is an orientation, not a ranking.
    """
    others = [row for row in published(suite, task, metric) if not row.model.startswith(but)]
    return max(others, key=lambda row: row.value, default=None)


def figure_columns(suite: str, task: str, metric: str | None = None) -> list[tuple[str, str]]:
    """(column, text) of what a table of runs cites for a task; nothing where nothing is known.

    HyenaDNA by its own paper, HyenaDNA as run again with a validation split, and the best other.
    """
    names = {"HyenaDNA": "HyenaDNA, paper", "HyenaDNA (rerun)": "HyenaDNA, rerun"}
    columns = [
        (names[row.model], row.text) for row in published(suite, task, metric) if row.model in names
    ]
    best = best_known(suite, task, metric)
    return columns + ([("best other", f"{best.text} {best.model}")] if best else [])


_CNNPROM: Final = "arXiv 1610.00121"
_PAPER: Final = "arXiv 2306.15794 v2"
_CADUCEUS: Final = "arXiv 2403.03234"
_JANUS: Final = "JanusDNA README"
_ON_TEST: Final = "chosen on test"
_HELD_OUT: Final = "90:10 validation split"


def _table(
    suite: str,
    metric: str | Mapping[str, str],
    models: Sequence[str],
    rows: Mapping[str, Sequence[float]],
    source: str,
    *,
    grade: str = "A",
    protocol: str = "",
    unit: float = 1.0,
) -> list[Published]:
    """The cells of a published table; `unit` is 0.01 where it was printed in percent."""
    return [
        Published(
            suite,
            task,
            model,
            metric if isinstance(metric, str) else metric[task],
            round(value * unit, 6),
            source,
            grade,
            protocol,
        )
        for task, values in rows.items()
        for model, value in zip(models, values, strict=True)
    ]


_GENOMIC_PAPER: Final = {
    "dummy_mouse_enhancers_ensembl": (69.0, 66.9, 80.1, 85.1),
    "demo_coding_vs_intergenomic_seqs": (87.6, 92.5, 88.8, 91.3),
    "demo_human_or_worm": (93.0, 96.5, 95.6, 96.6),
    "human_enhancers_cohn": (69.5, 74.0, 70.5, 74.2),
    "human_enhancers_ensembl": (68.9, 85.7, 83.5, 89.2),
    "human_ensembl_regulatory": (93.3, 88.1, 91.5, 93.8),
    "human_nontata_promoters": (84.6, 85.6, 87.7, 96.6),
    "human_ocr_ensembl": (68.0, 75.1, 73.0, 80.9),
}
_GENOMIC_CADUCEUS: Final = {
    "dummy_mouse_enhancers_ensembl": (0.715, 0.780, 0.743, 0.754, 0.793),
    "demo_coding_vs_intergenomic_seqs": (0.892, 0.904, 0.904, 0.915, 0.910),
    "demo_human_or_worm": (0.942, 0.964, 0.967, 0.973, 0.968),
    "human_enhancers_cohn": (0.702, 0.729, 0.732, 0.747, 0.745),
    "human_enhancers_ensembl": (0.744, 0.849, 0.862, 0.893, 0.900),
    "human_ensembl_regulatory": (0.872, 0.869, 0.814, 0.872, 0.873),
    "human_nontata_promoters": (0.861, 0.944, 0.933, 0.946, 0.945),
    "human_ocr_ensembl": (0.698, 0.783, 0.815, 0.828, 0.818),
}
NUCLEOTIDE_METRICS: Final = {
    task: "mcc" if task.startswith(("H3", "H4", "enhancer")) else "f1"
    for task in (
        "enhancer", "enhancer_types", "H3", "H3K4me1", "H3K4me2", "H3K4me3", "H3K9ac", "H3K14ac",
        "H3K36me3", "H3K79me3", "H4", "H4ac", "promoter_all", "promoter_non_tata",
        "promoter_tata", "splice_sites_acceptor", "splice_sites_donor", "splice_sites_all",
    )
}  # fmt: skip
"""What each Nucleotide Transformer task is measured by in the papers."""

# NT 500M (human reference), NT 2.5B (3202 genomes), NT 2.5B (850 species), HyenaDNA 1.6M,
# the paper's Transformer twin (pretrained), HyenaDNA from random weights.
_NUCLEOTIDE_PAPER: Final = {
    "enhancer": (53.5, 59.3, 58.0, 62.6, 59.3, 58.6),
    "enhancer_types": (48.5, 50.0, 47.4, 55.7, 51.9, 48.4),
    "H3": (73.7, 77.6, 81.4, 81.7, 75.8, 79.9),
    "H3K4me1": (35.8, 44.5, 55.9, 57.1, 38.7, 43.4),
    "H3K4me2": (28.1, 30.0, 32.6, 53.9, 28.8, 34.5),
    "H3K4me3": (26.3, 28.1, 42.1, 61.2, 28.3, 40.2),
    "H3K9ac": (46.2, 50.8, 57.5, 65.1, 49.2, 52.6),
    "H3K14ac": (37.7, 47.1, 55.0, 66.3, 41.6, 48.0),
    "H3K36me3": (46.7, 53.3, 63.2, 65.3, 47.8, 53.4),
    "H3K79me3": (57.7, 59.2, 64.2, 71.6, 58.9, 59.7),
    "H4": (76.2, 78.9, 82.2, 79.6, 77.7, 79.1),
    "H4ac": (34.4, 42.3, 50.1, 63.7, 36.4, 43.5),
    "promoter_all": (95.4, 96.6, 97.4, 96.5, 96.3, 96.1),
    "promoter_non_tata": (95.6, 96.9, 97.7, 96.6, 96.6, 96.5),
    "promoter_tata": (94.8, 95.8, 96.4, 96.7, 96.6, 96.1),
    "splice_sites_acceptor": (96.5, 98.5, 99.0, 96.6, 97.6, 96.6),
    "splice_sites_donor": (97.2, 98.2, 98.4, 97.3, 98.1, 96.5),
    "splice_sites_all": (97.2, 97.8, 98.3, 97.9, 98.0, 97.3),
}
# Enformer, DNABERT-2, NT-v2 500M, HyenaDNA 1.6M, Caduceus-Ph, Caduceus-PS; ten folds.
_NUCLEOTIDE_CADUCEUS: Final = {
    "H3": (0.719, 0.785, 0.784, 0.779, 0.815, 0.799),
    "H3K14ac": (0.288, 0.516, 0.551, 0.612, 0.631, 0.541),
    "H3K36me3": (0.344, 0.591, 0.625, 0.613, 0.601, 0.609),
    "H3K4me1": (0.291, 0.511, 0.550, 0.512, 0.523, 0.488),
    "H3K4me2": (0.211, 0.336, 0.319, 0.455, 0.487, 0.388),
    "H3K4me3": (0.158, 0.352, 0.410, 0.549, 0.544, 0.440),
    "H3K79me3": (0.496, 0.613, 0.626, 0.672, 0.697, 0.676),
    "H3K9ac": (0.420, 0.542, 0.562, 0.581, 0.622, 0.604),
    "H4": (0.732, 0.796, 0.799, 0.763, 0.811, 0.789),
    "H4ac": (0.273, 0.463, 0.495, 0.564, 0.621, 0.525),
    "enhancer": (0.451, 0.516, 0.548, 0.517, 0.546, 0.491),
    "enhancer_types": (0.309, 0.423, 0.424, 0.386, 0.439, 0.416),
    "promoter_all": (0.954, 0.971, 0.976, 0.960, 0.970, 0.967),
    "promoter_non_tata": (0.955, 0.972, 0.976, 0.959, 0.969, 0.968),
    "promoter_tata": (0.960, 0.955, 0.966, 0.944, 0.953, 0.957),
    "splice_sites_all": (0.848, 0.939, 0.983, 0.956, 0.940, 0.927),
    "splice_sites_acceptor": (0.914, 0.975, 0.981, 0.958, 0.937, 0.936),
    "splice_sites_donor": (0.906, 0.963, 0.985, 0.949, 0.948, 0.874),
}
# In the Caduceus table splice_sites_all is accuracy, not F1.
_CADUCEUS_METRICS: Final = NUCLEOTIDE_METRICS | {"splice_sites_all": "accuracy"}
_NUCLEOTIDE_JANUS: Final = {
    "H3": (0.835,), "H3K14ac": (0.729,), "H3K36me3": (0.702,), "H3K4me1": (0.616,),
    "H3K4me2": (0.589,), "H3K4me3": (0.688,), "H3K79me3": (0.747,), "H3K9ac": (0.673,),
    "H4": (0.816,), "H4ac": (0.705,), "enhancer": (0.564,), "enhancer_types": (0.503,),
    "promoter_all": (0.971,), "promoter_non_tata": (0.971,), "promoter_tata": (0.960,),
    "splice_sites_all": (0.967,), "splice_sites_acceptor": (0.961,), "splice_sites_donor": (0.948,),
}  # fmt: skip

PUBLISHED: Final[tuple[Published, ...]] = (
    *_table(
        "genomic_benchmarks", "accuracy", ("CNN", "DNABERT", "Transformer", "HyenaDNA"),
        _GENOMIC_PAPER, f"{_PAPER}, table 4.1", protocol=_ON_TEST, unit=0.01,
    ),
    *_table(
        "genomic_benchmarks", "accuracy",
        ("CNN", "HyenaDNA (rerun)", "Mamba", "Caduceus-Ph", "Caduceus-PS"),
        _GENOMIC_CADUCEUS, _CADUCEUS, protocol=_HELD_OUT,
    ),
    *_table(
        "nucleotide_transformer", NUCLEOTIDE_METRICS,
        ("NT 500M", "NT 2.5B (3202)", "NT 2.5B (850)", "HyenaDNA", "Transformer",
         "HyenaDNA from random weights"),
        _NUCLEOTIDE_PAPER, f"{_PAPER}, tables 4.2 and A.6", protocol=_ON_TEST, unit=0.01,
    ),
    *_table(
        "nucleotide_transformer", _CADUCEUS_METRICS,
        ("Enformer", "DNABERT-2", "NT-v2 500M", "HyenaDNA (rerun)", "Caduceus-Ph", "Caduceus-PS"),
        _NUCLEOTIDE_CADUCEUS, _CADUCEUS, protocol=_HELD_OUT,
    ),
    *_table(
        "nucleotide_transformer", _CADUCEUS_METRICS, ("JanusDNA-mlp",), _NUCLEOTIDE_JANUS, _JANUS,
        grade="B", protocol=_HELD_OUT,
    ),
    *(
        row
        for group, short, long in (
            ("TF", (95.8, 96.4), (96.1, 95.5)),
            ("DHS", (92.3, 93.0), (92.1, 91.7)),
            ("HM", (85.6, 86.3), (88.7, 89.3)),
        )
        for task, models, values in (
            ("1k", ("DeepSEA", "HyenaDNA"), short),
            ("8k", ("BigBird", "HyenaDNA"), long),
        )
        for row in _table(
            "chromatin", f"auroc_median_{group}", models, {task: values},
            f"{_PAPER}, table 4.3", unit=0.01,
        )
    ),
    *_table(
        "species", "accuracy", ("Transformer", "HyenaDNA", "HyenaDNA from random weights"),
        {"1k": (55.4, 61.1, 53.9), "32k": (88.9, 93.4, 70.7)},
        f"{_PAPER}, tables 4.5 and A.11", protocol=_ON_TEST, unit=0.01,
    ),
    *_table(
        "species", "accuracy", ("HyenaDNA", "HyenaDNA from random weights"),
        {"250k": (97.9, 65.7), "450k": (99.4, 71.4)},
        f"{_PAPER}, tables 4.5 and A.11", protocol=_ON_TEST, unit=0.01,
    ),
    *_table(
        "species", "accuracy", ("HyenaDNA",), {"1m": (99.5,)},
        f"{_PAPER}, table 4.5", protocol=_ON_TEST, unit=0.01,
    ),
    *_table(
        "promoters", "mcc", ("CNNProm",),
        {"ecoli_sigma70": (0.84,), "bacillus": (0.86,), "arabidopsis_tata": (0.91,),
         "arabidopsis_nontata": (0.86,)},
        f"{_CNNPROM}, abstract", grade="B",
    ),
    *_table(
        "promoters", "mcc", ("CNNProm",), {"mouse_tata": (0.93,)},
        "10.1155/2021/6636350, table 3", grade="C",
    ),
)  # fmt: skip
"""Every figure that is known here."""
