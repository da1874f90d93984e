"""Pictures of substitutions: right letters at the right places, and a page of bounded size."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt

from hyenadna.errors import InputError
from hyenadna.infer.run_record import RunRecord
from hyenadna.report import mutate_page, mutate_plots
from hyenadna.report.mutate_map import first_maps
from hyenadna.report.page import page_html

COLUMNS = ["id", "position", "ref", "alt", "score", "score_allele"]


def write(path: Path, sequences: dict[str, str], first: int = 0, allele=True) -> None:
    """A table as the command writes it, with scores that say where they stand."""
    with path.open("w", newline="") as text:
        writer = csv.writer(text)
        writer.writerow(COLUMNS if allele else [*COLUMNS[:-1], "output"])
        for name, letters in sequences.items():
            for at, ref in enumerate(letters):
                for column, alt in enumerate("ACGT"):
                    if alt != ref:
                        value = "" if ref == "N" else -(at + column / 10)
                        writer.writerow([name, first + at, ref, alt, value, value])


def record(**settings) -> RunRecord:
    return RunRecord(
        verb="mutate", command="", hyenadna="", made="", model={}, inputs={},
        settings=settings, figures={"sequences": 5},
    )  # fmt: skip


def test_maps_are_the_table(tmp_path):
    write(tmp_path / "a.csv", {"x": "ACNT", "y": "GG"}, first=100)
    one, other = first_maps(tmp_path / "a.csv", count=9)
    assert (one.id, one.first, one.letters, one.cut) == ("x", 100, "ACNT", False)
    np.testing.assert_allclose(one.score[1], [-1, 0, -1.2, -1.3])
    assert np.isnan(one.score[2]).all() and one.known.tolist() == [True, True, False, True]
    np.testing.assert_allclose(one.importance[[0, 1, 3]], [0.2, 3.5 / 3, 9.3 / 3])
    assert one.title == "x, 101 to 104" and other.letters == "GG"
    share = one.probabilities
    np.testing.assert_allclose(share[0], np.exp([0, -0.1, -0.2, -0.3]) / 3.4659, rtol=1e-3)
    assert np.isnan(share[2]).all()
    part = first_maps(tmp_path / "a.csv", count=2, positions=3)
    assert [each.letters for each in part] == ["ACN", "GG"] and part[0].cut and not part[1].cut
    assert [m.letters for m in first_maps(tmp_path / "a.csv", count=1, positions=1)] == ["A"]


def test_sequences_of_one_name_are_two(tmp_path):
    (tmp_path / "a.csv").write_text(
        ",".join(COLUMNS) + "\n" + 2 * "x,0,A,C,1,1\nx,0,A,G,1,1\nx,0,A,T,1,1\nx,1,N,A,,\n"
    )
    assert [each.letters for each in first_maps(tmp_path / "a.csv", count=9)] == ["AN", "AN"]


def test_intervals_of_one_name_are_several(tmp_path):
    """As the exons of a gene, on one contig or two; nothing is drawn between them."""
    places = [("I", 100), ("I", 101), ("I", 100_000), ("II", 100_001)]
    lines = [f"x,{contig},{at},A,{alt},1" for contig, at in places for alt in "CGT"]
    (tmp_path / "a.csv").write_text("\n".join(["id,contig,position,ref,alt,score", *lines, ""]))
    found = first_maps(tmp_path / "a.csv", count=9)
    got = [(each.contig, each.first, each.letters) for each in found]
    assert got == [("I", 100, "AA"), ("I", 100_000, "A"), ("II", 100_001, "A")]
    assert first_maps(tmp_path / "a.csv", count=9, positions=1)[0].cut


@pytest.mark.parametrize("length", [1, 50, 120, 121, 1999])
def test_rows_wrap(tmp_path, length):
    write(tmp_path / "a.csv", {"x": "ACGT" * (length // 4) + "ACGT"[: length % 4]})
    found = first_maps(tmp_path / "a.csv", count=1)[0]
    rows = -(-length // mutate_plots.ROW)
    for draw in (
        mutate_plots.heat_map,
        mutate_plots.importance_logo,
        mutate_plots.predicted_logo,
    ):
        figure = draw(found)
        assert len(figure.axes) == rows + (draw is mutate_plots.heat_map)  # and the colour bar
        last = figure.axes[rows - 1].get_xlim()
        assert last[0] < length <= last[1]
        plt.close(figure)


def test_what_is_unknown_is_grey_and_what_is_not_there_blank(tmp_path):
    write(tmp_path / "a.csv", {"x": "AN" * 61})
    found = first_maps(tmp_path / "a.csv", count=1)[0]
    figure = mutate_plots.heat_map(
        found, mutate_plots.score_unit({"task": "values", "output": "y"})
    )
    image = figure.axes[1].images[0]
    assert image.get_extent()[:2] == [120.5, 122.5]  # of a row of 120
    colours = (image.to_rgba(image.get_array())[0, 1, :3] * 255).round().tolist()
    assert colours == [0xD9, 0xDB, 0xDF]
    assert figure.get_suptitle() == "x, 1 to 122: scores, units of y"
    plt.close(figure)


def test_positions_are_whole_numbers_and_titles_fit(tmp_path):
    write(tmp_path / "a.csv", {"a rather long name of a short sequence": "ACG"})
    for draw in (mutate_plots.heat_map, mutate_plots.importance_logo):
        figure = draw(first_maps(tmp_path / "a.csv", count=1)[0])
        figure.canvas.draw()
        ticks = figure.axes[0].get_xticks()
        assert (ticks == ticks.round()).all()
        assert figure._suptitle.get_window_extent().x1 <= figure.bbox.x1
        plt.close(figure)


def test_letters_stand_where_they_belong(tmp_path):
    write(tmp_path / "a.csv", {"x": "AACNA"})
    figure = mutate_plots.importance_logo(first_maps(tmp_path / "a.csv", count=1)[0])
    drawn = figure.axes[0].collections
    assert len(drawn) == 2  # all A, all C
    boxes = [each.get_paths()[0].get_extents() for each in drawn]
    assert boxes[0].x0 == pytest.approx(0.54) and boxes[0].x1 == pytest.approx(5.46)
    assert boxes[0].y1 == pytest.approx((4.1 + 4.2 + 4.3) / 3) and boxes[0].y0 == 0
    assert boxes[1].y1 == pytest.approx((2 + 2.2 + 2.3) / 3)
    assert figure.axes[0].get_ylim()[1] > boxes[0].y1
    plt.close(figure)


def test_a_page_has_the_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(mutate_page, "POSITIONS", 100)
    write(tmp_path / "a.csv", dict.fromkeys(("<b>", "y", "z", "w"), "ACGTN" * 22))
    html = page_html("t", mutate_page.blocks(tmp_path / "a.csv", record(strands="average")))
    assert html.count("<svg") == 9 and "first 3 of 5 sequences" in html
    assert "first 100 positions" in html and "<b>" not in html.replace("&lt;b&gt;", "")
    assert "G to T" in html and len(html) < 2_000_000
    write(tmp_path / "n.csv", {"x": "NNN"})
    html = page_html("t", mutate_page.blocks(tmp_path / "n.csv", record()))
    assert "<svg" not in html and "not A, C, G or T" in html
    write(tmp_path / "t.csv", {"x": "ACGT"}, allele=False)
    html = page_html(
        "t", mutate_page.blocks(tmp_path / "t.csv", record(task="classes", output="b"))
    )
    assert html.count("<svg") == 2 and "changes of the log odds of b" in html


def test_refuses_another_file(tmp_path):
    with pytest.raises(InputError, match=r"no\.csv: cannot be read"):
        first_maps(tmp_path / "no.csv", count=1)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="has no column 'id'"):
        first_maps(tmp_path / "other.csv", count=1)
