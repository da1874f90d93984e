"""What is measured on a GPU: jobs, the most valuable first, with the seconds each should take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from benchmarks import measurements

Part = Literal[
    "limits", "accuracy", "training", "large", "convolution", "suite", "profile", "launches",
    "generation", "stability",
]  # fmt: skip
PARTS: Final[Mapping[str, str]] = {
    "limits": "what the machine does at most: copies and matrix products",
    "accuracy": "kernels against float64, values and gradients",
    "training": "a training step against length, beside the original and a Transformer",
    "large": "large-1m at a million tokens: training, memory, inference",
    "convolution": "the gated convolution beside FlashFFTConv's published figures",
    "suite": "pytest -m gpu, and the tests of kernels",
    "profile": "where the time of a training step goes",
    "launches": "short sequences: CUDA graphs, torch.compile",
    "generation": "prefill and steps a second",
    "stability": "thousands of steps in bf16 and fp16",
}
ENGINES: Final = ("triton", "torch", "plain")
STEPPED: Final = (
    "triton+bf16", "torch+bf16", "plain+bf16", "original+bf16", "attention2+bf16",
    "attention8+bf16",
)  # fmt: skip
CHECKED: Final = tuple(f"{e}+{p}" for p in ("float32", "bf16", "fp16") for e in ENGINES)
CONVOLVED: Final = ("matrix", "fft", "plain")
MILLION: Final = 1_000_000
FILE: Final = "gpu.jsonl"
"""Where measurements stand, one a line."""
SAME: Final = ("device", "torch", "toy")
"""What a measurement must share with a run to count as made."""


@dataclass(frozen=True, kw_only=True)
class Job(measurements.Job):
    """One measurement: some contestants on one input, in turns."""

    part: Part
    task: str
    """Within the part: `step`, `infer`, …"""
    shape: str = ""
    """Name of a published shape, or `figure-4.1`: 2 layers of width 128 that read a million."""
    length: int = 0
    batch: int = 1
    channels: int = 0
    """Of a convolution."""
    whole: int = 0
    """Of a convolution: channels that the figures are scaled to."""
    steps: int = 0
    """Of training or generation."""
    contestants: tuple[str, ...] = ()
    """`engine+precision`, or `engine+precision+graph`; see `benchmarks.gpu.contestants`."""
    guess: float = field(default=10.0, compare=False)
    """Seconds that it should take on an H200; not part of the key."""

    def title(self) -> str:
        """The job in a few words."""
        size = f" {self.batch} x {self.length:,}" if self.length else ""
        size += f", {self.channels} channels" if self.channels else ""
        size += f", {self.steps:,} steps" if self.steps else ""
        shape = f" {self.shape}" if self.shape else ""
        who = f" ({', '.join(self.contestants)})" if self.contestants else ""
        return f"{self.part}: {self.task}{shape}{size}{who}"


def engine_of(name: str) -> str:
    """`triton` of the contestant `triton+bf16+graph`."""
    return name.partition("+")[0]


def precision_of(name: str) -> str:
    """`bf16` of the contestant `triton+bf16+graph`."""
    return (name.split("+") + ["float32"])[1]


def full_plan() -> list[Job]:
    """All jobs for an H200 in the order in which they are worth most.

    By their guesses a quarter of an hour; something of every part within eight minutes.
    """
    return [
        Job(part="limits", task="rates", guess=10),
        _convolution_check(1_000, 20),
        _check("tiny-1k", 4, 1_000, 25),
        _step(1_024, 25),
        _step(65_536, 12),
        _step(262_144, 12, without="attention8+bf16"),
        _step(MILLION, 35, without="attention8+bf16"),
        _large("step", 40),
        _large("infer", 20),
        *(_convolution(n, c, guess) for n, c, guess in (
            (1_024, 768, 8), (32_768, 768, 12), (1_048_576, 16, 12), (4_194_304, 4, 14),
        )),
        _check("small-32k", 1, 32_768, 12),
        _step(4_096, 8),
        _step(16_384, 8),
        _short("step", 1, 15),
        _short("step", 16, 12),
        _short("infer", 1, 10),
        _short("infer", 16, 10),
        _training_run("auto+bf16", 20),
        _training_run("auto+fp16", 20),
        Job(part="suite", task="pytest", guess=60),
        *(_generation("tiny-1k", batch, 10) for batch in (1, 64, 1024)),
        # a profiler slows down all that its process launches afterwards
        _profile("figure-4.1", 65_536, 8),
        _profile("large-1m", MILLION, 12),
        Job(part="suite", task="kernels", guess=60),
        _check("figure-4.1", 1, 262_144, 15),
        _convolution_check(65_536, 15),
        _generation("large-1m", 1, 15),
        _generation("large-1m", 64, 20),
        _training_run("plain+fp16", 20),
        _training_run("auto+float32", 20),
        _training_run("auto+fp16", 40, shape="tiny-16k-d128", length=16_384),
        _step(262_144, 15, only="attention8+bf16"),
        Job(part="launches", task="compile", shape="tiny-1k", length=1_024,
            contestants=("plain+bf16", "compiled+bf16"), guess=60),
        _step(MILLION, 90, only="attention8+bf16"),
    ]  # fmt: skip


def toy_plan() -> list[Job]:
    """Every job of the full plan at sizes for a CPU: the figures mean nothing."""
    return list({job.key(): job for job in map(_toy, full_plan())}.values())


def _toy(job: Job) -> Job:
    """A job of the same code that takes about a second on one core."""
    lengths = {1_000: 40, 1_024: 48, 65_536: 80, 262_144: 96, MILLION: 128}
    return replace(
        job,
        shape="toy" if job.shape else "",
        length=lengths.get(job.length, 64) if job.length else 0,
        batch=min(job.batch, 3),
        channels=min(job.channels, 4),
        whole=min(job.whole, 8),
        steps=min(job.steps, 8),
        guess=2.0,
    )


def _check(shape: str, batch: int, length: int, guess: float) -> Job:
    return Job(part="accuracy", task="model", shape=shape, batch=batch, length=length,
               contestants=CHECKED, guess=guess)  # fmt: skip


def _convolution_check(length: int, guess: float) -> Job:
    names = tuple(f"{m}+{p}" for p in ("float32", "bf16", "fp16") for m in CONVOLVED)
    return Job(part="accuracy", task="convolution", batch=2, channels=64, length=length,
               contestants=names, guess=guess)  # fmt: skip


def _step(length: int, guess: float, *, without: str = "", only: str = "") -> Job:
    names = (only,) if only else tuple(name for name in STEPPED if name != without)
    return Job(part="training", task="step", shape="figure-4.1", length=length,
               contestants=names, guess=guess)  # fmt: skip


def _large(task: str, guess: float) -> Job:
    return Job(part="large", task=task, shape="large-1m", length=MILLION,
               contestants=STEPPED[:4], guess=guess)  # fmt: skip


def _convolution(length: int, channels: int, guess: float) -> Job:
    return Job(part="convolution", task="forward", batch=64, channels=channels, whole=768,
               length=length, contestants=CONVOLVED, guess=guess)  # fmt: skip


def _profile(shape: str, length: int, guess: float) -> Job:
    return Job(part="profile", task="step", shape=shape, length=length,
               contestants=("triton+bf16", "plain+bf16"), guess=guess)  # fmt: skip


def _short(task: str, batch: int, guess: float) -> Job:
    names = tuple(f"{e}+bf16{way}" for e in ENGINES for way in ("", "+graph"))
    return Job(part="launches", task=task, shape="tiny-1k", batch=batch, length=1_024,
               contestants=names, guess=guess)  # fmt: skip


def _generation(shape: str, batch: int, guess: float) -> Job:
    return Job(part="generation", task="steps", shape=shape, batch=batch, length=500, steps=256,
               contestants=("auto+float32",), guess=guess)  # fmt: skip


def _training_run(name: str, guess: float, shape: str = "tiny-1k", length: int = 1_024) -> Job:
    return Job(part="stability", task="pretrain", shape=shape, length=length, steps=2_500,
               contestants=(name,), guess=guess)  # fmt: skip
