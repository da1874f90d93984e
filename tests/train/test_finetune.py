"""Fine-tuning learns, chooses on valid alone, repeats to the bit, and survives interruptions."""

from __future__ import annotations

import copy
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from hyenadna.alphabet import IGNORED, A, C, G, T, reverse_complement_ids
from hyenadna.checkpoint.load import load
from hyenadna.checkpoint.task import load_task
from hyenadna.config import ModelConfig
from hyenadna.data.labelled_data import LabelledData, Task
from hyenadna.errors import InputError
from hyenadna.infer.predict import predict
from hyenadna.model.adapters import has_adapters
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.heads import TaskModel
from hyenadna.train import finetune_folder
from hyenadna.train.finetune import finetune, run_seeds
from hyenadna.train.finetune_examples import FeatureExamples, steps_of_epoch, turned_rows
from hyenadna.train.finetune_loop import Finetuner
from hyenadna.train.finetune_reports import (
    FinetuneEvaluation,
    FinetuneResult,
    FinetuneStep,
    MeanSd,
    over_seeds,
)
from hyenadna.train.finetune_setup import (
    choose_precision,
    class_weights,
    make_optimizer,
    target_scale,
)
from hyenadna.train.metrics import metrics
from hyenadna.train.updates import count_bad, update
from hyenadna.training_config import FinetuneConfig

CPU = torch.device("cpu")
SHAPE = ModelConfig(d_model=16, n_layer=2, max_seq_len=66)
SMALL = FinetuneConfig(epochs=3, batch_size=16, precision="float32", reverse_complement=True)
TASKS = {
    "classes": Task("classes", ("rich", "poor")),
    "labels": Task("labels", ("rich", "long", "never known")),
    "values": Task("values", ("share", "length")),
    "tokens": Task("tokens", ("strong", "weak")),
}


def toy(kind: str = "classes", rows: int = 96, seed: int = 0) -> LabelledData:
    """Sequences that are rich or poor in A and T, of 20 to 40 bases; some targets are missing."""
    rng = np.random.default_rng(seed)
    rich = rng.permutation(np.arange(rows) % 2).astype(bool)
    lengths = rng.integers(20, 41, rows)
    sequences = tuple(
        rng.choice([A, T, C, G], p=[0.4, 0.4, 0.1, 0.1] if r else [0.1, 0.1, 0.4, 0.4], size=n)
        .astype(np.uint8)
        for r, n in zip(rich, lengths, strict=True)
    )  # fmt: skip
    missing = rng.random(rows) < 0.1
    if kind == "classes":
        targets = np.where(missing, IGNORED, rich).astype(np.int64)
    elif kind == "tokens":
        targets = tuple(
            np.where(rng.random(len(s)) < 0.1, IGNORED, (s == A) | (s == T)) for s in sequences
        )
    elif kind == "labels":
        targets = np.stack([rich, lengths > 30, np.full(rows, np.nan)], 1).astype(np.float32)
        targets[missing, 0] = np.nan
    else:
        share = np.array([np.isin(s, (A, T)).mean() for s in sequences])
        targets = np.stack([1000 + 50 * share, lengths / 1e4], 1).astype(np.float32)
        targets[missing, 1] = np.nan
    splits = rng.permutation(np.resize(["train"] * 4 + ["valid", "test"], rows))
    ids = tuple(f"r{i}" for i in range(rows))
    return LabelledData("toy", sequences, targets, TASKS[kind], splits, ids)


def small_model(task: Task = TASKS["classes"], seed: int = 0, **options) -> TaskModel:
    torch.manual_seed(seed)
    return TaskModel(HyenaDNA(SHAPE), task, **options)


def result_of(reports) -> FinetuneResult:
    *_, last = reports
    assert isinstance(last, FinetuneResult)
    return last


