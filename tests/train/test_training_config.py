"""Options of a run: stages, ranges, messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyenadna.errors import InputError
from hyenadna.training_config import PretrainConfig, Stage


def test_doubling_stages():
    config = PretrainConfig(steps=100, warmup_length=128, warmup_share=0.3)
    assert config.length_stages(1024) == [
        Stage(128, 10), Stage(256, 10), Stage(512, 10), Stage(1024, 70),
    ]  # fmt: skip
    assert config.length_stages(100) == [Stage(100, 100)]
    assert PretrainConfig(steps=100, stages="none").length_stages(1024) == [Stage(1024, 100)]


def test_stages_by_hand():
    config = PretrainConfig(steps=50, stages="32:5, 64:10")
    assert config.length_stages(128) == [Stage(32, 5), Stage(64, 10), Stage(128, 35)]
    assert PretrainConfig(steps=15, stages="32:5,64:10").length_stages(64)[-1] == Stage(64, 10)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("32", "cannot read '32'"),
        ("a:b", "cannot read 'a:b'"),
        ("32:60", "more steps than --steps 50"),
        ("300:5", "outside lengths 1 to 128"),
        ("32:0", "steps from 1"),
    ],
)
def test_bad_stages(stages, message):
    with pytest.raises(InputError, match=message):
        PretrainConfig(steps=50, stages=stages).length_stages(128)


@given(
    steps=st.integers(1, 5000),
    length=st.integers(1, 100_000),
    first=st.integers(1, 2000),
    share=st.floats(0, 0.99),
)
def test_stages_always_add_up_and_grow(steps, length, first, share):
    config = PretrainConfig(steps=steps, warmup_length=first, warmup_share=share)
    stages = config.length_stages(length)
    assert sum(stage.steps for stage in stages) == steps
    lengths = [stage.length for stage in stages]
    assert lengths == sorted(lengths) and lengths[-1] == length


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("steps", 0, "--steps is 0; it must be at least 1"),
        ("lr", -1.0, "--lr is -1.0; it must be positive"),
        ("final_lr", 2.0, "--final-lr is 2.0"),
        ("ema", 1.0, "--ema is 1.0"),
        ("beta2", 1.0, "--beta2 is 1.0"),
        ("precision", "int8", "--precision is int8; it is one of float32, bf16, fp16"),
        ("warmup_steps", 3000, "between 0 and --steps 2000"),
    ],
)
def test_ranges(field, value, message):
    with pytest.raises(InputError, match=message):
        PretrainConfig(**{field: value})


def test_learning_rate_warm_up():
    steps = {12_000: 240, 1200: 24, 300: 20, 40: 8, 1: 0.2}
    for total, warmup in steps.items():
        assert PretrainConfig(steps=total).lr_warmup_steps() == pytest.approx(warmup)
    assert PretrainConfig(steps=300, schedule="paper").lr_warmup_steps() == 3
    assert PretrainConfig(steps=300, warmup_steps=7).lr_warmup_steps() == 7


def test_dictionary_round_trip():
    config = PretrainConfig(steps=7, ema=0.9, stages="32:5")
    assert PretrainConfig.from_dict(config.to_dict() | {"of a later version": 1}) == config
