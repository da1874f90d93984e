"""Length warm-up of fine-tuning: stages, crops, what counts when, and interruptions."""

from __future__ import annotations

import copy
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hyenadna.alphabet import IGNORED, SEP, A, C, G, T
from hyenadna.cli.finetune_progress import FinetuneLines
from hyenadna.config import ModelConfig
from hyenadna.data.genome_windows import ContigSource, GenomeWindows, WindowedData
from hyenadna.data.labelled_data import LabelledData, Task
from hyenadna.errors import InputError
from hyenadna.genome.fasta import Genome
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.heads import TaskModel
from hyenadna.train.finetune import finetune
from hyenadna.train.finetune_examples import (
    Crop,
    SequenceExamples,
    crop_rows,
    run_stages,
    step_shares,
)
from hyenadna.train.finetune_folder import FinetuneFolder
from hyenadna.train.finetune_loop import Finetuner
from hyenadna.train.finetune_reports import FinetuneEvaluation, FinetuneResult, FinetuneStep
from hyenadna.training_config import FinetuneConfig, Stage, stage_at

CPU = torch.device("cpu")
SHAPE = ModelConfig(d_model=16, n_layer=2, max_seq_len=66)
STAGED = FinetuneConfig(
    epochs=4, batch_size=16, precision="float32", reverse_complement=True, stages="8:1,20:1"
)
TASKS = {
    "classes": Task("classes", ("rich", "poor")),
    "labels": Task("labels", ("rich", "long")),
    "values": Task("values", ("share",)),
    "tokens": Task("tokens", ("strong", "weak")),
}


def toy(kind: str = "classes", rows: int = 60, shortest: int = 16) -> LabelledData:
    """Sequences that are rich or poor in A and T, of up to 48 bases."""
    rng = np.random.default_rng(1)
    rich = rng.permutation(np.arange(rows) % 2).astype(bool)
    lengths = np.concatenate([[48], rng.integers(shortest, 49, rows - 1)])
    chances = {True: [0.4, 0.4, 0.1, 0.1], False: [0.1, 0.1, 0.4, 0.4]}
    sequences = tuple(
        rng.choice([A, T, C, G], p=chances[bool(r)], size=n).astype(np.uint8)
        for r, n in zip(rich, lengths, strict=True)
    )
    weak = [np.isin(ids, (A, T)) for ids in sequences]
    targets = {
        "classes": np.where(rich, 0, 1),
        "labels": np.stack([rich, lengths > 30], 1).astype(np.float32),
        "values": np.array([[w.mean()] for w in weak], dtype=np.float32),
        "tokens": tuple(w.astype(np.int64) for w in weak),
    }[kind]
    splits = np.array(["train", *rng.permutation(np.resize(["train", "train", "valid"], rows - 1))])
    return LabelledData(
        "toy", sequences, targets, TASKS[kind], splits, tuple(map(str, range(rows)))
    )


def model_for(data: LabelledData, **options) -> TaskModel:
    torch.manual_seed(0)
    return TaskModel(HyenaDNA(SHAPE), data.task, **options)


# -- the stages of a run ---------------------------------------------------------------------------


def test_stages_are_epochs_and_the_last_is_the_full_length():
    config = FinetuneConfig(epochs=9, stages="1024:2, 4096:3")
    assert config.length_stages(16384) == [Stage(1024, 2), Stage(4096, 3), Stage(16384, 4)]
    assert config.length_stages(5000, 7) == [Stage(1024, 14), Stage(4096, 21), Stage(5000, 28)]
    assert FinetuneConfig(epochs=9).length_stages(16384) == [Stage(16384, 9)]
    double = FinetuneConfig(epochs=9, stages="double", warmup_length=1000)
    assert double.length_stages(4000) == [Stage(1000, 1), Stage(2000, 1), Stage(4000, 7)]
    assert double.length_stages(1000) == [Stage(1000, 9)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": "32"}, "cannot read '32'; write `double`, `none` or length:epochs pairs"),
        ({"stages": "0:3"}, "0:3 has a number below 1"),
        ({"stages": "32:1,32:1"}, "length 32 comes after 32; lengths must rise"),
        ({"stages": "64:1,32:1"}, "length 32 comes after 64; lengths must rise"),
        ({"stages": "128:1"}, "length 128 is not below 128, the longest training sequence"),
        ({"stages": "32:9,64:1", "epochs": 10}, "takes 10 of --epochs 10 and leaves none for"),
        (
            {"stages": "double", "warmup_length": 1, "epochs": 7},
            "takes 7 of --epochs 7 and leaves none for",
        ),
        ({"stages": "32:1", "mode": "frozen"}, "--mode frozen computes the features of whole seq"),
        ({"warmup_length": 0}, "--warmup-length is 0; it must be at least 1"),
    ],
)
def test_stages_that_cannot_be(options, message):
    with pytest.raises(InputError, match=message) as caught:
        FinetuneConfig(**options).length_stages(128)
    assert "\n" not in str(caught.value)