def weights_of(model: TaskModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def timeless(history) -> list[FinetuneEvaluation]:
    return [replace(report, seconds=0.0, metrics=repr(report.metrics)) for report in history]


# -- learning --------------------------------------------------------------------------------------


def changed(before: dict[str, torch.Tensor], model: TaskModel) -> set[str]:
    after = model.state_dict()
    assert before.keys() == after.keys()
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


@pytest.mark.parametrize("mode", ["full", "frozen", "last", "lora"])
def test_each_mode_learns_and_changes_only_what_it_should(mode):
    data, model = toy(), small_model()
    before = weights_of(model)
    config = replace(SMALL, mode=mode, epochs=5, lr=3e-3 if mode != "frozen" else None)
    result = result_of(finetune(model, data, config, seed=1))
    first, last = result.history[0], result.history[-1]
    assert last.loss < first.loss and result.best.metrics["auroc"] > 0.9
    assert result.stopped == "epochs" and result.step == 5 * 4
    names = changed(before, model) - {"head.weight", "head.bias"}
    if mode == "full":
        assert any("embeddings" in name for name in names)
        assert any("implicit_filter" in name for name in names)
    elif mode == "frozen":
        assert not names
    elif mode == "last":
        assert names and all("layers.1." in name or "ln_f" in name for name in names)
    else:
        maps = ("in_proj.weight", "out_proj.weight", "fc1.weight", "fc2.weight")
        assert len(names) == 8 and all(name.endswith(maps) for name in names)
    assert not has_adapters(model.model) and all(p.requires_grad for p in model.parameters())
    assert not model.training and model.model.config.embed_dropout == SHAPE.embed_dropout


def valid_metrics(model: TaskModel, data: LabelledData) -> dict[str, float]:
    part = data.part("valid")
    tokens = data.task.kind == "tokens"
    join = np.concatenate if tokens else np.stack
    outputs = join(list(predict(model, part.sequences)))
    return metrics(data.task.kind, join(part.targets) if tokens else part.targets, outputs)


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("classes", "full", {}),
        ("classes", "frozen", {"strands": "concatenate"}),
        ("classes", "lora", {"pooling": "last"}),
        ("classes", "frozen", {"pooling": "attention"}),
        ("labels", "last", {"strands": "average"}),
        ("labels", "frozen", {"dropout": 0.2}),
        ("values", "full", {}),
        ("values", "frozen", {"strands": "average"}),
        ("tokens", "full", {"strands": "concatenate"}),
        ("tokens", "frozen", {}),
    ],
)
def test_the_finished_model_is_the_best_one_and_predicts_as_it_was_measured(kind, mode, options):
    data = toy(kind)
    model = small_model(data.task, **options)
    config = replace(SMALL, mode=mode, epochs=4, lr=0.02)
    result = result_of(finetune(model, data, config, seed=2))
    values = [report.value for report in result.history]
    assert result.best.value == np.nanmax(values) and result.best.best
    again = valid_metrics(model, data)
    for name, value in result.best.metrics.items():
        assert again[name] == pytest.approx(value, rel=2e-3, abs=2e-4, nan_ok=True), name


def test_values_are_given_in_their_own_units():
    data = toy("values")
    model = small_model(data.task)
    before = valid_metrics(model, data)
    config = replace(SMALL, mode="frozen", epochs=12, reverse_complement=False)
    result_of(finetune(model, data, config))
    after = valid_metrics(model, data)
    assert before["rmse"] > 400 and after["rmse"] < 15 and after["pearson"] > 0.5


def test_target_scale_leaves_missing_values_out():
    data = toy("values")
    mean, scale = target_scale(data)
    targets = data.targets.astype(np.float64)
    assert np.allclose(mean, np.nanmean(targets, 0)) and np.allclose(scale, np.nanstd(targets, 0))
    constant = replace(data, targets=np.full_like(data.targets, 3))
    assert target_scale(constant)[1].tolist() == [1, 1]
    assert target_scale(toy("classes")) is None


# -- the same again --------------------------------------------------------------------------------


def test_a_seed_gives_the_same_weights_whatever_others_draw():
    data, config = toy(), SMALL
    one, other, third = small_model(), small_model(), small_model()
    state = torch.get_rng_state()
    first = result_of(finetune(one, data, config, seed=5))
    assert torch.equal(torch.get_rng_state(), state)  # the caller's generator is left alone
    for report in finetune(other, data, config, seed=5):
        torch.rand(3)
        second = report
    assert_equal(weights_of(one), weights_of(other))
    assert timeless(first.history) == timeless(second.history)
    result_of(finetune(third, data, config, seed=6))
    assert not torch.equal(one.head.weight, third.head.weight)


