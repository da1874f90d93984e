"""The benchmark of the GPU runs at toy sizes, loses nothing, and its page invents nothing."""

from __future__ import annotations

import dataclasses
import functools
import gc
import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import convolution, race, roofline, suite, warm, worker
from benchmarks.gpu.accuracy import Truth, errors, require_right
from benchmarks.gpu.contestants import TOY, build, config_of, tokens_on
from benchmarks.gpu.jobs import FILE, PARTS, Job, full_plan, toy_plan
from benchmarks.gpu.launches import Walk
from benchmarks.gpu.measuring_process import Worker
from benchmarks.gpu.page import NOTHING, SECTIONS, write_page
from benchmarks.gpu.race import Broken, Contestant
from benchmarks.gpu.timing import Clock
from benchmarks.long_context.limits import fft_flops
from benchmarks.measurements import Record, read, this_host

from hyenadna.config import ModelConfig
from hyenadna.errors import InputError

CLOCK = Clock(torch.device("cpu"), hurry=True)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def record(job: Job, result: dict[str, object], device: str = "NVIDIA H200") -> Record[Job]:
    host = this_host(0) | {"device": device, "triton": "3.6.0", "toy": False, "code": "abc"}
    return Record(job=job, host=host, result=json.loads(json.dumps(result)), seconds=1.0)


def toy_jobs() -> Iterator[Job]:
    """One of each kind, without pytest in pytest, and without kernels for a GPU alone."""
    kinds = {(j.part, j.task, j.contestants[-1:]): j for j in reversed(toy_plan())}
    for job in reversed(list(kinds.values())):
        if job.part != "suite":
            own = (n for n in job.contestants if not n.startswith(("triton", "matrix")))
            yield dataclasses.replace(job, contestants=tuple(own))


def test_every_job_runs_at_toy_size_and_the_page_shows_it(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "say", lambda word, value: None)
    jobs = list(toy_jobs())
    assert {job.part for job in jobs} == set(PARTS) - {"suite"}
    records = []
    for job in jobs:
        result = json.loads(json.dumps(worker.measure(job, CLOCK, 30.0, toy=True)))
        rows = result.get("contestants", {})
        assert set(rows) == set(job.contestants)
        for name, row in rows.items():
            if name == "torch+fp16":  # the engine has that on a GPU alone
                assert row == {"error": "torch kernels do not run this: plain would"}
            else:
                assert "error" not in row, f"{job.title()}, {name}: {row['error']}"
                assert min(row["seconds"]) > 0
        records.append(record(job, result, "cpu"))
    path = tmp_path / "gpu.md"
    write_page(records, path)
    text = path.read_text()
    for title, _ in SECTIONS:
        body = text.partition(f"## {title}\n")[2].partition("\n## ")[0]
        untold = title in ("Tests", "How far from the machine's limits")  # no suite, no data sheet
        assert (NOTHING in body) == untold, title
    assert "gpu.losses.png" in text and path.with_suffix(".losses.png").exists()
    assert "gpu.steps.png" in text and path.with_suffix(".steps.png").exists()
    assert not list(tmp_path.rglob("*.part*"))


def test_a_page_without_measurements_has_no_figure(tmp_path):
    path = tmp_path / "gpu.md"
    write_page([], path)
    text = path.read_text()
    assert text.count(NOTHING) == len(SECTIONS) and "|" not in text
    assert "nothing here is measured" in text and not list(tmp_path.glob("*.png"))


