"""A held-out stretch: annotated genes as arrows, and below what each predictor says of the frames.

A reading frame has one colour in the arrows and in the probabilities: where a predictor is right,
the hill under an arrow has the colour of the arrow. Above the line the strand that is read, below
it the other one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from benchmarks.annotation.cells import Measured
from benchmarks.annotation.tasks import BACTERIA
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Polygon

from hyenadna.data.annotation import Feature, read_annotation
from hyenadna.data.annotation_classes import FRAME_NAMES
from hyenadna.data.labelled import LabelledData
from hyenadna.genome.intervals import Interval

COLOURS = ("#2a6fdb", "#e07b1f", "#2f9e5f")
LONGEST = 12_000
HEAD = 120
"""Bases of the head of an arrow."""


def frames_picture(
    data: LabelledData, measured: Sequence[Measured], folder: Path, path: Path
) -> str:
    """Draw the first held-out stretch; returns what it is, for people.

    folder: of the shared data, for the annotation. path: of the picture.
    """
    test = data.part("test")
    rows, genome, span = _stretch(test)
    annotation = folder / "bacteria_4" / f"{genome}.gff.gz"
    genes = [
        feature
        for feature in read_annotation(annotation, {"CDS"}, inherit=("Name",)).features
        if feature.interval.start < span.stop and span.start < feature.interval.stop
    ]
    ends = np.cumsum(test.lengths)
    first, last = int(ends[rows[0]] - test.lengths[rows[0]]), int(ends[rows[-1]])
    heights = [1.1, *([1.0] * len(measured))]
    figure, axes = plt.subplots(
        len(heights), 1, figsize=(11, 1.3 * sum(heights) + 0.8), sharex=True, layout="constrained",
        height_ratios=heights,
    )  # fmt: skip
    _arrows(axes[0], genes, span)
    for axis, each in zip(axes[1:], measured, strict=True):
        _hills(axis, each.outputs[first:last], span)
        mcc = each.record["metrics"]["mcc"]["value"]
        axis.set_title(f"{each.cell.title} (MCC {mcc:.3f})", loc="left", fontsize=9)
    where = f"{genome}, bases {span.start + 1:,} to {span.stop:,}"
    axes[-1].set_xlabel(where)
    axes[-1].xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    figure.supylabel("probability of each reading frame", fontsize=9)
    beside = path.with_name(f".{path.name}.part.png")
    figure.savefig(beside, dpi=130)
    beside.replace(path)
    plt.close(figure)
    return where


def _stretch(test: LabelledData) -> tuple[list[int], str, Interval]:
    """Rows of windows side by side, the genome, and the bases that they cover."""
    assert test.groups is not None
    group = next(g for g in test.groups if g.startswith(BACTERIA[0]))
    rows: list[int] = []
    spans: list[Interval] = []
    for i, (id, own) in enumerate(zip(test.ids, test.groups, strict=True)):
        span = Interval.parse(id.partition(" ")[2])
        if own == group and (not spans or span.start == spans[-1].stop):
            rows.append(i)
            spans.append(span)
        if spans and spans[-1].stop - spans[0].start >= LONGEST:
            break
    whole = Interval(spans[0].contig, spans[0].start, spans[-1].stop)
    return rows, group.partition(" ")[0], whole


def reading_frame(feature: Feature) -> int:
    """0, 1 or 2: position modulo 3 of the first base that is read of each codon."""
    at, phase = feature.interval, feature.phase or 0
    return (at.start + phase) % 3 if feature.strand == "+" else (at.stop - 1 - phase) % 3


def frame_probabilities(
    outputs: npt.NDArray[np.float32], start: int, strand: str
) -> npt.NDArray[np.float32]:
    """Probability of each reading frame on a strand, (L, 3), from those of the classes (L, 7).

    start: position of the first base.
    """
    own = [FRAME_NAMES.index(f"{strand}{i}") for i in (1, 2, 3)]
    place = start + np.arange(len(outputs))
    found = np.empty((len(outputs), 3), dtype=np.float32)
    for frame in range(3):
        step = (place - frame) % 3 if strand == "+" else (frame - place) % 3
        found[:, frame] = outputs[:, own][np.arange(len(outputs)), step]
    return found


def _arrows(axis: Axes, genes: Sequence[Feature], span: Interval) -> None:
    for gene in genes:
        left, right = max(gene.interval.start, span.start), min(gene.interval.stop, span.stop)
        level, forward = (0.5, True) if gene.strand == "+" else (-0.5, False)
        head = min(HEAD, right - left)
        tip, neck, tail = (right, right - head, left) if forward else (left, left + head, right)
        shape = [
            (tail, level - 0.22), (neck, level - 0.22), (neck, level - 0.34), (tip, level),
            (neck, level + 0.34), (neck, level + 0.22), (tail, level + 0.22),
        ]  # fmt: skip
        axis.add_patch(Polygon(shape, color=COLOURS[reading_frame(gene)], linewidth=0))
        name = gene.first("Name", "gene", "locus_tag")
        if name and right - left > 400:
            axis.text((left + right) / 2, level, name.rsplit("-", 1)[0], ha="center", va="center",
                      fontsize=6, color="white", clip_on=True)  # fmt: skip
    axis.set_ylim(-1, 1)
    axis.set_xlim(span.start, span.stop)
    axis.set_yticks([0.5, -0.5], ["+ genes", "- genes"])
    axis.axhline(0, color="#888888", linewidth=0.6)
    axis.spines[["top", "right", "bottom"]].set_visible(False)


def _hills(axis: Axes, outputs: npt.NDArray[np.float32], span: Interval) -> None:
    x = np.arange(span.start, span.stop)
    for strand, sign in (("+", 1), ("-", -1)):
        each = frame_probabilities(outputs, span.start, strand)
        for frame in range(3):
            axis.fill_between(
                x, 0, sign * each[:, frame], color=COLOURS[frame], alpha=0.75, linewidth=0
            )
    axis.set_ylim(-1.02, 1.02)
    axis.set_yticks([-1, 0, 1], ["1", "0", "1"])
    axis.axhline(0, color="#888888", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