def test_each_step_has_its_rows_once_and_none_is_small():
    steps = steps_of_epoch(103, 20, seed=1, epoch=0)
    assert sorted(np.concatenate(steps).tolist()) == list(range(103))
    assert {len(step) for step in steps} == {17, 18}
    again = steps_of_epoch(103, 20, seed=1, epoch=0)
    assert all(np.array_equal(a, b) for a, b in zip(steps, again, strict=True))
    for other in ({"seed": 2, "epoch": 0}, {"seed": 1, "epoch": 1}):
        assert not np.array_equal(steps[0], steps_of_epoch(103, 20, **other)[0])


def test_half_of_the_rows_are_turned_only_where_asked_for():
    assert 4500 < turned_rows(9000, seed=0, step=3).sum() + 250 < 5000
    assert not np.array_equal(turned_rows(99, seed=0, step=0), turned_rows(99, seed=0, step=1))
    data = toy()
    steps = [
        next(iter(finetune(small_model(), data, replace(SMALL, reverse_complement=on))))
        for on in (True, False)
    ]
    assert steps[0].loss != steps[1].loss


def test_small_pieces_give_the_gradient_of_the_whole_step():
    for kind in ("classes", "labels", "values", "tokens"):
        data = toy(kind)
        weigh = "none" if kind == "values" else "balanced"
        config = replace(SMALL, embed_dropout=0.0, class_weights=weigh)
        steps = [
            next(iter(finetune(small_model(data.task), data, each)))
            for each in (config, replace(config, micro_batch_tokens=90))
        ]
        assert steps[1].loss == pytest.approx(steps[0].loss, rel=1e-5), kind
        assert steps[1].grad_norm == pytest.approx(steps[0].grad_norm, rel=1e-4), kind
        assert steps[1].sequences == 16 and steps[0].steps == 12


# -- the protocol ----------------------------------------------------------------------------------


class Untouchable:
    """A sequence of the test part: whoever looks at it is found out."""

    def __getattribute__(self, name):
        raise AssertionError(f"the test part was touched ({name})")

    def __len__(self):
        raise AssertionError("the test part was touched (len)")

    def __getitem__(self, index):
        raise AssertionError("the test part was touched (getitem)")

    def __array__(self, *arguments):
        raise AssertionError("the test part was touched (array)")


class Guarded(LabelledData):
    """Labelled data that give out no test part."""

    def part(self, split):
        assert split != "test", "the test part was touched"
        return super().part(split)


@pytest.mark.parametrize("mode", ["full", "frozen"])
def test_the_test_part_is_never_looked_at(mode, tmp_path):
    data, config = toy(), replace(SMALL, mode=mode, class_weights="balanced")
    held = data.splits == "test"
    assert held.any()
    guarded = Guarded(
        data.name,
        tuple(Untouchable() if h else s for h, s in zip(held, data.sequences, strict=True)),
        np.where(held, 99, data.targets),  # no class: a loss or a metric of it is an error
        data.task,
        data.splits,
        data.ids,
    )
    with pytest.raises(AssertionError, match="touched"):
        guarded.digest()
    with pytest.raises(AssertionError, match="touched"):
        guarded.part("test")
    reports = run_seeds(small_model, guarded, config, seeds=[3], folder=tmp_path / "run")
    *_, last = reports
    with_test = last.report
    without = result_of(finetune(run_model(3), data.select(~held), config, seed=3))
    assert_equal(weights_of(with_test.model), weights_of(without.model))


def run_model(seed: int) -> TaskModel:
    """As `run_seeds` makes one."""
    torch.manual_seed(seed)
    return small_model()


def scripted(monkeypatch, script):
    """Let the valid part give these (loss, mcc), one evaluation after the other."""
    values = iter(script)

    def measure(self):
        loss, mcc = next(values)
        return loss, {"mcc": mcc, "log_loss": loss}

    monkeypatch.setattr(Finetuner, "_measure", measure)