def test_a_page_of_one_part_says_what_is_missing(tmp_path):
    step = next(j for j in full_plan() if j.part == "training" and j.length == 1_000_000)
    first, _, third, fourth, fifth = step.contestants
    work = vars(roofline.model_work(config_of("figure-4.1"), 1, 1_000_000))
    rows = {
        first: {"seconds": [0.2, 0.1, 0.3], "peak": 2 << 30},
        third: {"error": "does not fit"},
        fourth: {"seconds": [0.5], "peak": 1},
        fifth: {"seconds": [8.0], "peak": 1, "backend": "flash"},
    }
    path = tmp_path / "gpu.md"
    rates = {"products": {"bf16": 700e12}, "copy": 4e12, "fft": {}, "launch": 2e-6}
    limits = next(j for j in full_plan() if j.part == "limits")
    write_page([record(limits, rates), record(step, {"contestants": rows, "work": work})], path)
    text = path.read_text()
    assert "| 1,000,000 | **200 ms** | 500 ms (2.50×) | 8.00 s (40.0×) | 2.00 GiB |" in text
    assert "plain modules | does not fit" in text
    assert "the fastest attention was flash at 1,000,000" in text
    least = roofline.bound(roofline.Work(**work), roofline.Limits(700e12, 67e12, 4e12))
    assert f"ours, Triton, 200 ms | {least.seconds / 0.2:.0%}" in text
    assert text.count(NOTHING) == len(SECTIONS) - 3
    assert "- large: step large-1m 1 x 1,000,000" in text.partition("## Not measured yet")[2]


def test_a_failed_try_does_not_hide_an_earlier_figure(tmp_path):
    job = next(j for j in full_plan() if j.part == "large" and j.task == "step")
    good = {"contestants": {"plain+bf16": {"seconds": [2.0], "peak": 1}}}
    write_page([record(job, good), record(job, {"error": "stopped"})], tmp_path / "gpu.md")
    assert "500,000" in (tmp_path / "gpu.md").read_text()


def test_counts_by_hand():
    c = ModelConfig(d_model=4, n_layer=3, d_inner=8, max_seq_len=100, filter_order=2, emb_dim=3,
                    num_inner_mlps=1)  # fmt: skip
    batch, length, vocabulary = 2, 10, 16
    # in 4 -> 12, out 4 -> 4, 4 -> 8, 8 -> 4; filter network 3 -> 2 -> 2 -> 4
    block, network = 2 * (48 + 16 + 32 + 32), 2 * (6 + 4 + 8)
    head = 2 * 4 * vocabulary
    forward = 3 * (20 * block + 10 * network)
    read = roofline.model_work(c, batch, length, training=False)
    assert read.products == forward + 20 * head
    assert read.transforms == 3 * 4 * (2 * batch + 1) * fft_flops(20)
    stream = 20 * 4
    assert read.traffic == 3 * (2 * 4 * stream + 2 * 2 * stream + 2 * 2 * stream)
    trained = roofline.model_work(c, batch, length)
    assert trained.products == 3 * (forward + 20 * head) + 3 * 20 * 2 * (48 + 32)
    assert trained.transforms == 3 * 4 * (6 * batch + 2) * fft_flops(20)
    assert trained.traffic == 3 * read.traffic
    gated = roofline.convolution_work(2, 3, 16)
    assert gated.traffic == 4 * 2 * 2 * 3 * 16 + 3 * 16 * 4 and gated.products == 0
    assert gated.transforms == 3 * 5 * fft_flops(32)
    assert fft_flops(32) == 2.5 * 32 * 5
    signals = torch.empty(2, 3, 1_024, dtype=torch.bfloat16)  # 64 x 16 points in a program
    transform = 2 * (2 * 64 * 1_024 + 4 * 16 * 1_024)
    forward = roofline.matrix_convolution_work(signals)
    assert forward.products == (6 * 2 + 3 * 3) * transform and forward.transforms == 0
    # v, gates and y; k, and its spectrum written and read
    assert forward.traffic == 6 * 4 * 1_024 * 2 + 3 * (4 * 1_024 + 2 * 8 * 1_024)
    both = roofline.matrix_convolution_work(signals, backward=True)
    # two spectra and two results of a row; spectra of filters again, and the gradient back
    assert both.products == forward.products + (6 * 4 + 3 + 3 * 3) * transform


