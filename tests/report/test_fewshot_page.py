"""The page of a few-shot run: what it says, above all where the figures are embarrassing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hyenadna.report.fewshot_page import (
    CellFigures,
    ComparedFigures,
    FewshotPage,
    difference,
    score,
    verdict,
    write_fewshot_page,
)
from hyenadna.train.bootstrap import Difference, Interval
from hyenadna.train.bootstrap_draws import draws_difference, draws_interval

BARE = CellFigures(
    title="untuned, 0 shots", tuned=0, shots=0, accuracy=Interval(0.5, 0.4, 0.6),
    raw=Interval(0.5, 0.4, 0.6), strict=Interval(0, 0, 0), mcc=0.0, auroc=0.5, valid=0.5,
)  # fmt: skip


def cell(gap: Difference, *, value: float = 0.7, valid: float = 0.7, shots: int = 2) -> CellFigures:
    near = Interval(value, value - 0.05, value + 0.05)
    return dataclasses.replace(
        BARE, title=f"untuned, {shots} shots", shots=shots, accuracy=near, valid=valid,
        shuffled=near, reordered=near, none=near, less_shuffled=gap, less_none=gap, changed=0.1,
    )  # fmt: skip


MORE = Difference(0.1, 0.02, 0.2, 1.0)
SAME = Difference(0.01, -0.03, 0.05, 0.6)
LESS = Difference(-0.1, -0.2, -0.02, 0.0)


@pytest.mark.parametrize(
    "gap, says",
    [
        (MORE, "Learned in context: true labels beat shuffled ones in accuracy by +0.100"),
        (SAME, "NOT shown to be learned in context: true labels do not beat"),
        (LESS, "NOT learned in context: true labels are worse than shuffled ones"),
    ],
)
def test_the_verdict_is_of_true_against_shuffled_labels(gap, says):
    found = verdict([BARE, cell(gap)], 1, 0.5, rows=30, draws=2)
    assert found[1].startswith(says) and "at untuned, 2 shots" in found[1]


def test_the_verdict_is_of_the_cell_chosen_on_valid_not_of_the_luckiest():
    cells = [cell(SAME, valid=0.8, shots=2), cell(MORE, valid=0.6, shots=4)]
    found = verdict(cells, 0, 0.5, rows=100, draws=5)
    assert found[1].startswith("NOT shown") and "2 shots; in 1 of 2 cells" in found[1]


def test_the_verdict_stands_beside_guessing():
    for value, says in ((0.7, "clearly above it"), (0.5, "NOT above it"), (0.3, "clearly BELOW")):
        assert says in verdict([cell(SAME, value=value)], 0, 0.5, rows=30, draws=2)[0]
    assert "nothing can have been learned" in verdict([BARE], 0, 0.5, rows=100, draws=5)[1]


@pytest.mark.parametrize(
    "rows, draws, why",
    [
        (1, 5, "1 row measured, fewer than 30"),
        (29, 5, "29 rows measured, fewer than 30"),
        (500, 1, "one draw: cannot tell draws apart from luck; give --draws 3 or more"),
    ],
)
@pytest.mark.parametrize("gap", [MORE, SAME, LESS])
def test_too_little_is_no_verdict(rows, draws, why, gap):
    for value in (0.1, 0.9):
        found = verdict([cell(gap, value=value)], 0, 0.5, rows=rows, draws=draws)
        assert found[0].endswith(f"cannot tell ({why}).")
        assert found[1].startswith("Cannot tell whether it was learned in context")
        assert why in found[1] and not any("clearly" in text for text in found)


def test_one_row_is_no_verdict():
    gap = draws_difference([[1.0]], [[0.0]])
    found = verdict([cell(gap)], 0, 0.5, rows=1, draws=1)
    assert found[1].startswith("Cannot tell")


def test_without_demonstrations_there_is_no_luck_of_a_draw():
    sure = dataclasses.replace(BARE, accuracy=Interval(0.8, 0.7, 0.9))
    found = verdict([sure, cell(MORE)], 0, 0.5, rows=100, draws=1)
    assert found[0].endswith("clearly above it.") and found[1].startswith("Cannot tell")


def test_an_interval_without_width_is_named():
    gap = draws_difference(np.ones((3, 40)), np.zeros((3, 40)))
    perfect = dataclasses.replace(cell(gap), accuracy=draws_interval(np.ones((3, 40))))
    for text in verdict([perfect], 0, 0.5, rows=40, draws=3):
        assert text.endswith("All rows agree, so the interval has no width and says too little.")
    assert "agree" not in "".join(verdict([cell(MORE)], 0, 0.5, rows=40, draws=3))


def test_the_page_has_all_of_it(tmp_path):
    page = FewshotPage(
        title="motif <b>", model="tiny", data="two.csv", words={"x": "A", "y": "N"},
        splits={"train": {"sequences": 9}}, part="test", rows=240, draws=3, calibrated=True,
        cells=[BARE, cell(MORE), dataclasses.replace(cell(SAME), title="tuned on 4, 2 shots",
                                                     tuned=4)],
        best=1, chance=0.5, levels={"published": 0.9}, caveats=["few rows"],
        compared=[ComparedFigures(name="LoRA", accuracy=Interval(0.8, 0.7, 0.9), trained=12,
                                  seconds=3.0, note="epoch 1")],
        settings={"seed": 0}, leaks=["train and test: 1 row"],
        overlaps=[{"splits": "train and test", "rows": 1}], footer="made",
    )  # fmt: skip
    write_fewshot_page(page, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    parts = [
        "motif &lt;b&gt;", "x is A, y is N", "Learned in context", "few rows", "LoRA: 0.800",
        "published: 0.900", "chance: 0.500", "tuned on 4", "nothing learned in context",
        "train and test: 1 row", "0.700 (0.650", "Accuracy against tuning samples",
    ]  # fmt: skip
    for part in parts:
        assert part in text, part
    missing = "The full fine-tuned model was not measured: a run with --compare full"
    assert missing in text
    write_fewshot_page(dataclasses.replace(page, full=True), tmp_path / "page.html")
    assert missing not in (tmp_path / "page.html").read_text()


def test_a_dash_for_what_there_is_not():
    assert score(None) == difference(None) == "–"
    assert difference(LESS).startswith("−0.100 (−0.200")