def test_the_best_model_is_chosen_by_the_metric_and_then_by_the_loss(monkeypatch):
    nan = math.nan
    script = [(0.9, nan), (0.8, nan), (1.0, 0.0), (0.95, 0.0), (2.0, 0.5), (0.1, 0.4), (2.1, 0.5)]
    scripted(monkeypatch, script)
    config = replace(SMALL, epochs=7, patience=None)
    weights = {}
    for report in finetune(model := small_model(), toy(), config):
        if isinstance(report, FinetuneEvaluation):
            weights[report.epoch] = model.head.weight.detach().clone()
    flags = [each.best for each in report.history]
    assert flags == [True, True, True, True, True, False, False]
    assert report.best.epoch == 5 and torch.equal(model.head.weight, weights[5])
    assert not torch.equal(model.head.weight, weights[7])


def test_the_loss_may_choose_and_patience_ends_the_run(monkeypatch):
    scripted(monkeypatch, [(0.5, 0.1), (0.4, 0.0), (0.41, 0.9), (0.42, 0.9), (0.3, 0.9)])
    config = replace(SMALL, epochs=5, patience=2, metric="loss")
    result = result_of(finetune(small_model(), toy(), config))
    assert (result.stopped, result.epoch, result.best.epoch) == ("patience", 4, 2)
    assert result.best.value == 0.4 and result.step == 4 * 4


def test_evaluations_are_spread_over_the_epoch():
    config = replace(SMALL, epochs=2, evaluations_per_epoch=3)
    result = result_of(finetune(small_model(), toy(), config))
    assert [each.step for each in result.history] == [2, 3, 4, 6, 7, 8]
    assert [each.epoch for each in result.history] == [1, 1, 1, 2, 2, 2]


def test_train_loss_is_the_mean_of_the_steps_since_the_evaluation_before():
    losses, means = [], []
    for report in finetune(small_model(), toy(), SMALL):
        if isinstance(report, FinetuneStep):
            losses.append(report.loss)
        elif isinstance(report, FinetuneEvaluation):
            means.append(report.train_loss)
    assert means == pytest.approx([np.mean(losses[i : i + 4]) for i in (0, 4, 8)])


# -- weights and rates -----------------------------------------------------------------------------


def test_balanced_class_weights():
    data, config = toy(), FinetuneConfig(class_weights="balanced")
    targets = np.array([0] * 7 + [1] * 2 + [IGNORED])
    part = replace(data.select(np.arange(10)), targets=targets)
    known = targets[targets >= 0]
    expected = compute_class_weight("balanced", classes=np.array([0, 1]), y=known)
    assert class_weights(part, config).tolist() == pytest.approx(expected.tolist())
    labels = toy("labels").select(np.arange(5))
    nan = np.nan
    labels.targets[:] = [[1, 1, nan], [0, 1, nan], [0, 1, nan], [0, 1, nan], [nan, 1, nan]]
    assert class_weights(labels, config).tolist() == [3, 1, 1]
    tokens = toy("tokens").select(np.arange(2))
    tokens = replace(tokens, targets=(np.array([0, 0, 0]), np.array([1, IGNORED])))
    assert class_weights(tokens, config).tolist() == pytest.approx([4 / 6, 2])
    assert class_weights(data, FinetuneConfig()) is None
    with pytest.raises(InputError, match="--class-weights is balanced, but the targets are values"):
        class_weights(toy("values"), config)


def test_filters_norms_and_biases_are_not_decayed_and_lower_blocks_learn_slower():
    model = small_model()
    config = FinetuneConfig(lr=1e-3, layer_decay=0.5, weight_decay=0.2)
    optimizer = make_optimizer(model, config)
    names = {id(p): name for name, p in model.named_parameters()}
    seen = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            assert name not in seen
            seen[name] = (group["weight_decay"], group["peak_lr"])
    assert seen.keys() == set(names.values())
    for name, (decay, _) in seen.items():
        undecayed = "implicit_filter" in name or "norm" in name or "ln_f" in name
        undecayed |= name.endswith("bias") or "short_filter" in name
        assert decay == (0.0 if undecayed else 0.2), name
    assert seen["head.weight"][1] == 1e-3
    assert seen["model.backbone.layers.1.mlp.fc1.weight"][1] == 5e-4
    assert seen["model.backbone.layers.0.mlp.fc1.weight"][1] == 2.5e-4
    assert seen["model.backbone.embeddings.word_embeddings.weight"][1] == 1.25e-4