def test_the_limit_of_matrix_products_is_their_own(tmp_path):
    job = next(j for j in full_plan() if j.part == "convolution" and j.length == 32_768)
    fft = roofline.convolution_work(job.batch, job.channels, job.length)
    own = roofline.Work(products=7e12, transforms=0.0, traffic=8e9)
    rows = {"matrix": {"seconds": [0.02], "work": vars(own)}, "fft": {"seconds": [0.03]}}
    rates = {"products": {"bf16": 700e12}, "copy": 4e12, "fft": {}, "launch": 2e-6}
    limits = next(j for j in full_plan() if j.part == "limits")
    write_page(
        [record(limits, rates), record(job, {"contestants": rows, "work": vars(fft)})],
        tmp_path / "gpu.md",
    )
    text = (tmp_path / "gpu.md").read_text()
    assert "| 7,000 G |  | 7.45 GiB | 10.0 ms | matrix products | ours, matrix products" in text
    assert text.count("50% (matrix products)") == 1


def test_the_bound_is_the_slowest_of_three():
    limits = roofline.Limits(products=100.0, vector=10.0, bandwidth=1.0)
    assert roofline.bound(roofline.Work(100, 5, 0.5), limits) == roofline.Bound(
        1.0, "matrix products"
    )
    assert roofline.bound(roofline.Work(1, 50, 0.5), limits).by == "FFTs"
    assert roofline.bound(roofline.Work(1, 5, 50), limits) == roofline.Bound(50.0, "memory")
    sheet = roofline.sheet_limits("NVIDIA H200")
    assert sheet is not None and sheet.bandwidth == 4.8e12 and roofline.sheet_limits("cpu") is None


def test_plans_are_whole_and_the_essential_fits_eight_minutes():
    for plan in (full_plan(), toy_plan()):
        assert len({job.key() for job in plan}) == len(plan)
        for job in plan:
            assert Job.from_dict(json.loads(json.dumps(job.to_dict()))) == job
            if job.shape:
                assert job.length + (job.steps if job.part == "generation" else 0) <= (
                    config_of(job.shape).max_seq_len
                )
    begin, first = 15.0, {}
    for job in full_plan():
        begin += job.guess
        first.setdefault(job.part, begin)
    assert set(first) == set(PARTS) and max(first.values()) < 480
    assert begin < 880  # with a second command, about the lease


def test_contestants_that_fail_are_rows_and_the_others_go_on():
    def broken() -> Contestant:
        raise InputError("engine: no such kernels")

    def large() -> object:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    def wrong() -> dict[str, object]:
        raise InputError("wrong: off by 1")

    good = Contestant(lambda: sum(range(1000)), lambda: {"off": 0.0})
    rows = race.race(
        {
            "a": broken, "b": lambda: Contestant(large, dict), "c": lambda: Contestant(dict, wrong),
            "d": lambda: good,
        },
        CLOCK, lambda name: None,
    )  # fmt: skip
    assert rows["a"] == {"error": "engine: no such kernels"}
    assert rows["b"]["error"] == "does not fit" and rows["c"]["error"] == "wrong: off by 1"
    assert "seconds" not in rows["c"] and rows["d"]["off"] == 0 and len(rows["d"]["seconds"]) == 2


def test_after_an_error_that_breaks_the_gpu_nothing_goes_on(monkeypatch):
    def lost() -> Contestant:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")

    monkeypatch.setattr(race, "still_works", lambda clock: False)
    with pytest.raises(Broken, match="illegal memory access"):
        race.race({"a": lost}, CLOCK, lambda name: None)


def test_samples_are_many_of_the_short_and_one_of_the_long():
    assert race.samples(2.0) == (3, 1)
    assert race.samples(0.3) == (6, 1) and race.samples(0.9) == (5, 1)
    count, repeats = race.samples(1e-4)
    assert count == 25 and repeats == 100


def test_a_wrong_model_has_no_time():
    inputs, targets = tokens_on(CLOCK.device, 1, 40)
    one = build("plain+float32", config_of("toy"), CLOCK, 1, 40)
    loss = float(one.step(inputs, targets))
    gradient = one.gradient()
    right = errors(one, Truth(loss, gradient), inputs, targets)
    assert require_right(right, "float32")["gradient_error"] < 1e-6
    off = errors(one, Truth(loss, gradient * 1.05), inputs, targets)
    with pytest.raises(InputError, match=r"gradients by 4\.8e-02"):
        require_right(off, "float32")
    with pytest.raises(InputError, match="wrong"):
        require_right(right | {"loss_error": float("nan")}, "float32")


