"""A plan beside a real process."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from benchmarks.plan import CELLS, Cell, page, predicted
from benchmarks.processes import run_worker


def test_the_page_tells_errors_and_failures():
    cell = CELLS[0]
    row = {"cell": asdict(cell), "peak": predicted(cell) / 1.05, "seconds": 1.0}
    text = page([row | {"predicted_seconds": 0.8}, {"cell": asdict(cell), "error": "killed"}], [])
    assert "| +5% | 1.00 s | 0.80 s | -20% |" in text and "| killed |" in text
    assert "Largest error of memory: +5%" in text and "Largest error of time: -20%" in text


@pytest.mark.slow
@pytest.mark.parametrize("cell", [Cell("engine", 1024, 16), Cell("plain", 1024, 16, plain=True)])
def test_memory_and_time_of_a_real_process(cell):
    found = run_worker("benchmarks.plan", asdict(cell), 1, cell.guessed())
    assert predicted(cell) == pytest.approx(found["peak"], rel=0.12)
    assert found["predicted_seconds"] == pytest.approx(found["seconds"], rel=0.4)
