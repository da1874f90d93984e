"""Schedules, parameter groups, weight averages, one step of training."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from hyenadna.alphabet import IGNORED
from hyenadna.config import PRESETS, ModelConfig, preset
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA, rescale_filters
from hyenadna.model.engine import pages
from hyenadna.model.engine.sizes import resident_bytes
from hyenadna.model.likelihood import mean_nats, target_nats
from hyenadna.model.memory import FIRST_USE, inference_bytes, training_bytes
from hyenadna.report.plots import training_curve
from hyenadna.train.estimate import estimate, peak_bytes, require_memory, runs_engine
from hyenadna.train.loop import Trainer
from hyenadna.train.optim import WeightAverage, learning_rate, parameter_groups
from hyenadna.train.pretrain import EvaluationReport, pretrain
from hyenadna.training_config import PretrainConfig

SMALL = ModelConfig(d_model=16, n_layer=1, max_seq_len=34, filter_order=8, embed_dropout=0.0)


class Repeats:
    """A stream of one pattern, with some targets that do not count."""

    def __init__(self) -> None:
        self.served = 0

    def batch(
        self, batch_size: int, length: int, *, rank: int = 0, ranks: int = 1
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.served += 1
        phase = torch.arange(batch_size)[:, None] + self.served
        tokens = 7 + (torch.arange(length + 1) + phase) % 4
        targets = tokens[:, 1:].clone()
        targets[0, : length // 2] = IGNORED
        return tokens[rank::ranks, :-1], targets[rank::ranks]

    def state(self):
        return {"served": self.served}

    def load_state(self, state):
        self.served = state["served"]


def trainer(seed: int = 0, **options) -> Trainer:
    torch.manual_seed(seed)
    config = PretrainConfig(**{"steps": 40, "tokens_per_step": 128, "stages": "none", **options})
    return Trainer(HyenaDNA(SMALL), Repeats(), config, final_length=16)


def test_the_paper_schedule_is_the_reference_one():
    config = PretrainConfig(steps=1000, lr=6e-4, schedule="paper")
    expected = {1: 6.09e-5, 9: 5.401e-4, 10: 5.998668e-4, 100: 5.867853e-4, 500: 3.3e-4, 1000: 6e-5}
    for step, lr in expected.items():
        assert learning_rate(step, 6e-4, config) == pytest.approx(lr, rel=1e-6), step


def test_the_cosine_starts_at_the_end_of_the_warm_up():
    config = PretrainConfig(steps=1000, lr=1.0, warmup_steps=100, final_lr=0.1)
    rates = [learning_rate(step, 1.0, config) for step in range(1001)]
    assert rates[:100] == sorted(rates[:100]) and rates[0] == pytest.approx(1 / 101)
    assert rates[100] == max(rates) == 1.0
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[550] == pytest.approx(0.55) and rates[1000] == pytest.approx(0.1)


def names_by_group(groups, model) -> list[set[str]]:
    names = {id(p): name for name, p in model.named_parameters()}
    return [{names[id(p)] for p in group["params"]} for group in groups]


def test_parameter_groups():
    model = HyenaDNA(SMALL)
    everything = {name for name, _ in model.named_parameters()}
    filters = {name for name in everything if "implicit_filter" in name}
    for kind in ("standard", "paper"):
        config = PretrainConfig(lr=1e-3, filter_lr=2e-4, parameter_groups=kind)
        groups = parameter_groups(model, config)
        sets = names_by_group(groups, model)
        assert set().union(*sets) == everything and sum(map(len, sets)) == len(everything)
        assert sets[-1] == filters and groups[-1]["weight_decay"] == 0
        assert groups[-1]["peak_lr"] == 2e-4 and groups[0]["peak_lr"] == 1e-3
        if kind == "paper":
            assert len(groups) == 2 and sets[0] == everything - filters
    standard = names_by_group(parameter_groups(model, PretrainConfig()), model)[0]
    layer = "backbone.layers.0."
    assert standard == {
        "backbone.embeddings.word_embeddings.weight",
        *(
            f"{layer}{part}.weight"
            for part in ("mixer.in_proj", "mixer.out_proj", "mlp.fc1", "mlp.fc2")
        ),
    }


def test_training_learns():
    run = trainer(steps=120, lr=5e-3)
    reports = [run.step() for _ in range(120)]
    assert reports[0].loss > 2.5 and reports[-1].loss < 0.2
    assert [r.step for r in reports] == list(range(1, 121))
    assert reports[-1].tokens == 120 * 128
    assert reports[3].bits_per_base == pytest.approx(reports[3].loss / math.log(2))


def test_accumulation_gives_the_step_of_the_whole_batch():
    whole, pieces = trainer(), trainer(micro_batch_tokens=32)
    for _ in range(3):
        one, other = whole.step(), pieces.step()
        assert one.loss == pytest.approx(other.loss, rel=1e-5)
        assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-4)
    for p, q in zip(whole.model.parameters(), pieces.model.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=2e-5, rtol=1e-4)


def test_the_gradient_is_that_of_the_mean_over_counted_targets():
    run = trainer()
    inputs, targets = Repeats().batch(8, 16)
    twin = copy.deepcopy(run.model)
    logits = twin(inputs)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    loss.backward()
    assert run._accumulate(inputs, targets) == pytest.approx(float(loss.detach()), rel=1e-5)
    for p, q in zip(run.model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_follows_float32(precision):
    exact, mixed = trainer(lr=1e-2), trainer(lr=1e-2, precision=precision)
    for _ in range(30):
        one, other = exact.step(), mixed.step()
    assert other.loss == pytest.approx(one.loss, abs=0.15)
    assert all(p.dtype == torch.float32 for p in mixed.model.parameters())


def test_a_step_that_is_not_finite_is_left_out_and_many_end_the_run():
    run = trainer()
    run.step()
    before = copy.deepcopy(run.model.state_dict())
    with torch.no_grad():
        run.model.backbone.ln_f.bias.fill_(float("nan"))
    broken = copy.deepcopy(run.model.state_dict())
    report = run.step()
    assert report.skipped and not math.isfinite(report.loss)
    after = run.model.state_dict()
    for name in before:
        torch.testing.assert_close(after[name], broken[name], equal_nan=True)
    with pytest.raises(InputError, match=r"diverged: no finite gradient .*lower --lr 0.0015"):
        for _ in range(30):
            run.step()


def test_weight_average():
    model = HyenaDNA(SMALL)
    average = WeightAverage(dict(model.named_parameters()), 0.5)
    start = {k: v.clone() for k, v in average.weights.items()}
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    for _ in range(60):
        average.update()
    for name, p in model.named_parameters():
        torch.testing.assert_close(average.weights[name], p.detach(), atol=1e-4, rtol=1e-4)
        assert not torch.equal(average.weights[name], start[name])
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    raw = copy.deepcopy(model.state_dict())
    average.swap()
    average.swap()
    assert all(torch.equal(v, raw[k]) for k, v in model.state_dict().items())


def test_pretrain_evaluates_and_yields():
    run = trainer(lr=1e-2, evaluate_every=10, ema=0.8)
    inputs, targets = Repeats().batch(4, 16)
    reports = list(pretrain(run, {"toy": lambda: [(inputs, targets)]}))
    evaluations = [r for r in reports if isinstance(r, EvaluationReport)]
    assert [e.step for e in evaluations] == [10, 20, 30, 40]
    assert evaluations[-1].bits_per_base < 0.5 < evaluations[0].bits_per_base
    assert evaluations[0].best and evaluations[0].by_genome.keys() == {"toy"}
    assert run.model.training


def test_mean_nats_weighs_every_target_once():
    model = HyenaDNA(SMALL).eval()
    inputs, targets = Repeats().batch(4, 16)
    each = target_nats(model, inputs, targets)
    assert (each[targets == IGNORED] == 0).all()
    mean, count = mean_nats(model, [(inputs[:3], targets[:3]), (inputs[3:], targets[3:])])
    assert count == int((targets != IGNORED).sum())
    assert mean == pytest.approx(float(each.detach().sum()) / count, rel=1e-5)
    assert math.isnan(mean_nats(model, [])[0])


def test_an_estimate_leaves_everything_as_it_was():
    one, other = trainer(), trainer()
    assert estimate(other) > 0 and peak_bytes(other) > 16 * SMALL.num_parameters()
    assert one.step().loss == other.step().loss
    for p, q in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(p, q)


def test_memory_of_a_run_is_that_of_the_model_that_runs():
    """The engine's plan where it runs, else the plain count, which is several times as much."""
    options = {"tokens_per_step": 1 << 16, "steps": 4}
    engine = trainer(**options)
    plain = trainer(**options, precision="fp16")
    assert runs_engine(engine) and not runs_engine(plain)
    pages.give_back_heap()  # a plan of the engine does: what it then finds is what is read here
    process = resident_bytes()
    wanted = training_bytes(SMALL, tokens=1 << 16, precision="fp16", engine=False) + FIRST_USE
    assert peak_bytes(plain) - process == pytest.approx(wanted, rel=0.2)
    inside = peak_bytes(engine) - process
    plan = engine.model.pass_memory(4096, 16, training=True) - process
    assert inside == pytest.approx(plan + 8 * SMALL.num_parameters(), rel=0.2)
    # one more copy of the weights is there already, and moments only from the first step on
    before = peak_bytes(engine) - resident_bytes()
    engine.step()
    moments = before - (peak_bytes(engine) - resident_bytes())
    assert moments == pytest.approx(8 * SMALL.num_parameters(), abs=1 << 20)