def test_an_engine_that_steps_aside_is_not_timed_as_itself():
    with pytest.raises(InputError, match="torch kernels do not run this: plain would"):
        build("torch+fp16", config_of("toy"), CLOCK, 1, 40)


def test_a_walk_begins_again_with_the_same_weights():
    job = next(j for j in toy_plan() if j.part == "launches" and j.task == "step")
    one = build("plain+float32", config_of("toy"), CLOCK, job.batch, job.length)
    walk = Walk(one, CLOCK, job, training=True)
    first = walk.losses()
    walk.inputs.copy_(tokens_on(CLOCK.device, job.batch, job.length)[0])
    assert walk.losses() == first and len(set(first)) == len(first)


class FakeEvent:
    """6 ms apart, whatever happens between two."""

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        pass

    def elapsed_time(self, other: FakeEvent) -> float:
        return 6.0


@pytest.fixture
def fake_cuda(monkeypatch) -> Clock:
    """A clock that takes a CPU for a GPU; what is asked of `torch.cuda` answers."""
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 70)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 30)
    properties = SimpleNamespace(total_memory=100, name="NVIDIA X", multi_processor_count=3)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(gc, "collect", lambda: 0)
    clock = Clock(torch.device("cpu"), hurry=True)
    clock.gpu = True
    return clock


def test_a_gpu_is_timed_by_events_and_short_memory_ends_the_turns(fake_cuda):
    assert fake_cuda.seconds(dict, 2) == pytest.approx(3e-3)
    assert fake_cuda.peak(dict) == (70, 6e-3) and fake_cuda.memory == 100
    calls: list[str] = []
    names = ("a", "b")
    rows = race.race(
        {n: lambda n=n: Contestant(lambda: calls.append(n), dict) for n in names},
        fake_cuda, lambda name: None,
    )  # fmt: skip
    assert rows["a"] == {"peak": 40, "alone": True, "seconds": [6e-3, 6e-3]}
    assert calls == [*"ab", *"aaabbb"]  # memory; then warm-up and samples of each


def test_capturing_warms_up_and_then_replays(fake_cuda, monkeypatch):
    told: list[str] = []
    stream = SimpleNamespace(wait_stream=lambda other: told.append("wait"))
    graph = SimpleNamespace(replay=lambda: told.append("replay"))
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: nullcontext())
    job = next(j for j in toy_plan() if j.part == "launches" and j.task == "infer")
    one = build("plain+float32", config_of("toy"), CLOCK, job.batch, job.length)
    walk = Walk(one, CLOCK, job, training=False)
    walk.clock, plain = fake_cuda, walk.call
    walk.call = lambda: told.append("call") or plain()
    walk.capture()
    assert told == ["wait", "call", "call", "call", "wait", "call"]
    out = walk.call()
    assert told[-1] == "replay" and float(out) == float(plain())


def test_after_a_capture_that_failed_nothing_goes_on_in_the_process(fake_cuda, monkeypatch):
    class Capture:
        def __init__(self, graph: object) -> None:
            pass

        def __enter__(self) -> None:
            pass

        def __exit__(self, *error: object) -> None:
            raise RuntimeError("CUDA error: the capture was invalidated")

    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name in ("Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph", Capture)
    job = next(j for j in toy_plan() if j.part == "launches" and j.task == "infer")
    walk = Walk(build("plain+float32", TOY, CLOCK, 1, 8), CLOCK, job, training=False)
    walk.clock, calls = fake_cuda, iter([1, 2, 3])

    def build_graph() -> Contestant:
        walk.call = lambda: next(calls)  # the fourth call, which is captured, has an error
        walk.capture()
        raise AssertionError

    with pytest.raises(Broken, match="no graph: StopIteration"):
        race.race({"a": build_graph}, fake_cuda, lambda name: None)


