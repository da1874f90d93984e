"""The original's algorithm is the same function; the pieces of the long-context benchmark run."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from benchmarks.long_context import __main__ as command
from benchmarks.long_context import launch, worker
from benchmarks.long_context.competitors import (
    build,
    mean_nats,
    published_weights,
    random_model,
    random_tokens,
)
from benchmarks.long_context.jobs import (
    NAMES,
    Job,
    full_plan,
    guessed_seconds,
    original_million,
    quick_plan,
    rounds_for,
    train_million,
)
from benchmarks.long_context.kernel_times import kernel_times, kernel_work
from benchmarks.long_context.limits import forward_work, machine_limits
from benchmarks.long_context.original import Original
from benchmarks.long_context.parts import OUTSIDE, part_of, profile_parts
from benchmarks.long_context.summary import crossover, exponent, extrapolate, rows
from benchmarks.long_context.worker import race
from benchmarks.measurements import Record, append, finished, newest, read, this_host
from benchmarks.processes import resident_bytes

from benchmarks import processes
from hyenadna.config import ModelConfig, preset
from hyenadna.errors import InputError
from hyenadna.native import library, why_not

SMALL = ModelConfig(d_model=16, n_layer=2, max_seq_len=80, filter_order=16, embed_dropout=0.0)
TINY = Job(part="lengths", task="forward", shape="tiny-1k", length=128, competitors=("original",))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("length", [1, 2, 37, 80])
@pytest.mark.parametrize(
    "config", [SMALL, SMALL.replace(hyena_order=3), SMALL.replace(tie_word_embeddings=False)]
)
def test_original_has_our_logits_and_gradients(config, length):
    model = random_model(config).double().train()
    for parameter in model.parameters():  # large, so that every part matters
        torch.nn.init.normal_(parameter, std=0.3)
    model.set_engine(kernels="plain")
    original = Original(model)
    tokens = random_tokens(2, length + 1)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    gradients = []
    logits = []
    for module in (model, original):
        model.zero_grad(set_to_none=True)
        logits.append(module(inputs))
        mean_nats(logits[-1], targets).backward()
        gradients.append({k: p.grad.clone() for k, p in model.named_parameters()})
    torch.testing.assert_close(*logits, atol=1e-9, rtol=1e-9)
    assert gradients[0].keys() == dict(original.model.named_parameters()).keys()
    for name, ours in gradients[0].items():
        torch.testing.assert_close(ours, gradients[1][name], atol=1e-9, rtol=1e-9, msg=name)
    assert all(p is q for p, q in zip(original.parameters(), model.parameters(), strict=True))


def test_original_refuses_what_it_does_not_compute():
    for config in (SMALL.replace(mixer="attention"), SMALL.replace(resid_dropout=0.1)):
        with pytest.raises(InputError, match="takes 'hyena' without these two"):
            Original(random_model(config))


@pytest.mark.parametrize("task", ["forward", "loss", "step"])
def test_competitors_race_and_agree(task, monkeypatch):
    monkeypatch.setattr(worker, "SAMPLE_SECONDS", 1e-3)
    names = ("original", "torch", "plain", "torch+bf16")
    job = dataclasses.replace(TINY, task=task, competitors=names)
    result = json.loads(json.dumps(race(job)))["competitors"]
    assert list(result) == list(names)
    for name in names:
        assert len(result[name]["seconds"]) >= 3 and min(result[name]["seconds"]) > 0
        assert "peak" not in result[name]
    assert result["original"]["difference"] == 0
    assert result["torch"]["difference"] < 1e-4 and result["plain"]["difference"] < 1e-4
    assert result["torch+bf16"]["difference"] < 0.1
    if task == "forward":
        assert result["torch+bf16"]["difference"] > 1e-4  # it is bf16


def test_the_twin_has_its_own_function_and_memory_needs_a_process_of_its_own():
    job = dataclasses.replace(TINY, competitors=("attention",), once=True)
    result = race(job)
    (row,) = result["competitors"].values()
    assert len(row["seconds"]) == 1 and "difference" not in row
    assert row["peak"] >= result["imports"] > 10 * 2**20
    assert resident_bytes("VmHWM") >= resident_bytes("VmRSS")


def test_weights_of_multimolecule_are_ours():
    model = random_model(SMALL)
    names = [
        "model.embeddings.word_embeddings.weight",
        "model.layers.1.mixer.filter_fn.implicit_filter.3.freq",
        "model.final_layer_norm.bias",
        "lm_head.weight",
    ]
    weights = published_weights(model, names)
    assert list(weights) == names
    torch.testing.assert_close(weights["lm_head.weight"], model.head_weight.detach())
    filter_fn = model.backbone.layers[1].mixer.filter_fn
    torch.testing.assert_close(weights[names[1]], filter_fn.implicit_filter[1].freq.detach())


@pytest.mark.skipif(
    not (launch.MULTIMOLECULE / ".ready").exists(),
    reason="the benchmark has not made the environment of multimolecule",
)
@pytest.mark.slow
def test_multimolecule_agrees_with_the_original():
    job = dataclasses.replace(TINY, competitors=("original", "multimolecule"))
    result = launch.run_job(job, 1)
    assert result["competitors"]["multimolecule"]["difference"] < 1e-4


def test_a_job_runs_in_a_process_of_its_own_with_its_settings():
    job = dataclasses.replace(TINY, memory="kept", waiting="PASSIVE", once=True)
    result = launch.run_job(job, 1)
    peak = result["competitors"]["original"]["peak"]
    assert peak > result["imports"] > 50 * 2**20
    environment = processes.environment(3, job.waiting)
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE" and environment["OMP_NUM_THREADS"] == "3"


def test_the_environment_of_a_job_is_its_own(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert "OMP_WAIT_POLICY" not in processes.environment(1, TINY.waiting)


def test_a_failed_job_is_one_line_and_the_neighbour_ends(monkeypatch):
    broken = dataclasses.replace(TINY, shape="no-such-shape", once=True)
    monkeypatch.setattr(launch, "guessed_seconds", lambda job: 1.0)
    error = launch.run_job(broken, 1)["error"]
    assert "no preset 'no-such-shape'" in error and "\n" not in error
    monkeypatch.setattr(processes, "PATIENCE", -120.0)
    assert launch.run_job(TINY, 1)["error"].startswith("stopped after")
    with launch.busy_neighbour() as process:
        assert process.poll() is None
    assert process.returncode is not None
    assert processes.signal_name(9) == "SIGKILL (out of memory?)"
    assert processes.signal_name(11) == "SIGSEGV"


def test_plans_are_whole():
    for plan in (quick_plan(), full_plan()):
        assert len({job.key() for job in plan}) == len(plan)
        for job in plan:
            assert Job.from_dict(json.loads(json.dumps(job.to_dict()))) == job
            assert set(job.competitors) <= set(NAMES) and guessed_seconds(job) > 0
            if job.shape:
                assert job.length <= preset(job.shape).max_seq_len
    assert {job.shape for job in full_plan() if job.task == "forward"} >= {
        "tiny-1k", "tiny-1k-d256", "tiny-16k-d128", "small-32k", "medium-160k", "medium-450k",
        "large-1m",
    }  # fmt: skip
    assert original_million()[0].length == train_million(["native"])[0].length == 999_999
    assert rounds_for(1e-4) == 15 and rounds_for(8) == 3 and rounds_for(50) == 2


def test_limits_and_the_work_of_a_forward_pass():
    limits = machine_limits(seconds=0.002, scale=64)
    assert limits["float32"]["rate"] > 1e6 and limits["copy"] > 1e6
    assert all(rate > 1e5 for rate in limits["fft"].values())
    config = preset("small-32k")
    work = forward_work(config, 1000)
    dense = 2 * 4 * 1000 * 12 * 256 * 256
    assert dense < work.products < 1.05 * dense
    assert work.transforms == pytest.approx(4 * 256 * 3 * 2.5 * 2000 * math.log2(2000))
    assert forward_work(config.replace(mixer="attention"), 1000).transforms == 0


def test_parts_of_a_forward_pass():
    profile = profile_parts(dataclasses.replace(TINY, task="parts"), "original")
    assert {"matrix products", "FFT", "Conv1d", "GELU", "norms", OUTSIDE} <= set(profile["parts"])
    assert sum(profile["parts"].values()) == pytest.approx(profile["seconds"], rel=0.5)
    assert part_of("aten::_fft_r2c") == "FFT" and part_of("Function") == OUTSIDE


@pytest.mark.skipif(library() is None, reason=f"no native kernels: {why_not()}")
def test_every_native_kernel_of_a_step_is_timed_and_its_work_counted():
    config = preset("tiny-1k").replace(embed_dropout=0.0)
    times = kernel_times(TINY, build("native", config), config)
    assert set(times) == set(kernel_work(config, 1, 128))
    assert all(found["seconds"] > 0 for found in times.values())
    # T (3 D^2 + 5 D I) multiply-adds in each of two layers
    assert times["finish_backward"]["products"] == 2 * 2 * 128 * (3 * 128**2 + 5 * 128 * 512)


def test_growth_crossover_and_extrapolation():
    square = [(n, 1e-8 * n**2) for n in (100, 1000, 10000)]
    line = [(n, 1e-5 * n) for n in (100, 1000, 10000)]
    assert exponent(square) == pytest.approx(2) and exponent(line) == pytest.approx(1)
    assert extrapolate(square, 10**6) == pytest.approx(1e4)
    assert crossover(square, line) == pytest.approx(1000)
    assert crossover(line, line[:2]) is None


def synthetic(job: Job, name: str, seconds: float, **more: object) -> Record:
    values = {"first": seconds, "seconds": [seconds], "sample": [1.0], **more}
    result = {"competitors": {name: values}, "imports": 2**28}
    return Record(job=job, host=this_host(1), result=result, seconds=1.0)


def test_paired_calls_come_before_calls_of_their_own():
    alone = dataclasses.replace(TINY, part="memory", once=True)
    pair = dataclasses.replace(TINY, competitors=("original", "native"))
    both = {"first": 9.0, "sample": [1.0], "difference": 0.0, "rms": 0.0}
    raced = Record(
        job=pair, host=this_host(1), seconds=1.0,
        result={"imports": 1, "competitors": {
            "original": both | {"seconds": [6.0, 8.0, 100.0]},
            "native": both | {"seconds": [2.0, 1.0, 3.0], "sample": [1.5]},
        }},
    )  # fmt: skip
    (row,) = rows([synthetic(alone, "original", 5.0, peak=7), raced])
    assert row.time("original") == 8.0 and row.time("native") == 2.0
    assert row.ratio("native") == 4.0 and row.paired("native")
    assert row.peak == {"original": 7}
    slow = synthetic(alone, "original", 5.0)
    fast = synthetic(dataclasses.replace(alone, competitors=("torch",)), "torch", 2.0, sample=[1.1])
    (row,) = rows([slow, fast])
    assert row.ratio("torch") == 2.5 and not row.paired("torch")
    assert row.deviation("torch") == pytest.approx(0.1)


def test_the_file_of_measurements_survives_a_kill_and_knows_what_is_done(tmp_path):
    path = tmp_path / "results" / "file.jsonl"
    failed = Record(job=TINY, host=this_host(1), result={"error": "no"}, seconds=1.0)
    append(failed, path)
    assert finished(read(path, Job.from_dict), this_host(1)) == set()
    path.write_text(path.read_text() + '{"job": {"pa')
    done = synthetic(TINY, "original", 1.0)
    append(done, path)
    assert read(path, Job.from_dict) == [failed, done]
    assert newest(read(path, Job.from_dict)) == [done]
    assert finished(read(path, Job.from_dict), this_host(1)) == {TINY.key()}
    assert finished(read(path, Job.from_dict), this_host(2)) == set()
    path.write_text('{"other": 1}\n')
    with pytest.raises(InputError, match=r"file.jsonl:1: not a measurement"):
        read(path, Job.from_dict)


def test_the_command_measures_resumes_and_writes_the_page(tmp_path, monkeypatch, capsys):
    plan = [
        *(dataclasses.replace(TINY, shape="large-1m", part="growth", length=n,
                              competitors=("original", "native", "torch", "attention"))
          for n in (128, 256, 512)),
        dataclasses.replace(TINY, shape="large-1m", part="long", length=999_999, once=True),
        dataclasses.replace(TINY, part="neighbour", task="step", length=1024, batch=16),
        dataclasses.replace(TINY, part="neighbour", task="step", length=1024, batch=16,
                            neighbour=True),
        dataclasses.replace(TINY, part="headline", shape="small-32k", length=1024),
        dataclasses.replace(TINY, part="training", task="step", once=True),
        Job(part="limits", task="limits"),
        dataclasses.replace(TINY, part="parts", task="parts"),
        dataclasses.replace(TINY, part="multimolecule", competitors=("multimolecule",)),
    ]  # fmt: skip
    asked = []

    def run_job(job: Job, threads: int) -> dict[str, object]:
        asked.append(job)
        if job.task == "limits":
            return machine_limits(seconds=0.002, scale=64)
        if job.task == "parts":
            return {"competitors": {"original": profile_parts(job, "original")}}
        if job.part == "multimolecule":
            return {"error": "multimolecule cannot be installed: no network"}
        speed = {"original": 3.0, "attention": job.length / 300, "torch": 1.5}
        values = {"sample": [1.0], "difference": 0.0, "rms": 0.0, "peak": 2**30}
        each = {
            n: values | {"first": s, "seconds": [s]}
            for n in job.competitors
            for s in [1e-5 * job.length * speed.get(n, 1.0)]
        }
        return {"competitors": each, "imports": 2**28}

    monkeypatch.setattr(command, "run_job", run_job)
    monkeypatch.setattr(command.plans, "quick_plan", lambda: plan)
    page, results = tmp_path / "docs" / "page.md", tmp_path / "results.jsonl"
    words = ["--results", str(results), "--page", str(page), "--threads", "1"]
    assert command.main([*words, "--report"]) == 2
    assert "no measurement yet" in capsys.readouterr().err
    assert command.main([*words, "--only", "nothing"]) == 2
    assert "--only nothing: the plan has growth, headline" in capsys.readouterr().err
    assert command.main([*words, "--minutes", "1e-9"]) == 2 and not asked
    assert command.main(words) == 0 and asked == plan
    assert command.main([*words, "--list"]) == 0
    assert "1 measurements" in capsys.readouterr().out  # the failed one
    assert command.main(words) == 0 and len(asked) == len(plan) + 1
    text = page.read_text()
    for expected in (
        "# The long-context benchmark",
        "| forward | large-1m | 999,999 | given back, default | original's algorithm | 30.0 s |",
        "faster than the twin from about 300 tokens on",
        "| given back, default | original's algorithm | 30.7 ms |  | 30.7 ms |  | 1.0 |",
        "| forward, first call | small-32k | 1 × 1,024 | given back, default | 30.7 ms |",
        "| forward | ours, native | 0.0e+00 | 0.0e+00 | large-1m, 512 |",
        "multimolecule cannot be installed: no network", "matrix products, float32",
    ):  # fmt: skip
        assert expected in text
    picture = page.with_name("page.forward.png")
    assert picture.read_bytes()[:4] == b"\x89PNG" and f"]({picture.name})" in text
    assert not list(tmp_path.rglob("*.part*"))


def test_the_same_weights_for_every_competitor():
    first, second = (build(name, SMALL).module.state_dict() for name in ("plain", "torch"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k], second[k]) for k in first)
