"""The page of scored variants: drawn from any form of output, also where nothing was scored."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hyenadna.infer.rows_file import RowsFile
from hyenadna.infer.run_record import RunRecord
from hyenadna.infer.score_file import columns
from hyenadna.report.page import page_html
from hyenadna.report.score_page import blocks

RECORD = RunRecord(
    verb="score", command="", hyenadna="0", made="", model={}, inputs={}, settings={}, figures={}
)


def written(path, rows, *, background):
    target = RowsFile.start(path, columns(background=background), {})
    target.append(rows, len(rows))
    target.finish()
    return path


def row(pos, llr, *, ref="A", alt="C", id=".", note="", ranked=True):
    numbers = [llr, llr - 0.1, llr + 0.1, llr, abs(llr)]
    ranks = [min(99.0, max(1.0, 50 + 10 * llr))] * 3 if ranked else []
    return ["1", str(pos), id, ref, alt, *map(str, [*numbers, *ranks]), note]


@pytest.mark.parametrize("end", ["tsv", "parquet"])
def test_what_the_page_shows(tmp_path, end):
    rng = np.random.default_rng(0)
    rows = [row(i + 1, float(x)) for i, x in enumerate(rng.normal(size=300))]
    rows += [row(1000 + i, -3.0, ref="AC" * 20, alt="A") for i in range(5)]
    rows += [row(2000, -99.0, id="rs<b>1"), row(2001, 77.0), row(3000, math.nan, note="SYMBOLIC")]
    html = page_html("t", blocks(written(tmp_path / f"s.{end}", rows, background=True), RECORD))
    assert html.count("<svg") == 6 and "rs&lt;b&gt;1" in html
    lowest = html.index("1:2,000 A&gt;C")
    assert "−99" in html[lowest : lowest + 300] and "1:2,001 A&gt;C" in html
    assert "symbolic allele, such as &lt;DEL&gt;" in html and "percentile" in html
    assert "302 alleles of one length (snv, mnv), correlation 1.00" in html
    assert "Where 302 alleles of one length (snv, mnv) stand among" in html
    assert "ACACACACACAC… (40)" not in html  # indels are not compared with substitutions


def test_indels_alone_and_no_background(tmp_path):
    rows = [row(i, -1.0 * i, ref="AC" * 20, alt="A", ranked=False) for i in range(1, 4)]
    html = page_html("t", blocks(written(tmp_path / "s.csv", rows, background=False), RECORD))
    assert "ACACACACACAC… (40)&gt;A" in html and "Percentiles" not in html
    assert "LLR on both strands, 3 of 3 alleles of all classes" in html


def test_nothing_scored(tmp_path):
    rows = [row(1, math.nan, note="REF_MISMATCH", ranked=False)]
    html = page_html("t", blocks(written(tmp_path / "s.tsv", rows, background=False), RECORD))
    assert "No allele has a score" in html and "another assembly" in html
    empty = page_html("t", blocks(written(tmp_path / "e.tsv", [], background=False), RECORD))
    assert "No allele has a score" in empty