def test_methods_of_the_convolution_are_the_direct_sum():
    given = convolution.Input.random(CLOCK.device, 2, 3, 17, torch.float64)
    u = given.v * given.before
    wanted = torch.zeros_like(u)
    for lag in range(17):
        wanted[..., lag:] += given.k[:, lag, None].double() * u[..., : 17 - lag]
    wanted = (wanted + u * given.skip[:, None]) * given.after
    double = convolution._typed(given, torch.float64, filters=torch.float64)
    torch.testing.assert_close(convolution.plain(*double.tensors()), wanted, atol=1e-12, rtol=0)
    found = convolution.ways()["fft"](*double.tensors())
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)


def test_what_pytest_said_is_read():
    output = (
        "FAILED tests/gpu/test_cuda.py::test_x - AssertionError\n"
        "SKIPPED [2] tests/gpu/test_cuda.py:3: no\n"
        "== 1 failed, 30 passed, 2 skipped, 900 deselected in 41.20s (0:00:41) ==\n"
    )
    found = suite.summary(output)
    assert found["counts"] == {"failed": 1, "passed": 30, "skipped": 2, "deselected": 900}
    assert len(found["lines"]) == 2 and found["last"].startswith("1 failed, 30 passed")
    assert suite.summary("", "ERROR: file not found")["error"] == (
        "pytest said: ERROR: file not found"
    )
    begun = "[gw0] [ 3%] PASSED tests/a.py::a\n[gw1] [ 6%] FAILED tests/a.py::b\n"
    cut = suite.cut_short(begun + "[gw0] [ 9%] PASSED tests/a.py::c\n" * 30, 240)
    assert cut["error"] == "stopped after 240 s: 31 passed, 1 did not"
    assert cut["lines"][0].endswith("::b") and len(cut["lines"]) == 21
    files = suite.files_with("pytest")
    assert files and not any(file == Path(__file__) for file in files)
    names = {path.name for path in suite.files_with("kernels")}
    assert names >= {"test_gated_convolution.py", "test_triton_kernels.py"}


