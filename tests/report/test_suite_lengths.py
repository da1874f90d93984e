"""Scores against the length of windows: what the page says of them, and the picture."""

from __future__ import annotations

import pytest

from hyenadna.errors import InputError
from hyenadna.report.suite_table import (
    LengthScore,
    context_plot,
    error_of,
    length_curves,
    length_section,
    longer_text,
    marks,
    suite_table,
)
from hyenadna.train.ledger import LedgerEntry, Score


def entry(task: str, accuracy: float, loss: float, **changes) -> LedgerEntry:
    ends = (max(accuracy - 0.02, 0), min(accuracy + 0.02, 1))
    values = {
        "suite": "species",
        "task": task,
        "model": "m",
        "data_digest": "ab" * 32,
        "rows": {"train": 9, "valid": 9, "test": 200},
        "config": {},
        "seeds": (0,),
        "metric": "accuracy",
        "scores": {"accuracy": Score(accuracy, interval=ends), "log_loss": Score(loss)},
        "baselines": {"kmer": {"accuracy": 0.9, "log_loss": 0.3}, "majority": {"accuracy": 0.2}},
        "seconds": 1.0,
        "machine": "x",
        "versions": {},
        "date": "2026-01-01",
    }
    return LedgerEntry(**(values | changes))


def test_curves_rise_by_length_and_have_intervals_where_there_are_any():
    entries = [entry("4096", 0.95, 0.1), entry("1k", 0.8, 0.6)]
    lengths = {"1k": 1024, "4096": 4096}
    curves = length_curves(entries, lengths, "accuracy")
    assert curves["m"] == [
        LengthScore(1024, 0.8, (pytest.approx(0.78), pytest.approx(0.82)), 200),
        LengthScore(4096, 0.95, (pytest.approx(0.93), pytest.approx(0.97)), 200),
    ]
    assert [p.interval for p in curves["kmer"]] == [None, None] and "majority" in curves
    assert set(length_curves(entries, lengths, "log_loss")) == {"m", "kmer"}
    wrong = error_of(curves["m"][0])
    assert wrong.value == pytest.approx(0.2) and wrong.interval == pytest.approx((0.18, 0.22))
    assert error_of(LengthScore(1, 0.25)) == LengthScore(1, 0.75)


def test_the_page_says_whether_longer_was_better():
    def text(first, last, losses=()):
        scores = [LengthScore(16, *first), LengthScore(64, *last)]
        return longer_text(scores, [LengthScore(n, v) for n, v in zip((16, 64), losses)])  # noqa: B905

    assert text((0.8,), (0.9,)) == "longer is better: 0.800 at 16 bases, 0.900 at 64"
    assert text((0.9,), (0.8,)).startswith("longer is not better: 0.900")
    overlapping = text((0.8, (0.7, 0.9)), (0.85, (0.75, 0.95)), (0.5, 0.25))
    assert overlapping.endswith("at 64 (their intervals overlap); log-loss 0.5 and 0.25")
    assert "overlap" not in text((0.5, (0.4, 0.6)), (0.9, (0.8, 1.0)))
    # the same accuracy: the log-loss says it
    assert "longer is better" in text((1.0,), (1.0,), (0.1, 0.01))
    assert "longer is not better" in text((1.0,), (1.0,), (0.01, 0.1))


def test_the_section_has_a_picture_for_several_lengths_only(tmp_path):
    entries = [entry("1k", 0.8, 0.6), entry("4096", 1.0, 0.0)]
    lines = length_section("species", entries, tmp_path / "context.png")
    assert lines[0] == "![accuracy by length](context.png)"
    assert (
        "- m: longer is better: 0.800 at 1,024 bases, 1.000 at 4,096; log-loss 0.6 and 0" in lines
    )
    assert (tmp_path / "context.png").stat().st_size > 1000
    assert length_section("species", entries[:1], tmp_path / "none.png") == []
    assert length_section("gue", entries, tmp_path / "none.png") == []
    subset = [entry("1k", 0.8, 0.6, config={"subset": 9}), entries[1]]
    assert length_section("species", subset, tmp_path / "none.png") == []
    assert not (tmp_path / "none.png").exists()


def test_no_error_at_all_is_drawn_at_half_a_window(tmp_path, monkeypatch):
    import matplotlib.axes

    drawn = []
    plot = matplotlib.axes.Axes.plot
    monkeypatch.setattr(
        matplotlib.axes.Axes,
        "plot",
        lambda self, x, y, *rest, **options: (
            drawn.append((y, options.get("markerfacecolor"))),
            plot(self, x, y, *rest, **options),
        )[1],
    )
    points = [LengthScore(16, 0.1, (0.0, 0.2), 50), LengthScore(64, 0.0, (0.0, 0.0), 50)]
    context_plot({"wrong": {"m": points}}, tmp_path / "p.png")
    line, *rest = drawn
    assert line[0] == [0.1, 0.01]
    markers = [(y, face) for y, face in rest if face is not None]
    assert markers == [(0.1, "C0"), (0.01, "white")]
    assert ([0.01, 0.2], None) in rest
    with pytest.raises(InputError, match="cannot write the picture"):
        context_plot({"wrong": {"m": points}}, tmp_path / "nowhere" / "p.png")


def test_curves_of_other_options_and_other_weights_are_not_mixed(tmp_path):
    def run(task, accuracy, weights, lr=None):
        config = {"finetune": {"lr": lr}, "model": {"weights": weights * 64}}
        return entry(task, accuracy, 0.5, config=config)

    entries = [run("1k", 0.7, "a"), run("1k", 0.8, "b"), run("4096", 0.9, "a"),
               run("4096", 0.6, "a", lr=0.1)]  # fmt: skip
    lines = length_section("species", entries, tmp_path / "context.png")
    told = [line for line in lines if line.startswith("- ")]
    assert told == ["- m: longer is better: 0.700 at 1,024 bases, 0.900 at 4,096; "
                    "log-loss 0.5 and 0.5"]  # fmt: skip


def test_a_test_part_of_another_size_does_not_stand_beside_published_figures():
    def of(test, **changes):
        changes = {"suite": "genomic_benchmarks", "rows": {"test": test}} | changes
        return entry("human_enhancers_cohn", 0.5, 0.5, **changes)

    assert marks(of(6948)) == [] and marks(of(6950)) == []
    assert marks(of(7)) == ["other rows"]
    assert marks(of(7, config={"split": {"own": "made here"}})) == ["own split"]
    assert marks(of(7, config={"subset": 50})) == ["subset"]
    tasks = {"human_enhancers_cohn": "accuracy"}
    table, notes = suite_table("genomic_benchmarks", tasks, [of(7)])
    assert "| human_enhancers_cohn (other rows) |" in table
    assert any("other rows:" in note for note in notes)