def test_the_rate_rises_and_falls_over_all_epochs():
    config = replace(SMALL, epochs=5, lr=1e-3, warmup_share=0.2, final_lr=0.1, mode="frozen")
    steps = [r for r in finetune(small_model(), toy(), config) if isinstance(r, FinetuneStep)]
    rates = [step.lr for step in steps]
    assert len(rates) == 20 and max(rates) == rates[4] == pytest.approx(1e-3)
    assert rates[:5] == sorted(rates[:5]) and rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] == pytest.approx(1e-4, rel=0.15) and all(r < 1e-3 for r in rates[:4])


def test_features_are_kept_for_both_strands():
    data = toy()
    model = small_model()
    model.model.requires_grad_(False)
    train, valid = data.part("train"), data.part("valid")
    progress = []
    kept = FeatureExamples(
        model, train, valid, SMALL, precision=None, progress=lambda *done: progress.append(done)
    )
    index = np.array([5, 0, 7])
    (piece,) = kept.step(index, np.array([False, True, True]))
    model.eval()
    for row, (i, other) in enumerate(zip(index, (False, True, True), strict=True)):
        ids = train.sequences[i]
        ids = reverse_complement_ids(ids) if other else ids
        expected = model.features(torch.from_numpy(ids.astype(np.int64)))[0].detach()
        features = piece.inputs[row].double() * kept.scale + kept.mean
        assert torch.allclose(features.float(), expected, atol=1e-5)
        assert piece.targets[row] == train.targets[i]
    (all_valid,) = kept.valid()
    assert all_valid.index.tolist() == list(range(len(valid))) and all_valid.tokens == 0
    assert progress[-1] == (2 * len(train) + len(valid),) * 2


def test_precision_auto_says_what_it_takes():
    model = small_model()
    assert choose_precision(model, FinetuneConfig(mode="lora"), CPU) == "float32"
    assert choose_precision(model, FinetuneConfig(precision="fp16"), CPU) == "fp16"
    assert choose_precision(model, FinetuneConfig(), CPU) in ("bf16", "float32")
    config = FinetuneConfig(epochs=1, batch_size=32, precision="bf16")
    result = result_of(finetune(model, toy(), config))
    assert result.precision == "bf16" and math.isfinite(result.best.loss)


# -- interruptions ---------------------------------------------------------------------------------


def log_of(folder: Path) -> list[dict]:
    lines = (json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def take(reports, steps: int) -> None:
    """Go on for so many steps, then give the iteration up as a kill would."""
    done = 0
    for report in reports:
        done += isinstance(report, FinetuneStep)
        if done == steps:
            break
    reports.close()


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("classes", {}),
        ("classes", {"mode": "frozen"}),
        ("values", {"mode": "lora", "lora_rank": 2}),
        ("tokens", {"mode": "last", "evaluations_per_epoch": 2, "precision": "bf16"}),
    ],
)
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tmp_path, kind, changes):
    data, config = toy(kind), replace(SMALL, **changes)
    begin = small_model(data.task, dropout=0.1)

    def run(folder: Path, **options):
        model = copy.deepcopy(begin)
        return finetune(model, data, config, seed=4, folder=folder, **options)

    whole = result_of(run(tmp_path / "whole"))
    broken = tmp_path / "broken"
    calls = itertools.count(1)
    stopped = result_of(run(broken, should_stop=lambda: next(calls) == 6))
    assert stopped.stopped == "interrupted" and stopped.step == 6
    take(run(broken, resume=True), 3)  # past the next state at least once, then killed
    result = result_of(run(broken, resume=True))
    assert_equal(weights_of(whole.model), weights_of(result.model))
    assert timeless(whole.history) == timeless(result.history)
    assert log_of(tmp_path / "whole") == log_of(broken)
    assert result.step == whole.step == 12
    saved = load_task(broken / "best")
    assert_equal(weights_of(saved), weights_of(whole.model))
    again = list(run(broken, resume=True))  # a finished run has nothing left to do
    assert len(again) == 1 and again[0].stopped == whole.stopped