def test_moments_take_their_part_of_a_budget(monkeypatch):
    run = trainer()
    monkeypatch.setattr("hyenadna.model.engine.run.resident_bytes", lambda: 0)
    moments = 8 * SMALL.num_parameters()

    def fits(budget: int) -> bool:
        run.model.set_engine(max_memory=budget)
        try:
            require_memory(run)
        except InputError as error:
            assert "max_memory is" in str(error)
            return False
        finally:
            assert run.model.backbone.engine.max_memory == budget
        return True

    def least() -> int:
        low, high = 1, 1 << 30
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(middle) else (middle + 1, high)
        return low

    before = least()
    run.step()
    assert before - least() == moments and runs_engine(run)


def test_memory_grows_with_tokens_and_falls_with_checkpointing():
    deep = SMALL.replace(n_layer=8)
    plain = training_bytes(deep, tokens=4096, engine=False)
    assert training_bytes(deep, tokens=8192, engine=False) > 1.8 * plain
    assert training_bytes(deep, tokens=4096, engine=False, checkpointing=True) < 0.5 * plain
    assert inference_bytes(deep, tokens=4096, engine=False) < 0.3 * plain
    # the engine keeps the inputs of blocks only
    assert training_bytes(deep, tokens=4096) < 0.5 * plain