@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    per_epoch=st.integers(1, 5),
    full=st.integers(41, 200),
)
def test_shares_follow_stages_and_lengths_and_add_up(counts, per_epoch, full):
    early = ",".join(f"{10 * (i + 1)}:{count}" for i, count in enumerate(counts))
    config = FinetuneConfig(epochs=sum(counts) + 2, stages=early)
    stages = config.length_stages(full, per_epoch)
    lengths = np.array([full, 5, 41])
    shares = step_shares(stages, lengths)
    assert len(shares) == config.epochs * per_epoch and shares.sum() == pytest.approx(1)
    for step in (0, len(shares) // 2, len(shares) - 1):
        tokens = np.minimum(lengths, stage_at(stages, step).length).sum()
        assert shares[step] / shares[-1] == pytest.approx(tokens / lengths.sum())
    assert stage_at(stages, len(shares) + 3) == stages[-1]


def stages_of(data: LabelledData, config: FinetuneConfig = STAGED) -> list[Stage]:
    return run_stages(data.part("train"), data.part("valid"), config)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_pairs_are_never_cut(split):
    data = toy()
    row = int(np.flatnonzero(data.splits == split)[1])
    pair = data.sequences[row].copy()
    pair[5] = SEP
    sequences = (*data.sequences[:row], pair, *data.sequences[row + 1 :])
    paired = replace(data, sequences=sequences)
    with pytest.raises(InputError, match=rf"stages 8:1,20:1 .* '{row}' is a pair, .* never cut"):
        stages_of(paired)
    assert len(stages_of(paired, replace(STAGED, stages="none"))) == 1


def test_stages_without_a_known_base_in_the_middle_of_valid_are_refused():
    data = toy("tokens")
    targets = [row.copy() for row in data.targets]
    for row, split in zip(targets, data.splits, strict=True):
        if split == "valid":
            row[4:-4] = IGNORED
    edges = replace(data, targets=tuple(targets))
    with pytest.raises(InputError, match=r"no base in the middle 8 of the valid .* take longer"):
        stages_of(edges)
    assert len(stages_of(edges, replace(STAGED, stages="30:1"))) == 2
    assert len(stages_of(data)) == 3


# -- crops -----------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(1, 41), st.integers(0, 99))
def test_a_crop_is_a_stretch_of_its_sequence_with_its_targets(lengths, most, step):
    rng = np.random.default_rng(len(lengths))
    sequences = tuple(rng.integers(7, 11, n).astype(np.uint8) for n in lengths)
    targets = tuple(100 * i + np.arange(n) for i, n in enumerate(lengths))
    n = len(lengths)
    data = LabelledData(
        "d", sequences, targets, TASKS["tokens"], np.full(n, "train"), tuple(map(str, range(n)))
    )
    index = rng.permutation(n)[: 1 + n // 2]
    crop = Crop(most, 5, step)
    part = crop_rows(data, index, crop)
    for row, ids, places in zip(index.tolist(), part.sequences, part.targets, strict=True):
        assert len(ids) == len(places) == min(most, lengths[row])
        first = int(places[0]) - 100 * row
        assert np.array_equal(places, targets[row][first : first + len(ids)])
        assert np.array_equal(ids, sequences[row][first : first + len(ids)])
    again = crop_rows(data, index, crop)
    assert all(np.array_equal(a, b) for a, b in zip(part.targets, again.targets, strict=True))


def test_crops_reach_both_ends_evenly_and_differ_from_step_to_step():
    lengths = np.full(3000, 14)
    starts = [Crop(10, 3, step).starts(lengths) for step in (0, 1)]
    for each in starts:
        assert np.bincount(each, minlength=5).min() > 500 and each.max() == 4
    assert not np.array_equal(*starts)
    assert not np.array_equal(starts[0], Crop(10, 4, 0).starts(lengths))
    assert not Crop(20, 3, 0).starts(lengths).any()


def test_windows_of_genomes_are_cropped_too(tmp_path):
    rng = np.random.default_rng(2)
    text = "".join(rng.choice(list("ACGT"), 200))
    (tmp_path / "g.fa").write_text(f">c\n{text}\n")
    genome = Genome.open(tmp_path / "g.fa")
    windows = GenomeWindows([ContigSource(genome, "c")], [0, 0], [-5, 60], [55, 120], [True, False])
    data = WindowedData.of("w", windows, np.array([0, 1]), TASKS["classes"], ["train"] * 2)
    part = crop_rows(data, np.array([1, 0]), Crop(12, 0, 0))
    starts = Crop(12, 0, 0).starts(np.array([60, 60]))
    for row, ids, start in zip((1, 0), part.sequences, starts.tolist(), strict=True):
        assert np.array_equal(ids, windows[row][start : start + 12])
    assert part.targets.tolist() == [1, 0]


def test_short_crops_share_passes_and_valid_is_cut_to_its_middle():
    data = toy("tokens", shortest=40)
    train, valid = data.part("train"), data.part("valid")
    examples = SequenceExamples(train, valid, tokens=96)
    index = np.arange(12)
    turned = np.arange(12) % 2 == 0
    whole, cropped = (list(examples.step(index, turned, c)) for c in (None, Crop(8, 0, 0)))
    assert max(len(p.lengths) for p in whole) == 2 and len(cropped) == 1
    assert cropped[0].inputs.shape == cropped[0].targets.shape == (12, 8)
    for pieces in (whole, cropped):
        assert sorted(torch.cat([p.index for p in pieces]).tolist()) == index.tolist()
    for piece in examples.valid(10):
        assert piece.inputs.shape[1] == 10
        for i, ids, targets in zip(piece.index.tolist(), piece.inputs, piece.targets, strict=True):
            middle = (len(valid.sequences[i]) - 10) // 2
            assert ids.tolist() == valid.sequences[i][middle : middle + 10].tolist()
            assert targets.tolist() == valid.targets[i][middle : middle + 10].tolist()


# -- what counts -----------------------------------------------------------------------------------


def test_lengths_of_steps_and_evaluations_and_that_all_steps_share_one_schedule():
    data = toy()
    reports = list(finetune(model_for(data), data, STAGED))
    plain = list(finetune(model_for(data), data, replace(STAGED, stages="none")))
    steps = [r for r in reports if isinstance(r, FinetuneStep)]
    each = len(steps) // 4
    assert [s.length for s in steps] == [8] * each + [20] * each + [None] * (2 * each)
    assert [s.lr for s in steps] == [s.lr for s in plain if isinstance(s, FinetuneStep)]
    assert [s.sequences for s in steps] == [
        s.sequences for s in plain if isinstance(s, FinetuneStep)
    ]
    assert max(s.tokens for s in steps[:each]) <= 16 * 8 < steps[-1].tokens
    assert sum(s.share for s in steps) == pytest.approx(1) and steps[-1].share_left == 0
    assert steps[0].share_left == pytest.approx(sum(s.share for s in steps[1:]))
    evaluations = [r for r in reports if isinstance(r, FinetuneEvaluation)]
    assert [e.length for e in evaluations] == [8, 20, None, None]
    assert [e.best for e in evaluations[:3]] == [False, False, True]


def test_short_lengths_neither_choose_the_model_nor_try_the_patience(monkeypatch):
    script = iter([(0.1, 0.99), (0.2, 0.9), (0.3, 0.5), (0.9, 0.2), (0.3, 0.6), (0.4, 0.5)])

    def measure(self):
        loss, mcc = next(script)
        return loss, {"mcc": mcc}

    monkeypatch.setattr(Finetuner, "_measure", measure)
    data = toy()
    config = replace(STAGED, epochs=8, stages="8:3,20:1", patience=1)
    *_, result = finetune(model_for(data), data, config)
    assert isinstance(result, FinetuneResult)
    # worse and worse at 8 and 20, which does not count; best at epoch 5; 6 ends it
    assert (result.best.epoch, result.epoch, result.stopped) == (5, 6, "patience")
    assert [e.best for e in result.history] == [False] * 4 + [True, False]
    assert result.best.value == 0.6


@pytest.mark.parametrize("kind", ["labels", "values", "tokens"])
def test_other_tasks_learn_in_stages(kind):
    data = toy(kind)
    config = replace(STAGED, epochs=4, lr=5e-3, stages="12:2", micro_batch_tokens=600)
    *_, result = finetune(model_for(data), data, config, seed=2)
    assert result.history[-1].loss < result.history[0].loss
    assert result.best.epoch > 2


# -- interruptions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "stop_at"), [("classes", 2), ("tokens", 5), ("classes", 10)])
def test_a_run_interrupted_in_any_stage_equals_an_unbroken_one(tmp_path, kind, stop_at):
    data = toy(kind)
    begin = model_for(data, dropout=0.1)

    def run(folder: Path, **options):
        model = copy.deepcopy(begin)
        return finetune(model, data, STAGED, seed=4, folder=folder, **options)

    *_, whole = run(tmp_path / "whole")
    calls = itertools.count(1)
    *_, stopped = run(tmp_path / "broken", should_stop=lambda: next(calls) == stop_at)
    assert stopped.stopped == "interrupted" and stopped.step == stop_at
    assert (stopped.best is None) == (stop_at < 9)  # 3 steps an epoch, 2 epochs of warm-up
    assert (tmp_path / "broken" / "best").exists() == (stop_at >= 9)
    *_, result = run(tmp_path / "broken", resume=True)
    one, other = whole.model.state_dict(), result.model.state_dict()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    figures = [
        [(e.step, e.length, e.loss, e.train_loss, e.value, e.best) for e in r.history]
        for r in (whole, result)
    ]
    assert figures[0] == figures[1] and len(figures[0]) == 4
    logs = [
        [
            {k: v for k, v in json.loads(line).items() if k != "seconds"}
            for line in (tmp_path / name / "log.jsonl").read_text().splitlines()
        ]
        for name in ("whole", "broken")
    ]
    assert logs[0] == logs[1] and logs[0][0]["length"] == 8 and "length" not in logs[0][-1]


def test_other_stages_are_another_run_and_states_from_before_there_were_any_go_on(tmp_path):
    data = toy()
    plain = replace(STAGED, stages="none", epochs=1)
    list(finetune(model_for(data), data, plain, folder=tmp_path))
    staged = replace(plain, stages="8:1", epochs=2)
    with pytest.raises(InputError, match="was run with epochs 1, not 2"):
        list(finetune(model_for(data), data, staged, folder=tmp_path, resume=True))
    tuner = Finetuner(model_for(data), data, plain, seed=0, device=CPU)
    old = tuner.fingerprint()
    for name in ("stages", "warmup_length"):
        del old["config"][name]
    folder = FinetuneFolder(tmp_path)
    folder._check({"version": 1, "of": old}, tuner)
    other = Finetuner(model_for(data), data, replace(staged, epochs=1 + 1), seed=0, device=CPU)
    with pytest.raises(InputError, match=r"was run with (epochs 1|stages none), not (2|8:1)"):
        folder._check({"version": 1, "of": old}, other)


# -- what a user sees ------------------------------------------------------------------------------


def test_the_lines_show_the_length_and_count_longer_steps_as_longer():
    with Path("/dev/null").open("w") as nowhere:
        console = Console(file=nowhere, record=True, width=200)
        lines = FinetuneLines(console, "classes", seeds=1)
        for step in range(1, 8):
            short = step <= 6
            lines.step(
                0,
                FinetuneStep(
                    step=step, steps=8, epoch=1, loss=1.0, lr=1.0, grad_norm=1.0, sequences=4,
                    tokens=4, seconds=1.0, skipped=False, share=0.01 if short else 0.47,
                    share_left=1 - 0.01 * step if short else 0.47, length=1024 if short else None,
                ),
            )  # fmt: skip
        lines._last_print = 0.0
    text = console.export_text()
    assert "step 1/8  length 1,024  loss" in text
    # six steps of 1 % in a second each: the other 94 % take 94 s
    assert "at most 1 min 34 s for 8 steps" in text, text