def test_the_best_weights_survive_an_interruption(tmp_path, monkeypatch):
    config = replace(SMALL, epochs=3)
    scripted(monkeypatch, [(0.5, 0.9), (0.5, 0.2)])
    reports = finetune(model := small_model(), toy(), config, folder=tmp_path)
    for report in reports:
        if isinstance(report, FinetuneEvaluation) and report.best:
            best = weights_of(model)
        if report.step == 9:
            reports.close()
    scripted(monkeypatch, [(0.5, 0.3)])
    result = result_of(finetune(small_model(), toy(), config, folder=tmp_path, resume=True))
    assert result.best.epoch == 1 and [each.value for each in result.history] == [0.9, 0.2, 0.3]
    assert_equal(weights_of(result.model), best)


def test_each_step_draws_anew():
    tuner = Finetuner(small_model(), toy(), SMALL, seed=0, device=CPU)
    states = []
    for _ in range(3):
        states.append(tuner.state()[0]["random.cpu"])
        tuner.step()
    assert not torch.equal(states[0], states[1]) and not torch.equal(states[1], states[2])


def test_the_best_folder_is_a_checkpoint_with_what_it_was_made_with(tmp_path):
    data = toy()
    model = small_model()
    result = result_of(finetune(model, data, SMALL, seed=7, folder=tmp_path / "run"))
    saved = load_task(tmp_path / "run" / "best")
    assert saved.task.names == data.task.names and saved.task.max_length <= 40
    settings = saved.task.settings
    assert settings["seed"] == 7 and settings["epoch"] == result.best.epoch
    assert FinetuneConfig.from_dict(settings["finetune"]) == SMALL
    assert settings["valid"]["mcc"] == result.best.metrics["mcc"]
    backbone = load(tmp_path / "run" / "best")
    assert torch.equal(backbone.head_weight, model.model.head_weight)


def test_a_folder_with_another_run_is_refused(tmp_path):
    data, folder = toy(), tmp_path / "run"
    config = replace(SMALL, mode="frozen", epochs=1)
    result_of(finetune(small_model(), data, config, folder=folder))

    def refused(match, model=None, data=data, config=config, **options):
        with pytest.raises(InputError, match=match):
            list(finetune(model or small_model(), data, config, folder=folder, **options))

    refused("holds a run already; resume it")
    refused("was run with lr None, not 0.1", config=replace(config, lr=0.1), resume=True)
    refused("another seed", seed=1, resume=True)
    refused("other weights to begin with", model=small_model(seed=9), resume=True)
    refused("another pooling", model=small_model(pooling="last"), resume=True)
    other = replace(data, ids=data.ids, targets=np.where(data.splits == "train", 1, data.targets))
    refused("other training rows", data=other, resume=True)
    state = folder / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-7])
    refused("damaged, cannot resume from it", resume=True)


def test_a_start_that_was_killed_leaves_nothing_in_the_log(tmp_path):
    reports = finetune(small_model(), toy(), SMALL, folder=tmp_path)
    take(reports, 2)  # killed before the first state
    reports.close()
    assert len(log_of(tmp_path)) == 2
    result = result_of(finetune(small_model(), toy(), SMALL, folder=tmp_path, resume=True))
    steps = [entry["step"] for entry in log_of(tmp_path) if "loss" in entry]
    assert steps == list(range(1, result.step + 1))


def test_a_run_goes_on_with_smaller_passes_but_not_with_another_dropout(tmp_path):
    take(finetune(small_model(), toy(), SMALL, folder=tmp_path), 7)
    less = replace(SMALL, micro_batch_tokens=100)
    with pytest.raises(InputError, match="another dropout of the head"):
        result_of(finetune(small_model(dropout=0.5), toy(), less, folder=tmp_path, resume=True))
    assert result_of(finetune(small_model(), toy(), less, folder=tmp_path, resume=True)).best