def test_rescaled_filters_have_shape_from_the_start():
    torch.manual_seed(0)
    model = HyenaDNA(SMALL.replace(max_seq_len=514))
    flat = model.backbone.layers[0].mixer.filter_fn(512).detach()
    rescale_filters(model)
    shaped = model.backbone.layers[0].mixer.filter_fn(512).detach()
    assert shaped.std() > 20 * flat.std()


@pytest.mark.parametrize("name", PRESETS)
def test_every_stage_has_about_the_same_tokens_per_step(name):
    run = trainer(tokens_per_step=8192, stages="double")
    length = preset(name).max_seq_len - 2
    run.stages = run.config.length_stages(length)
    expected = max(8192, length)
    for stage in run.stages:
        tokens = run.batch_size(stage.length) * stage.length
        assert abs(tokens - expected) <= stage.length / 2
    total = sum(s.steps * s.length * run.batch_size(s.length) for s in run.stages)
    assert run.tokens_after(0) == total and run.tokens_after(run.config.steps) == 0


def test_a_batch_without_targets_is_left_out():
    run = trainer()
    before = copy.deepcopy(run.model.state_dict())
    inputs, targets = Repeats().batch(8, 16)
    run.stream.batch = lambda size, length, **ranks: (inputs, torch.full_like(targets, IGNORED))
    report = run.step()
    assert report.skipped and math.isnan(report.loss) and run.steps_done == 1
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_curve_of_a_run_with_a_skipped_step(tmp_path):
    step = {"loss": 1.3, "bits_per_base": 1.9, "tokens": 100, "step": 1, "length": 8}
    skipped = step | {"loss": None, "bits_per_base": None, "step": 2, "skipped": True}
    later = step | {"step": 3, "tokens": 300, "length": 16}
    training_curve([skipped, step, skipped, later, {"step": 3, "valid": 1.8}], tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"
    training_curve([skipped], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
