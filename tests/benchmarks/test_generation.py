"""The ways that the benchmark of generation compares are one function; its pieces run."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from benchmarks.generation import __main__ as command
from benchmarks.generation import jobs, split, whole
from benchmarks.generation.blocks import measure_blocks
from benchmarks.generation.direct import prefill_unfolded, unfolded_block
from benchmarks.generation.jobs import (
    BLOCKS,
    RAISED,
    Job,
    full_plan,
    guessed_seconds,
    quick_plan,
)
from benchmarks.generation.summary import Split, above_best, crossing, growth, summed
from benchmarks.generation.tables import brief, size
from benchmarks.generation.ways import agreement, fold_sizes, measure_way
from benchmarks.measurements import Record, append, finished, newest, read, this_host
from torch import nn

from benchmarks import processes
from hyenadna.config import ModelConfig
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.decoding import Decoder

SMALL = ModelConfig(d_model=16, n_layer=2, max_seq_len=300, filter_order=16, embed_dropout=0.0)
OURS = Job(part="ways", task="ours", shape="tiny-1k", context=40, new=64)
DIRECT = dataclasses.replace(OURS, task="direct", new=4)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def strong_model(config: ModelConfig = SMALL) -> HyenaDNA:
    """Weights so large that every earlier base matters."""
    torch.manual_seed(0)
    model = HyenaDNA(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.double().eval()


@pytest.mark.parametrize("engine", ["torch", None])
@pytest.mark.parametrize("prompt", [1, 2, 37, 200])
@torch.no_grad()
def test_direct_sum_is_the_full_pass_and_folds_nothing(prompt, engine):
    model = strong_model()
    if engine:
        model.set_engine(engine)
    tokens = torch.randint(7, 11, (prompt + 20,), generator=torch.Generator().manual_seed(1))
    expected = model(tokens[None])[0]
    decoder = Decoder(model, block=unfolded_block(len(tokens)))
    state = prefill_unfolded(decoder, tokens[:prompt], room=20)
    torch.testing.assert_close(state.logits[0], expected[prompt - 1], atol=1e-9, rtol=0)
    kept = [layer.convolutions[0] for layer in state.layers]
    samples = [c.recent[:, :prompt].clone() for c in kept]
    assert all(s.abs().min() > 0 for s in samples)
    for t in range(prompt, len(tokens)):
        logits = decoder.step(state, tokens[t : t + 1])[0]
        torch.testing.assert_close(logits, expected[t], atol=1e-9, rtol=0)
    assert int(state.lengths) == len(tokens) and state.room == 0
    for convolution, own in zip(kept, samples, strict=True):
        assert not convolution.settled.any() and torch.equal(convolution.recent[:, :prompt], own)


def test_direct_sum_refuses_what_would_be_folded_or_has_no_engine():
    assert [unfolded_block(n) for n in (1, 3, 4, 1020, 1024)] == [2, 4, 8, 1024, 2048]
    prompt = torch.full((40,), 7)
    with pytest.raises(InputError, match=r"44 tokens with blocks of 32 are folded; .* block=64"):
        prefill_unfolded(Decoder(strong_model(), block=32), prompt, room=4)
    deeper = strong_model(SMALL.replace(hyena_order=3))
    with pytest.raises(InputError, match="the engine does not run this model"):
        prefill_unfolded(Decoder(deeper, block=64), prompt, room=4)


def test_the_ways_are_measured_and_agree():
    ours = json.loads(json.dumps(measure_way(OURS)))
    direct = measure_way(DIRECT)
    again = measure_way(dataclasses.replace(OURS, task="recompute", new=1))
    rows = measure_way(dataclasses.replace(OURS, batch=3))
    assert (
        len(ours["seconds"]) == jobs.ROUNDS and len(direct["seconds"]) == jobs.ROUNDS * DIRECT.new
    )
    assert len(again["seconds"]) >= 3
    for result in (ours, direct, rows):
        assert result["difference"] < 1e-5 < 1e-2 < result["largest"]
    for result in (ours, direct, again, rows):
        assert min(result["seconds"]) > 0 and result["peak"] >= result["imports"] > 10 * 2**20
    d, layers, logits = 128, 2, 4 * 16 + 8
    capacity = OURS.context + DIRECT.new
    halo = layers * 2 * 3 * d * 4
    assert direct["state"] == layers * capacity * d * 4 + halo + logits
    assert direct["filters"] == layers * 64 * d * 4
    block = Decoder(strong_model()).prefill([torch.tensor([7])], room=0).layers[0]
    block = block.convolutions[0].filter.block
    spectra = sum(fold_sizes(block, OURS.new)) * d * 8
    assert ours["filters"] == layers * (block * d * 4 + spectra)
    assert fold_sizes(16, 64) == [16, 32, 64] and fold_sizes(64, 63) == []


def test_a_wrong_logit_stops_the_benchmark():
    model, tokens = strong_model().float(), torch.full((9,), 8)
    with torch.no_grad():
        logits = model(tokens[None])[0, -1]
    assert agreement(model, tokens, logits)["difference"] == 0
    logits[3] += 1e-3
    with pytest.raises(InputError, match=r"after 9 tokens differ from the full pass by 1\.0e-03"):
        agreement(model, tokens, logits)
    with pytest.raises(InputError, match="differ from the full pass by nan"):
        agreement(model, tokens, logits * torch.nan)


def test_blocks_alternate():
    result = json.loads(json.dumps(measure_blocks(
        Job(part="blocks", task="blocks", shape="tiny-1k", context=20, new=64)
    )))  # fmt: skip
    assert list(result["seconds"]) == [str(block) for block in BLOCKS]
    assert all(len(s) == jobs.ROUNDS and min(s) > 0 for s in result["seconds"].values())
    assert result["default"] in BLOCKS


def test_the_whole_cost_is_read_off_the_progress_and_checked(monkeypatch):
    monkeypatch.setattr(whole, "MARKS", (10, 40, 1000))
    job = Job(part="whole", task="whole", shape="tiny-1k", context=30, new=40)
    result = json.loads(json.dumps(whole.measure_whole(job)))
    assert list(result["seconds"]) == ["10", "40"]
    assert 0 < result["ready"] < result["seconds"]["10"] < result["seconds"]["40"]
    assert result["seconds"]["40"] <= result["total"] and result["difference"] < 1e-5
    model = strong_model().float()
    with pytest.raises(InputError, match="nats a base more or less"):
        whole.check(model, torch.full((5,), 7), torch.full((3,), 8), -1e3)


def test_a_split_has_every_part(monkeypatch):
    monkeypatch.setattr(split, "read_rate", lambda size: 1e9)
    job = Job(part="split", task="split", shape="tiny-1k", context=64, new=256)
    found = Split(job, json.loads(json.dumps(split.measure_split(job))))
    parts = (found.weights, found.direct, found.folds, found.python, found.rest)
    assert sum(parts) == pytest.approx(found.step) and found.step > found.python > 0
    d, inner, table = 128, 512, 16 * 128
    layer = 3 * d * (d + 1) + 3 * d * 4 + d * (d + 1) + 2 * d * inner + inner + d + 4 * d
    assert found.result["weights"] == 4 * (2 * layer + table + 2 * d)
    assert found.result["sample_bytes"] == 2 * 4 * 128 * 2


def test_parts_of_a_step_by_their_definition():
    block, n = 64, 512
    steps = np.full(n, 5e-6)
    steps[block - 1 :: block] += 64e-6
    steps[3] = 1.0  # one disturbance
    assert split.inside_block(steps, block) == pytest.approx(5e-6)
    line = 5e-6 + 3e-9 * np.arange(n)
    line[77] = 1.0
    assert split.sample_seconds(line) == pytest.approx(3e-9, rel=0.02)
    assert split.sample_seconds(line[::-1].copy()) == 0
    assert split.read_rate(1 << 16) > 1e7


def test_sums_exponents_and_crossings():
    line = [(n, 1e-6 * n) for n in (1000, 5000, 11_000)]
    marks = [1000, 10_000]
    assert summed(line, 1000, marks) == pytest.approx(
        [1e-6 * (1000 * 1000 + 999 * 500), 1e-6 * (10_000 * 1000 + 9999 * 5000)]
    )
    assert summed(line, 1000, [10_001]) is None and summed(line, 999, [1]) is None
    assert summed(line[:1], 1000, [1]) is None
    assert growth([10, 100, 1000], [1.0, 100.0, 10_000.0]) == pytest.approx(2)
    flat = [(n, 4e-3) for n, _ in line]
    kind, at = crossing(line, flat)
    assert kind == "from" and at == pytest.approx(4000)
    assert crossing(line, [(n, 1e-9) for n, _ in line])[0] == "always"
    assert crossing(line, [(n, 1.0) for n, _ in line])[0] == "never"
    rows = [{16: 1.0, 32: 2.0}, {16: 4.0, 32: 2.0}]
    assert above_best(rows, 16) == pytest.approx((2**0.5 - 1, 1.0))
    assert [brief(s) for s in (2.0, 0.0123, 4.5e-5, 3e-8, -1e-5, None)] == [
        "2.00 s", "12.3 ms", "45.0 µs", "30.0 ns", "-10.0 µs", "",
    ]  # fmt: skip
    assert [size(n) for n in (2**30, 3 * 2**20, 512, None)] == [
        "1.00 GiB", "3.00 MiB", "0.500 KiB", "",
    ]  # fmt: skip


def test_plans_are_whole_and_fit_the_models():
    for plan in (quick_plan(), full_plan()):
        assert len({job.key() for job in plan}) == len(plan)
        for job in plan:
            assert Job.from_dict(json.loads(json.dumps(job.to_dict()))) == job
            assert guessed_seconds(job) > 0 and job.title()
            more = {"direct": job.new, "recompute": 200, "whole": job.new}
            longest = job.context + more.get(job.task, 2 * job.new)
            assert longest <= job.config().max_seq_len
        contexts = [job.context for job in plan if job.part == "whole" and job.task == "direct"]
        (run,) = [job for job in plan if job.task == "whole"]
        assert min(contexts) <= run.context and max(contexts) >= run.context + run.new
    assert dataclasses.replace(OURS, shape="large-1m").config().max_seq_len == 1_000_002
    assert OURS.config().max_seq_len == RAISED["tiny-1k"]


def test_a_job_runs_in_a_process_of_its_own_and_a_failed_one_is_one_line(monkeypatch):
    result = command.run_job(DIRECT, 1)
    assert result["peak"] > result["imports"] > 50 * 2**20
    error = command.run_job(dataclasses.replace(OURS, context=200_000), 1)["error"]
    assert "max_seq_len" in error and "\n" not in error
    monkeypatch.setattr(processes, "PATIENCE", -120 / guessed_seconds(DIRECT))
    assert command.run_job(DIRECT, 1)["error"].startswith("stopped after")


def invented(job: Job, threads: int) -> dict[str, object]:
    """A result as the worker gives it, of round numbers."""
    each = {"ours": 1e-4, "recompute": 1e-5 * job.context, "direct": 1e-7 * job.context}
    if job.task in each:
        seconds = [each[job.task]] * 3
        memory = {"imports": 2**28, "peak": 2**29, "state": 2**20, "filters": 2**21}
        return memory | {
            "prefill": 0.5, "seconds": seconds, "difference": 1e-7, "largest": 0.5,
        }  # fmt: skip
    if job.task == "blocks":
        return {"seconds": {str(b): [b * 1e-6] * 3 for b in BLOCKS}, "default": 64}
    if job.task == "split":
        return {
            "block": 64, "step": 1e-4, "sample": 1e-7, "samples": 32.5, "sample_bytes": 2048,
            "folds": 1e-5, "python": 1e-5, "weights": 10**6, "read": 2e10, "sampling": 2e-5,
        }  # fmt: skip
    marks = [n for n in whole.MARKS if n <= job.new]
    return {
        "imports": 2**28, "peak": 2**29, "ready": 0.1, "total": 2e-4 * job.new + 0.2,
        "seconds": {str(n): 0.1 + 2e-4 * n for n in marks}, "difference": 1e-8,
    }  # fmt: skip


def test_the_command_measures_resumes_and_writes_the_page(tmp_path, monkeypatch, capsys):
    asked = []

    def run_job(job: Job, threads: int) -> dict[str, object]:
        asked.append(job)
        if job == full_plan()[0] and len(asked) == 1:
            return {"error": "killed | by SIGKILL"}
        return invented(job, threads)

    monkeypatch.setattr(command, "run_job", run_job)
    page, results = tmp_path / "docs" / "page.md", tmp_path / "results.jsonl"
    words = ["--results", str(results), "--page", str(page), "--threads", "1"]
    assert command.main([*words, "--report"]) == 2
    assert "no measurement yet" in capsys.readouterr().err
    assert command.main([*words, "--full"]) == 0 and asked == full_plan()
    assert "killed \\| by SIGKILL" in page.read_text()
    assert command.main([*words, "--full", "--list"]) == 0
    assert "1 measurements" in capsys.readouterr().out  # the failed one
    assert command.main([*words, "--full"]) == 0 and len(asked) == len(full_plan()) + 1
    text = page.read_text()
    for expected in (
        "# The benchmark of generation", "| large-1m | 128,000 | 100 µs | 1.28 s (12,800×) | "
        "12.8 ms (128×) | 6.25 µs | 500 ms |",
        "| 100,000 | 20.1 s | 14.2 h (2,537×) | 510 s (25.4×) |", "before the first base: 1.00)",
        "4,950 bases a second",
        "| tiny-1k | 100 µs | 50.0 µs (50%) | 3.25 µs (3%) | 10.0 µs (10%) | 10.0 µs (10%) |",
        "sum over everything costs less below 132 bases of context",
        "The direct sum costs more than ours from about 1,000 bases of context on",
        "**16.0 µs**", "blocks of 16 cost least", "The package's block is 64: 300.0% and 300.0%.",
    ):  # fmt: skip
        assert expected in text, expected
    assert "SIGKILL" not in text
    for name in ("page.ways.png", "page.whole.png"):
        assert page.with_name(name).read_bytes()[:4] == b"\x89PNG" and f"]({name})" in text
    assert not list(tmp_path.rglob("*.part*"))


def test_a_page_of_any_one_part_stands(tmp_path):
    from benchmarks.generation.page import write_page

    for job in {job.task: job for job in quick_plan()}.values():
        record = Record(job=job, host=this_host(1), result=invented(job, 1), seconds=1.0)
        path = tmp_path / f"{job.task}.md"
        write_page([record], path)
        assert job.shape in path.read_text()


def test_the_file_of_measurements_survives_a_kill(tmp_path):
    path = tmp_path / "file.jsonl"
    append(Record(job=OURS, host=this_host(1), result={"error": "no"}, seconds=1.0), path)
    assert finished(read(path, Job.from_dict), this_host(1)) == set()
    path.write_text(path.read_text() + '{"job": {"pa')
    done = Record(job=OURS, host=this_host(1), result={"peak": 1}, seconds=1.0)
    append(done, path)
    assert newest(read(path, Job.from_dict)) == [done] and len(read(path, Job.from_dict)) == 2
    assert finished(read(path, Job.from_dict), this_host(1)) == {OURS.key()}
    path.write_text('{"job": {"part": "ways", "length": 3}}\n')
    with pytest.raises(InputError, match=r"file.jsonl:1: not a measurement"):
        read(path, Job.from_dict)