def test_two_runs_do_not_write_one_folder(tmp_path):
    running = finetune(small_model(), toy(), SMALL, folder=tmp_path)
    next(running)
    with pytest.raises(InputError, match="another run is writing it"):
        next(finetune(small_model(), toy(), SMALL, folder=tmp_path))
    running.close()
    assert result_of(finetune(small_model(), toy(), SMALL, folder=tmp_path)).best
    with pytest.raises(InputError, match="holds a run already"):
        next(finetune(small_model(), toy(), SMALL, folder=tmp_path))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "lock").mkdir()
    with pytest.raises(InputError, match="cannot make the run folder"):
        next(finetune(small_model(), toy(), SMALL, folder=tmp_path / "other"))


def test_a_scale_that_falls_for_ever_is_told():
    scaler = torch.amp.GradScaler("cpu", enabled=True, init_scale=4.0)
    bad = 0
    with pytest.raises(InputError, match="no finite gradient"):
        for step in range(60):
            weight = torch.ones(1, requires_grad=True)
            optimizer = torch.optim.SGD([weight], lr=0.1)
            scaler.scale(weight * math.nan).sum().backward()
            _, finite = update(optimizer, scaler, [weight], clip=1.0, loss=0.5)
            bad = count_bad(bad, scaler, finite=finite, loss=0.5, step=step, lr=0.1)


def test_names_of_outputs_fit_into_tables():
    with pytest.raises(InputError, match="control character"):
        Task("classes", ("a", "b\rc"))