def test_the_suite_runs(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: x\n")
    (tmp_path / "tests" / "test_one.py").write_text(
        f"import pytest\npytestmark = {suite.WANTED['pytest'][0]}\n"
        "def test_a(): pass\ndef test_b(): assert 0\n"
    )
    assert "no such tests" in suite.run_suite("kernels", 60, root=tmp_path)["error"]
    found = suite.run_suite("pytest", 60, root=tmp_path)
    assert found["counts"] == {"failed": 1, "passed": 1} and "test_b" in found["lines"][0]


def test_all_kernels_of_the_plan_are_compiled_before():
    plan = [job for job in full_plan() if job.part not in ("profile", "suite")]
    wanted = {
        (job.shape, job.length, name.removesuffix("+graph"))
        for job in plan for name in job.contestants
        if name.split("+")[0] in warm.OURS
    }  # fmt: skip
    found = {(job.shape, job.length, *job.contestants) for job in warm.cases(plan)}
    assert found == wanted and len(warm.cases(plan)) < 50
    lengths = [job.length for job in warm.cases(plan)]
    assert lengths == sorted(lengths, reverse=True)


def test_every_kind_of_case_runs():
    kinds = {(job.part, job.task): job for job in warm.cases(toy_plan())}
    assert len(kinds) >= 8
    for job in kinds.values():
        here = "fft" if job.contestants[0].startswith("matrix") else "auto+float32"
        warm.run(dataclasses.replace(job, contestants=(here,)), CLOCK)


def test_the_cache_is_filled_within_its_time(tmp_path):
    job = next(job for job in toy_plan() if job.part == "stability")
    log = tmp_path / "log"
    assert warm.fill([job], "cpu", log, 100).startswith("compiled for 1 cases in ")
    assert "warm:" not in log.read_text()
    assert warm.fill([job], "cpu", log, 0.2).endswith(", 1 of 1 processes stopped")


FAKE = """
import json, os, sys, time
host = {"device": "fake", "triton": None, "toy": sys.argv[2] == "toy"}
print("HOST", json.dumps(host), flush=True)
for line in sys.stdin:
    job = json.loads(line)["job"]
    rows = {}
    for name in job["contestants"]:
        print("AT", json.dumps(name), flush=True)
        if name.startswith("attention8"):
            os.kill(os.getpid(), 9)
        if name.startswith("original"):
            print("BROKEN", json.dumps("CUDA error: illegal"), flush=True)
            sys.exit()
        if name == "plain+fp16":
            time.sleep(60)
        rows[name] = {"seconds": [0.5]}
    print("RESULT", json.dumps({"contestants": rows}), flush=True)
"""


@pytest.fixture
def fake(tmp_path) -> functools.partial[Worker]:
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    return functools.partial(Worker, command=(sys.executable, str(script)))


def test_a_process_that_dies_costs_only_who_ran(fake, tmp_path):
    worker = fake("cpu", toy=False, log=tmp_path / "log")
    step = next(j for j in full_plan() if j.part == "training")
    rows = worker.measure(step, 60, 60)["contestants"]
    assert set(rows) == set(step.contestants)
    assert rows["triton+bf16"] == {"seconds": [0.5]}
    assert rows["original+bf16"] == {"error": "CUDA error: illegal"}
    assert "SIGKILL" in rows["attention8+bf16"]["error"]
    hanging = Job(part="accuracy", task="model", contestants=("plain+bf16", "plain+fp16"))
    rows = worker.measure(hanging, 1.0, 1.0, 30.0)["contestants"]
    assert rows["plain+bf16"] == {"seconds": [0.5]}
    assert rows["plain+fp16"]["error"].startswith("stopped after 1 s")
    assert worker.measure(hanging, 30.0, 1.0, 1.0) == {"error": "stopped after 1 s"}
    assert worker.measure(Job(part="limits", task="rates"), 60, 60) == {"contestants": {}}
    worker.close()


def test_the_command_resumes_keeps_its_budget_and_says_what_it_left_out(
    fake, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(command, "Worker", fake)
    filled = []
    monkeypatch.setattr(command, "fill", lambda jobs, *_: filled.append(len(jobs)) or "compiled")
    words = [str(tmp_path / "out"), "--only", "training", "convolution"]
    assert command.main([*words, "--budget", "14"]) == 0
    said = capsys.readouterr().out
    assert "left out for lack of time (35 s): training: step figure-4.1 1 x 1,000,000" in said
    path = tmp_path / "out" / FILE
    first = read(path, Job.from_dict)
    assert first and all(r.job.guess <= 14 for r in first)
    with path.open("a") as file:
        file.write('{"job": {"part"')  # a kill in the middle of a line
    assert command.main([*words, "--budget", "1000"]) == 0
    jobs = [j for j in full_plan() if j.part in ("training", "convolution")]
    everything = read(path, Job.from_dict)
    assert [r.job.key() for r in everything[: len(first)]] == [r.job.key() for r in first]
    assert {r.job.key() for r in everything} == {j.key() for j in jobs}
    assert len(everything) == len(jobs)
    assert command.main(words) == 0 and len(read(path, Job.from_dict)) == len(jobs)
    assert filled == [len(jobs), len(jobs) - len(first), 0]
    assert command.main([*words, "--cold"]) == 0 and len(filled) == 3
    assert command.main([*words, "--plan"]) == 0
    assert "s in all" in capsys.readouterr().out


def test_it_starts_without_what_a_gpu_machine_may_lack(tmp_path):
    """No pysam, no cyclopts, and the package not installed: a bare clone with torch."""
    import subprocess

    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('pysam', 'cyclopts', 'pyBigWig'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import benchmarks.gpu.worker, benchmarks.gpu.__main__ as m\n"
        "raise SystemExit(m.main(['out', '--plan']))\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "s in all" in done.stdout
