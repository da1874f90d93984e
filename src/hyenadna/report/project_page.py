"""The page of `hyenadna project`: embeddings in two dimensions, and how well they tell classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyenadna.infer.projection import NAMES, Projection
from hyenadna.report.classifier_plots import confusion_plot
from hyenadna.report.page import (
    Block,
    Cell,
    caveat,
    heading,
    paragraph,
    picture,
    pictures,
    records,
    table,
    write_page,
)
from hyenadna.report.projection_plots import Colouring, scatter_figure
from hyenadna.train.probe import Folds, ProbeScore, scores_table


@dataclass(frozen=True, kw_only=True)
class ProjectPage:
    """Everything that the page shows."""

    title: str
    summary: str
    projections: Sequence[Projection]
    colours: Colouring | None
    names: Sequence[str] | None
    classified: str | None
    """The column whose classes were told."""
    folds: Folds | None
    scores: Sequence[ProbeScore]
    """The embeddings last."""
    settings: Mapping[str, Cell]
    caveats: Sequence[str]
    footer: str


def write_project_page(page: ProjectPage, path: Path) -> None:
    """Write the page, whole or not at all. Raises InputError where it cannot be written."""
    by = f", coloured by {page.colours.column}" if page.colours else ""
    shown = [
        picture(
            scatter_figure([(NAMES[p.method], p.points, p.axes)], page.colours, names=page.names),
            f"{NAMES[p.method]}{by}: {p.note}.",
        )
        for p in page.projections
    ]
    blocks = [
        paragraph(page.summary),
        *map(caveat, page.caveats),
        heading("In two dimensions"),
        pictures(shown),
        *_classes(page),
        heading("Settings"),
        table(["setting", "value"], [[key, value] for key, value in page.settings.items()]),
    ]
    write_page(path, page.title, blocks, footer=page.footer)


def _classes(page: ProjectPage) -> list[Block]:
    if page.folds is None or page.classified is None:
        return []
    counts: list[list[Cell]] = [
        [name, int((page.folds.classes == number).sum())]
        for number, name in enumerate(page.folds.names)
    ]
    return [
        heading(f"How well the embeddings tell {page.classified}"),
        paragraph(
            "A boosted classifier is trained on all folds but one and asked about that one, in "
            "turn; every kind of features sees the same folds. Weighted F1 is the mean of the F1 "
            "of the classes, weighted by their rows: where one class is most of them, it says "
            "little, and macro F1, in which all classes weigh the same, says more."
        ),
        *(paragraph(note[0].upper() + note[1:] + ".", soft=True) for note in page.folds.notes[-1:]),
        records([dict(row) for row in scores_table(page.scores)]),
        pictures(
            picture(confusion_plot(each.confusion, page.folds.names), f"Confusion: {each.name}.")
            for each in page.scores[-2:]
        ),
        table([page.classified, "rows"], counts),
    ]