def test_a_full_disk_leaves_the_state_before(tmp_path, monkeypatch):
    folder, config = tmp_path / "run", replace(SMALL, mode="frozen")
    reports = finetune(small_model(), toy(), config, folder=folder)
    take(reports, 5)
    before = (folder / "state.safetensors").read_bytes()

    def full(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(finetune_folder, "save_file", full)
        with pytest.raises(InputError, match=r"No space left on device.*the state before stands"):
            list(finetune(small_model(), toy(), config, folder=folder, resume=True))
    assert (folder / "state.safetensors").read_bytes() == before
    assert not list(folder.glob("*.part"))
    assert result_of(finetune(small_model(), toy(), config, folder=folder, resume=True)).step == 12


# -- several seeds ---------------------------------------------------------------------------------


def test_several_seeds(tmp_path):
    data, config = toy(), replace(SMALL, mode="frozen", epochs=2)

    def fresh() -> TaskModel:
        return TaskModel(HyenaDNA(SHAPE), data.task)

    state = torch.get_rng_state()
    reports = list(run_seeds(fresh, data, config, seeds=[0, 3], folder=tmp_path))
    assert torch.equal(torch.get_rng_state(), state)
    results = [each.report for each in reports if isinstance(each.report, FinetuneResult)]
    assert [each.seed for each in results] == [0, 3]
    assert not torch.equal(results[0].model.model.head_weight, results[1].model.model.head_weight)
    assert {path.name for path in tmp_path.iterdir()} == {"seed-0", "seed-3"}
    summary = over_seeds([each.best.metrics for each in results])
    values = [each.best.metrics["log_loss"] for each in results]
    assert summary["log_loss"].mean == pytest.approx(np.mean(values))
    assert summary["log_loss"].sd == pytest.approx(np.std(values, ddof=1))
    assert over_seeds([]) == {} and over_seeds([{"a": 1.0}])["a"].count == 1
    assert math.isnan(MeanSd.of([1.0]).sd) and MeanSd.of([1.0, math.nan, 3.0]).mean == 2
    again = list(run_seeds(fresh, data, config, seeds=[0, 3], folder=tmp_path, resume=True))
    assert [type(each.report) for each in again] == [FinetuneResult] * 2
    for seeds in ([], [1, 1], [-1]):
        with pytest.raises(InputError, match="seeds are"):
            next(iter(run_seeds(fresh, data, config, seeds=seeds)))


def test_an_interrupted_seed_is_the_last(tmp_path):
    data, config = toy(), replace(SMALL, mode="frozen", epochs=2)
    reports = list(
        run_seeds(small_model, data, config, seeds=[0, 1], folder=tmp_path, should_stop=lambda: 2)
    )
    assert reports[-1].seed == 0 and reports[-1].report.stopped == "interrupted"
    assert reports[-1].report.best is None
    assert not (tmp_path / "seed-0" / "best").exists()
    rest = list(run_seeds(small_model, data, config, seeds=[0, 1], folder=tmp_path, resume=True))
    assert rest[-1].seed == 1 and rest[-1].report.stopped == "epochs"


# -- bad input -------------------------------------------------------------------------------------


def refuse(match: str, data: LabelledData, config: FinetuneConfig = SMALL, model=None) -> None:
    with pytest.raises(InputError, match=match) as caught:
        list(finetune(model or small_model(data.task), data, config))
    assert "\n" not in str(caught.value)


def test_data_that_does_not_fit_is_refused():
    data = toy()
    refuse("no rows are valid; make a valid part", data.select(data.splits != "valid"))
    refuse("no rows are train", data.select(data.splits != "train"))
    none = np.where(data.splits == "valid", IGNORED, data.targets)
    refuse("all targets of the valid part are missing", replace(data, targets=none))
    long = (np.full(67, A, np.uint8), *data.sequences[1:])
    splits = np.concatenate([["train"], data.splits[1:]])
    too_long = replace(data, sequences=long, splits=splits)
    refuse("'r0' has 67 tokens, over the limit of 66", too_long)
    cropped = replace(SMALL, max_length=30, mode="frozen", epochs=1)
    assert result_of(finetune(small_model(), too_long, cropped)).step == 5 - (
        data.splits[0] == "train"
    )
    refuse("its task is classes", data, model=small_model(TASKS["values"]))
    refuse("--metric is nonsense; this task has accuracy", data, replace(SMALL, metric="nonsense"))
    refuse("3 last blocks; this model has 2", data, replace(SMALL, mode="last", last_blocks=3))


def test_a_loss_that_stays_infinite_ends_the_run():
    model = small_model()
    with torch.no_grad():
        model.head.bias.fill_(math.nan)
    config = replace(SMALL, mode="frozen", batch_size=1, epochs=1)
    reports, skipped = finetune(model, toy(), config), 0
    with pytest.raises(InputError, match=r"training diverged: .* last 20 steps .*lower --lr 0.01"):
        for report in reports:
            skipped += report.skipped
    assert skipped >= 19


def test_a_step_without_a_target_is_passed_over():
    data = toy()
    train = np.flatnonzero(data.splits == "train")
    targets = data.targets.copy()
    targets[train[1:]] = IGNORED
    targets[train[0]] = 1
    config = replace(SMALL, mode="frozen", epochs=1, batch_size=4)
    steps = list(finetune(small_model(), replace(data, targets=targets), config))
    counted = [s for s in steps if isinstance(s, FinetuneStep) and not s.skipped]
    assert len(counted) == 1 and len(steps) == 16 + 2
    assert sum(math.isnan(s.loss) for s in steps if isinstance(s, FinetuneStep)) == 15


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "half"}, "--mode is half; it is one of full, frozen, last, lora"),
        ({"epochs": 0}, "--epochs is 0; it must be at least 1"),
        ({"patience": 0}, "--patience is 0"),
        ({"layer_decay": 0.0}, "--layer-decay is 0.0; it must be in"),
        ({"lr": -1.0}, "--lr is -1.0; it must be positive"),
        ({"embed_dropout": 1.0}, "--embed-dropout is 1.0"),
        ({"class_weights": "some"}, "--class-weights is some"),
        ({"batch_size": 0}, "--batch-size is 0"),
    ],
)
def test_options_out_of_range(changes, message):
    with pytest.raises(InputError, match=message):
        FinetuneConfig(**changes)


def test_the_config_goes_to_plain_values_and_back():
    config = FinetuneConfig(mode="lora", lora_rank=4, patience=None)
    assert FinetuneConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert [FinetuneConfig(mode=m).peak_lr for m in ("full", "lora")] == [6e-4, 2e-3]
