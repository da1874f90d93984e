"""A plan's arithmetic: parameters, operations and bytes against real models, laws, refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from hyenadna.config import PRESETS, ModelConfig, preset
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.likelihood import target_nats
from hyenadna.model.planning.clock import step_time
from hyenadna.model.planning.devices import DEVICES, device
from hyenadna.model.planning.forecast import forecast, smallest_change
from hyenadna.model.planning.parts import memory
from hyenadna.model.planning.setup import Setup
from hyenadna.model.planning.traffic import exchange_bytes, traffic
from hyenadna.model.planning.work import fft_operations, transform_counts, work

LARGE = preset("large-1m")
SMALL = ModelConfig(d_model=32, n_layer=2, max_seq_len=258, filter_order=16, num_heads=4)


def counted_products(setup: Setup) -> float:
    """Operations of matrix products in a real step."""
    model = HyenaDNA(setup.config).train()
    model.set_engine("plain")
    model.set_checkpointing(mixer=setup.checkpointing, mlp=setup.checkpointing)
    rows = torch.randint(7, 11, (setup.batch, setup.length))
    with FlopCounterMode(display=False) as counter:
        target_nats(model, rows, rows).sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    "config", [SMALL, SMALL.replace(hyena_order=3), SMALL.replace(d_inner=48, num_inner_mlps=1)]
)
def test_products_are_those_of_a_real_step(config, checkpointing):
    setup = Setup(config=config, length=256, batch=2, checkpointing=checkpointing, plain=True)
    # the features of lags need no gradient: one product less of the filter network's first layer
    features = 2 * 256 * config.emb_dim * config.filter_order * config.n_layer
    assert work(setup).products - features == counted_products(setup)


def test_attention_counts_the_causal_half():
    setup = Setup(config=SMALL.replace(mixer="attention"), length=256, batch=2)
    scores = SMALL.n_layer * setup.batch * 2 * 256 * 256 * SMALL.d_model
    # torch counts none of them on a CPU
    assert work(setup).products - 3 * scores == counted_products(setup)


class CountedTransforms(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts real transforms by operations."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if "fft_r2c" in str(func) or "fft_c2r" in str(func):
            real = args[0] if "r2c" in str(func) else out
            self.operations += real.numel() / real.shape[-1] * fft_operations(real.shape[-1])
        return out


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("order", [2, 3])
def test_transforms_are_those_of_a_real_step(order, checkpointing):
    config = SMALL.replace(hyena_order=order)
    setup = Setup(config=config, length=256, batch=3, checkpointing=checkpointing, plain=True)
    model = HyenaDNA(config).train()
    model.set_engine("plain")
    model.set_checkpointing(mixer=checkpointing, mlp=checkpointing)
    rows = torch.randint(7, 11, (3, 256))
    with CountedTransforms() as counted:
        target_nats(model, rows, rows).sum().backward()
    assert work(setup).transforms == pytest.approx(counted.operations)
    assert sum(transform_counts(setup)) == 3 * 5 + 3 + checkpointing * (3 * 2 + 1)


@pytest.mark.parametrize("name", PRESETS)
def test_weights_are_those_of_the_model(name):
    config = PRESETS[name]
    with torch.device("meta"):
        model = HyenaDNA.__new__(HyenaDNA)
        HyenaDNA.__init__(model, config.replace(max_seq_len=66))
    numbers = sum(p.numel() for p in model.parameters())
    found = memory(Setup(config=config, length=1000))
    assert found.weights == found.gradients == 4 * numbers and found.moments == 8 * numbers


def test_sums_of_gradients_and_gathering_follow_the_weights():
    alone = Setup(config=LARGE, length=4096, batch=8, at_once=1)
    assert vars(traffic(alone)) == dict.fromkeys(vars(traffic(alone)), 0)
    weights = 4 * LARGE.num_parameters()
    together = alone.change(ranks=4)
    assert traffic(together).gradients == 2 * weights * 3 / 4 and not traffic(together).parameters
    parts = traffic(together.change(fsdp=True))
    assert parts.gradients == weights * 3 / 4
    assert parts.parameters == 2 * 2 * weights * 3 / 4  # two passes, forward and backward


def test_exchanges_do_not_fall_with_the_batch_but_with_the_ranks():
    one = Setup(config=LARGE, length=2**18, ranks=2, context=2)
    assert exchange_bytes(one) == 4 * 3 * 8 * 3 * 256 * 2**17
    four = one.change(ranks=4, context=4)
    assert exchange_bytes(four) == exchange_bytes(one) / 2
    assert traffic(four).exchanges == exchange_bytes(four) * 3 / 4
    assert exchange_bytes(one.change(task="infer")) == exchange_bytes(one) / 3


shapes = st.builds(
    lambda width, layers, order, mixer: ModelConfig(
        d_model=32 * width, n_layer=layers, max_seq_len=2**20, hyena_order=order, mixer=mixer
    ),
    st.integers(1, 8), st.integers(1, 8), st.integers(2, 3),
    st.sampled_from(["hyena", "attention"]),
)  # fmt: skip
setups = st.builds(
    lambda config, length, batch, precision, gpu, task, checkpointing: Setup(
        config=config, length=length, batch=batch, precision=precision, gpu=gpu, task=task,
        checkpointing=checkpointing,
    ),
    shapes, st.integers(512, 2**20), st.integers(1, 16), st.sampled_from(["float32", "bf16"]),
    st.booleans(), st.sampled_from(["train", "infer"]), st.booleans(),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(setups, st.sampled_from([2, 4, 8]))
def test_memory_never_grows_by_what_is_to_cut_it(setup, ranks):
    total = memory(setup).total
    assert total > 0 and min(vars(memory(setup)).values()) >= 0
    assert memory(setup.change(at_once=1)).total <= total
    # By half, for channels are transformed in whole numbers, and of slightly shorter ones one more
    # fits. No law for the engine: how many it takes depends on what its transforms' lengths allow.
    if not setup.engine:
        assert memory(setup.change(length=setup.length // 2)).total <= total
    together = setup.change(ranks=ranks)
    parts = memory(together.change(fsdp=True))
    assert parts.weights + parts.moments < memory(together).weights + memory(together).moments or (
        setup.task == "infer" and parts.weights < memory(together).weights
    )
    if setup.config.mixer == "hyena":
        rows = setup.batch
        several = [memory(setup.change(batch=rows, ranks=r, context=r)).kept for r in (2, 4, 8, 16)]
        assert several == sorted(several, reverse=True)


@settings(max_examples=60, deadline=None)
@given(setups, st.sampled_from([2, 4, 8]))
def test_work_is_shared_and_grows_with_the_task(setup, ranks):
    whole = work(setup)
    assert whole.products > 0 and whole.traffic > 0
    assert whole.again <= whole.products / 2
    shared = work(setup.change(ranks=ranks))
    assert shared.products <= whole.products
    assert shared.products * ranks >= whole.products * 0.999
    if setup.training:
        assert work(setup.change(task="infer")).products < whole.products / 2.5
    for one in DEVICES.values():
        told = traffic(setup)
        fast = replace(one, bandwidth=2 * one.bandwidth)
        on_gpu = setup.change(gpu=True)
        time = step_time(on_gpu, one, whole, told)
        assert step_time(on_gpu, fast, whole, told).total <= time.total * (1 + 1e-9)
        assert time.total > 0 and time.bound


def test_memory_falls_with_checkpointing_and_context():
    setup = Setup(config=LARGE, length=10**6, precision="bf16", plain=True)
    again = memory(setup.change(checkpointing=True)).total
    assert again < 0.3 * memory(setup).total
    assert memory(setup.change(plain=False)).total < again
    totals = [memory(setup.change(ranks=r, context=r)).total for r in (2, 4, 8, 16)]
    assert totals == sorted(totals, reverse=True) and totals[0] < again


def test_the_change_that_makes_it_fit_is_the_smallest():
    on = device("h100")
    found = forecast(Setup(config=LARGE, length=10**6, precision="bf16", plain=True), on)
    assert not found.fits
    change = smallest_change(found)
    assert change is not None and change.flags == "--gradient-checkpointing" and change.outlook.fits
    again = Setup(config=LARGE, length=10**6, batch=4, precision="bf16", checkpointing=True)
    for plain in (True, False):  # through the engine 2 fit too, with or without checkpointing
        assert smallest_change(forecast(again.change(plain=plain), on)).flags == "--at-once 2"
    wide = LARGE.replace(d_model=2048, n_layer=26)
    eight = Setup(config=wide, length=10**6, ranks=8, context=8, fsdp=True, precision="bf16")
    assert smallest_change(forecast(eight, on)).flags == "--ranks 16 --context-ranks 16"


def test_price_and_days():
    found = forecast(Setup(config=LARGE, length=10**6, ranks=8, context=8), device("h100"))
    bases = found.tokens_per_second * 86400 * 2
    assert found.days(bases) == pytest.approx(2)
    assert found.price(bases, 1.5) == pytest.approx(2 * 24 * 8 * 1.5)
    assert found.price(bases) == pytest.approx(2 * 24 * 8 * 3.0)
    assert found.to_dict()["seconds"]["total"] == found.time.total


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"context": 3, "ranks": 4}, "--context-ranks is 3 of 4 ranks; it must divide them"),
        ({"context": 3, "ranks": 3}, "256 channels over 3 ranks"),
        ({"fsdp": True}, "--fsdp needs several ranks"),
        ({"fsdp": True, "ranks": 2, "precision": "fp16"}, "take bf16"),
        ({"length": 2_000_000}, "the model reads at most 1000002"),
        ({"length": 0}, "--length is 0; it must be at least 1"),
        ({"batch": 0}, "--batch is 0"),
        ({"ranks": 256, "context": 256, "length": 250}, "reaches 2 back"),
        ({"config": LARGE.replace(mixer="attention"), "ranks": 2, "context": 2}, "has attention"),
        ({"precision": "fp8"}, "there are float32, bf16, fp16"),
    ],
)
def test_refusals_are_those_of_pretrain(fields, told):
    with pytest.raises(InputError, match=told):
        Setup(**({"config": LARGE, "length": 1000} | fields))


def test_unknown_device():
    with pytest.raises(InputError, match="cpu, h100, h200, a100"):
        device("b200")
