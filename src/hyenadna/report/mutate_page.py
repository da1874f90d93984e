"""What the page of a `hyenadna mutate` run shows besides its frame: pictures, and what stands out.

All of it is drawn from the table itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from hyenadna.infer.run_record import RunRecord
from hyenadna.report.mutate_map import LETTERS, MutationMap, first_maps
from hyenadna.report.mutate_plots import (
    heat_map,
    importance_logo,
    predicted_logo,
    score_unit,
)
from hyenadna.report.page import Block, Cell, details, heading, paragraph, picture, table

SEQUENCES: Final = 3
POSITIONS: Final = 600
"""Of each sequence, so that a page stays small."""
_STRONGEST: Final = 10


def blocks(out: Path, record: RunRecord) -> list[Block]:
    """Pictures of the first sequences of an output of `hyenadna mutate`.

    Raises InputError where it cannot be read.
    """
    shown = [heading("Substitutions")]
    maps = first_maps(out, count=SEQUENCES, positions=POSITIONS)
    total = int(record.figures.get("sequences", len(maps)))
    if total > len(maps):
        shown.append(paragraph(f"The first {len(maps)} of {total:,} sequences.", soft=True))
    for each in maps:
        shown += _sequence(each, record)
    return shown


def _sequence(found: MutationMap, record: RunRecord) -> list[Block]:
    shown = [heading(found.title)]
    if found.cut:
        shown.append(paragraph(f"Its first {len(found.letters):,} positions.", soft=True))
    if not found.known.any():
        return [*shown, paragraph("None of its positions has scores: they are not A, C, G or T.")]
    shown += [
        picture(
            heat_map(found, score_unit(record.settings)),
            f"Scores of all substitutions, {_unit(record)}; blue: {_less(record)}, red: more, dot: "
            "the base that stands there, grey: nothing is known.",
        ),
        picture(
            importance_logo(found, score_unit(record.settings)),
            "Importance: each base of the sequence as high as minus the mean score of its three "
            "substitutions. High letters are bases that the model would miss.",
        ),
    ]
    if found.allele is not None:
        shown.append(
            picture(
                predicted_logo(found),
                "What the model expects: the probabilities of A, C, G and T given the bases "
                f"{_before(record)}, each column as high as 2 bits less its entropy. These are the "
                "model's letters, not those of the sequence.",
            )
        )
    return [*shown, details("The strongest substitutions", [_strongest(found)])]


def _unit(record: RunRecord) -> str:
    kind, output = record.settings.get("task"), record.settings.get("output", "the output")
    if kind is None:
        return "in nats"
    return f"as changes of {'' if kind == 'values' else 'the log odds of '}{output}"


def _less(record: RunRecord) -> str:
    likelihood = record.settings.get("task") is None
    return "less likely than the reference" if likelihood else "less of it"


def _before(record: RunRecord) -> str:
    return {
        "forward": "before",
        "reverse": "after, on the other strand",
    }.get(
        str(record.settings.get("strands")), "before and, on the other strand, after (their mean)"
    )


def _strongest(found: MutationMap) -> Block:
    """The substitutions with the largest scores, either way."""
    order = np.argsort(-np.abs(np.nan_to_num(found.score)), axis=None)[:_STRONGEST]
    rows: list[list[Cell]] = []
    for at, column in zip(*np.unravel_index(order, found.score.shape), strict=True):
        rows.append(
            [
                f"{found.first + int(at) + 1:,}",
                f"{found.letters[at]} to {LETTERS[column]}",
                float(found.score[at, column]),
            ]
        )
    return table(["position (from 1)", "substitution", "score"], rows)
