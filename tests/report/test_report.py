"""Pages are whole, closed to the outside, and say what they must."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from hyenadna.errors import InputError
from hyenadna.report.classifier_plots import confusion_plot, learning_plot, small_axes
from hyenadna.report.finetune_page import FinetunePage, Predictor, write_finetune_page
from hyenadna.report.page import (
    NO_VALUE,
    cell_text,
    heading,
    number_text,
    page_html,
    paragraph,
    picture,
    records,
    table,
    write_page,
)
from hyenadna.report.regression_plots import predicted_plot
from hyenadna.train.bootstrap import Difference, Interval, intervals, paired_differences

VOID = {"meta", "br", "img", "hr", "link", "input"}


class Page(HTMLParser):
    """Text, tags and ids of a page; fails where a tag is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        values = dict(attributes)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [v for k, v in attributes if k in ("href", "src", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text.append(data)

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


def example(kind: str, names: tuple[str, ...], rows: int = 60, **changes) -> FinetunePage:
    random = np.random.default_rng(0)
    width = len(names)
    if kind in ("classes", "tokens"):
        targets = random.integers(0, width, rows)
        outputs = random.random((rows, width)) + np.eye(width)[targets]
        other = random.random((rows, width)) + 0.2 * np.eye(width)[targets]
        outputs, other = (each / each.sum(1, keepdims=True) for each in (outputs, other))
    else:
        targets = (random.random((rows, width)) < 0.4).astype(float)
        targets[0, 0] = np.nan
        outputs = 0.5 * random.random((rows, width)) + 0.4 * np.nan_to_num(targets)
        other = random.random((rows, width))
    gaps = paired_differences(kind, targets, outputs, other, resamples=50)
    history = [
        {"step": 10 * step, "train_loss": 1 / step, "valid_loss": 1.1 / step, "value": step / 5,
         "best": step < 4} for step in range(1, 5)
    ]  # fmt: skip
    history.append({"step": 50, "train_loss": 0.2, "valid_loss": None, "value": None})
    page = FinetunePage(
        title="a task",
        kind=kind,
        names=names,
        data="table.csv",
        backbone="tiny-1k",
        splits={"train": {"sequences": 500}, "test": {"sequences": rows, "odd": 1}},
        predictors=(
            Predictor("the model", intervals(kind, targets, outputs, resamples=50)),
            Predictor("k-mers", intervals(kind, targets, other, resamples=50), differences=gaps),
        ),
        targets=targets,
        outputs=outputs,
        history={"seed 0": history},
        settings={"lr": 6e-4, "strands": "average"},
    )
    return replace(page, **changes)


KINDS = {
    "classes": ("donor", "acceptor", "neither"),
    "tokens": ("exon", "intron"),
    "labels": ("TF 1", "DHS <2>", "HM & 3"),
    "values": ("HepG2", "K562"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_page_is_whole_and_needs_nothing_else(kind, tmp_path):
    path = tmp_path / "page.html"
    write_finetune_page(example(kind, KINDS[kind]), path)
    html = path.read_text()
    page = Page(html)
    assert list(tmp_path.iterdir()) == [path]
    assert len(page.ids) == len(set(page.ids)), "ids of two pictures clash"
    inside = [link for link in page.links if not link.startswith("data:image/png;base64,")]
    assert all(link.startswith("#") and link[1:] in page.ids for link in inside)
    assert all(found in page.ids for found in re.findall(r"url\(#([^)]+)\)", html))
    assert "script" not in page.tags and "@import" not in html
    assert "default-src 'none'" in html and "prefers-color-scheme: dark" in html
    assert 'content="width=device-width' in html
    assert page.tags.count("svg") >= 4 and html.count('role="img"') == page.tags.count("svg")
    assert "#000000" not in html and "#222222" not in html  # unseen on dark paper
    for name in KINDS[kind]:
        assert name in page.words
    assert "the model" in page.words and "k-mers" in page.words and "500" in page.words


def test_the_same_run_gives_the_same_pictures(tmp_path):
    pages = []
    for name in ("one.html", "two.html"):
        write_finetune_page(example("classes", ("a", "b")), tmp_path / name)
        pages.append(re.sub(r"p\d+-", "", (tmp_path / name).read_text()))
    assert pages[0] == pages[1]


def words_of(page: FinetunePage, tmp_path) -> str:
    write_finetune_page(page, tmp_path / "page.html")
    return Page((tmp_path / "page.html").read_text()).words


def test_verdict_follows_the_difference(tmp_path):
    page = example("classes", ("a", "b"))
    assert "The model is clearly above it" in words_of(page, tmp_path)
    model, baseline = page.predictors
    for gap, says in (
        (Difference(-0.2, -0.3, -0.1), "clearly BELOW it: −0.200 (−0.300 to −0.100)"),
        (Difference(0.1, -0.1, 0.3), "within the noise"),
    ):
        changed = replace(baseline, differences={"mcc": gap})
        assert says in words_of(replace(page, predictors=(model, changed)), tmp_path)
    swapped = replace(baseline, differences={}), replace(model, differences={})
    assert "The model is NOT above it" in words_of(replace(page, predictors=swapped), tmp_path)


def test_caveats_are_said(tmp_path):
    page = example("classes", ("a", "b"))
    plain = words_of(page, tmp_path)
    assert "One seed only" in plain and "Leaks between the splits were not looked for" in plain
    assert "the one it is measured on" not in plain
    on_test = replace(page, chosen_on="test", leaks=["3 sequences of test stand in train"])
    words = words_of(on_test, tmp_path)
    assert "the figures are too good" in words and "3 sequences of test stand in train" in words
    looked = replace(page, overlaps=[{"one": "train", "other": "test", "identical": 0}])
    assert "No sequence was found in two splits" in words_of(looked, tmp_path)


def test_spread_over_seeds_is_shown(tmp_path):
    page = example("classes", ("a", "b"))
    model = replace(page.predictors[0], spread={"mcc": 0.0123}, seeds=3)
    words = words_of(replace(page, predictors=(model,)), tmp_path)
    assert f"{model.scores['mcc'].value:.3f} ± 0.012 (" in words and "One seed" not in words


def test_one_answer_only_still_makes_a_page(tmp_path):
    page = example("classes", ("a", "b"))
    targets = np.zeros_like(page.targets)
    scores = intervals("classes", targets, page.outputs, resamples=20)
    alone = replace(page, targets=targets, predictors=(Predictor("the model", scores),))
    assert f"auroc ↑ {NO_VALUE}" in words_of(replace(alone, history={}), tmp_path)


def test_many_labels_are_summarised(tmp_path):
    names = tuple(f"label {index}" for index in range(50))
    page = example("labels", names, label_groups=["TF"] * 30 + ["DHS"] * 20)
    words = words_of(page, tmp_path)
    assert "TF: median" in words and "DHS: median" in words and "all 50" in words
    assert "ROC" not in words.replace("AUROC", "")


def test_dollars_and_underscores_in_names_are_no_formulas_and_not_left_out(tmp_path):
    names = ("gain_$5_$6", "_$\\frac$", "$^$")
    for kind in ("classes", "labels"):
        path = tmp_path / f"{kind}.html"
        write_finetune_page(example(kind, names), path)
        words = Page(path.read_text()).words
        assert all(name in words for name in names)
        assert "\u200b_$\\frac$: AUROC" in words  # in the legend of the curves


def test_a_value_whose_interval_is_not_known_is_shown_without(tmp_path):
    page = example("classes", ("a", "b"))
    scores = dict.fromkeys(page.predictors[0].scores, Interval(0.25))
    lone = replace(page, predictors=(replace(page.predictors[0], scores=scores),))
    write_finetune_page(lone, tmp_path / "page.html")
    assert "0.250" in Page((tmp_path / "page.html").read_text()).words
    assert number_text(math.nan) == NO_VALUE


def test_the_metric_that_chose_is_named_and_many_classes_are_one_picture(tmp_path):
    page = example("classes", tuple(f"class {i}" for i in range(150)), rows=450)
    chosen = [{"step": 1, "value": 0.5, "metric": "accuracy", "best": True}]
    write_finetune_page(replace(page, history={"seed 0": chosen}), tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    assert "Valid accuracy, by which" in html
    assert len(html) < 1_500_000


def test_table_and_cells():
    html = table(["name", "n"], [["a & b", 1234], ["c", None]], strong=[1])
    assert "a &amp; b" in html and '<td class="number">1,234</td>' in html
    assert f'<tr class="strong"><td>c</td><td class="number">{NO_VALUE}</td>' in html
    assert [cell_text(v) for v in (0.5, 6e-4, 12, -0.25, 1234.5, True, float("nan"), 0.0)] == [
        "0.5000", "6.00e-04", "12", "−0.2500", "1,234.5", "yes", NO_VALUE, "0.0000",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="1 cells in a row of 2"):
        table(["a", "b"], [["x"]])
    assert records([{"a_b": 1}, {"c": 2}]).count(NO_VALUE) == 2


def test_text_is_escaped():
    figure, _ = small_axes("<t>", "x", "y")
    evil = '<script>alert("1")</script>'
    blocks = [heading(evil), paragraph(evil), table([evil], [[evil]]), picture(figure, evil)]
    page = Page(page_html(evil, blocks, footer=evil))
    assert "script" not in page.tags and page.words.count("alert(") == 8


def test_page_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match=r"nowhere/page\.html: cannot write the page \(No such"):
        write_page(tmp_path / "nowhere" / "page.html", "t", [])
    folder = tmp_path / "page.html"
    folder.mkdir()
    with pytest.raises(InputError, match="cannot write the page"):
        write_page(folder, "t", [])
    assert list(tmp_path.iterdir()) == [folder]


def test_confusion_plot_has_rows_true():
    figure = confusion_plot(np.array([[3, 1], [0, 2]]), ["a", "b"])
    texts = {(round(t.get_position()[0]), round(t.get_position()[1])): t.get_text()
             for t in figure.axes[0].texts}  # fmt: skip
    assert texts[1, 0] == "1\n25%" and texts[0, 1] == "0\n0%"  # (column, row)
    picture(figure, "closes it")


def test_learning_plot_rings_the_model_that_was_kept():
    entries = [{"step": s, "value": v, "best": b} for s, v, b in
               ((1, 0.1, True), (2, 0.3, True), (3, 0.2, False))]  # fmt: skip
    figure = learning_plot({"seed 0": entries}, {"value": "valid"}, title="t", y="y")
    curve, ring = figure.axes[0].lines
    assert curve.get_xydata().tolist() == [[1, 0.1], [2, 0.3], [3, 0.2]]
    assert ring.get_xydata().tolist() == [[2, 0.3]]
    picture(figure, "closes it")


def test_predicted_plot_passes_over_missing_targets():
    true = np.array([1.0, np.nan, 2.0])
    figure = predicted_plot(true, np.array([1.5, 9.0, 2.5]), "K562")
    assert figure.axes[0].lines[1].get_xydata().tolist() == [[1, 1.5], [2, 2.5]]
    picture(figure, "closes it")
    empty = predicted_plot(np.array([np.nan]), np.array([1.0]), "K562")
    assert "no known target" in picture(empty, "nothing")
