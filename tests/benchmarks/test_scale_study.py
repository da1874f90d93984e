"""The tables of the study are those of the plan as it is now."""

from __future__ import annotations

from benchmarks.scale_study import PAGE, put, tables


def test_the_page_is_current():
    page = text = PAGE.read_text()
    for name, lines in tables():
        text = put(text, name, lines)
    assert text == page, "python -m benchmarks.scale_study"
