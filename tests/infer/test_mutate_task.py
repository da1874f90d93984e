"""Changes of a fine-tuned model's output: equal to one whole pass for each mutant."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hyenadna.alphabet import encode
from hyenadna.config import ModelConfig
from hyenadna.data.labelled_data import Task
from hyenadna.errors import InputError
from hyenadna.infer.mutate_task import choose_output, mutate_task, mutate_task_whole, task_tokens
from hyenadna.infer.predict import predict
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.heads import TaskModel

TASKS = {
    "classes": Task("classes", ("a", "b", "c")),
    "two": Task("classes", ("no", "yes")),
    "labels": Task("labels", ("x", "y")),
    "values": Task("values", ("y",)),
}


def make_model(task="two", dtype=torch.float64, **options) -> TaskModel:
    torch.manual_seed(0)
    model = HyenaDNA(ModelConfig(d_model=8, n_layer=2, max_seq_len=40, filter_order=8))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    task_model = TaskModel(model.to(dtype), TASKS[task], **options).eval()
    torch.nn.init.normal_(task_model.head.weight)
    if task_model.attention is not None:
        torch.nn.init.normal_(task_model.attention.query, std=2.0)
    return task_model


IDS = np.random.default_rng(0).integers(7, 12, 17).astype(np.uint8)


def assert_same(got, want, tolerance) -> None:
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


@pytest.mark.parametrize("pooling", ["mean", "last", "first", "sum", "attention"])
@pytest.mark.parametrize("strands", ["forward", "average", "concatenate"])
def test_equals_a_whole_pass_for_each_mutant(pooling, strands):
    model = make_model(pooling=pooling, strands=strands)
    want = mutate_task_whole(model, IDS)
    assert_same(mutate_task(model, IDS, block=5, row_tokens=60), want, 1e-9)
    part = mutate_task(model, IDS, first=6, last=15, block=16)
    assert_same(part[:3], [values[6:15] for values in want[:3]], 1e-9)


@pytest.mark.parametrize("task, output", [("classes", "b"), ("labels", "x"), ("values", None)])
def test_outputs_are_those_of_predict(task, output):
    model = make_model(task, dtype=torch.float32)
    found = mutate_task(model, IDS, output=output)
    chosen = choose_output(model, output)
    reference = next(predict(model, [IDS]))[chosen]
    assert found.reference == pytest.approx(reference, abs=1e-5)
    mutant = IDS.copy()
    position = int(np.flatnonzero(IDS == 7)[1])
    mutant[position] = 9
    said = next(predict(model, [mutant]))[chosen]
    assert found.output[position, 2] == pytest.approx(said, abs=1e-5)
    if task == "values":
        assert found.score[position, 2] == pytest.approx(said - reference, abs=1e-5)
    else:
        change = np.log(said / (1 - said)) - np.log(reference / (1 - reference))
        assert found.score[position, 2] == pytest.approx(change, abs=1e-4)
    assert np.isnan(found.score[IDS == 11]).all() and np.isnan(found.output[position, 0])


def test_the_work_is_known_before():
    model, told = make_model(strands="average"), []
    ids = encode("ACGTT" * 4)
    mutate_task(model, ids, first=3, last=19, progress=told.append)
    assert sum(told) == task_tokens(model, 20, 3, 19)


def test_refuses():
    assert choose_output(make_model(), None) == 1
    with pytest.raises(InputError, match="'a', 'b', 'c'; choose one with --output"):
        mutate_task(make_model("classes"), IDS)
    with pytest.raises(InputError, match="no output 'z'"):
        mutate_task(make_model(), IDS, output="z")
    with pytest.raises(InputError, match="41 tokens; this model reads 1 to 40"):
        mutate_task(make_model(), np.full(41, 7, np.uint8))
    with pytest.raises(InputError, match=r"5 \.\. 5"):
        mutate_task(make_model(), IDS, first=5, last=5)
