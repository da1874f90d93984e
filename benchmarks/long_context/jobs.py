"""What is measured: jobs, in order of importance, with the time that each is expected to take."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from benchmarks import measurements
from hyenadna.config import PRESETS, preset

Task = Literal["forward", "loss", "step", "limits", "parts"]

# Competitor -> how the page calls it. "original" comes first: ratios are against it.
NAMES: Final[Mapping[str, str]] = {
    "original": "original's algorithm",
    "multimolecule": "multimolecule",
    "attention": "Transformer twin",
    "plain": "ours, plain modules",
    "torch": "ours, torch",
    "torch+bf16": "ours, torch, bf16",
    "native": "ours, native",
    "native+bf16": "ours, native, bf16",
}
Setting = tuple[Literal["given back", "kept"], Literal["default", "PASSIVE"]]
# As Python starts, and as the package's commands set the process.
SETTINGS: Final[tuple[Setting, ...]] = (("given back", "default"), ("kept", "PASSIVE"))
EVERY_ENGINE: Final = ("original", "native", "torch", "native+bf16", "torch+bf16", "plain")
FLOAT32: Final = ("original", "native", "torch")


@dataclass(frozen=True, kw_only=True)
class Job(measurements.Job):
    """One measurement, made in one process of its own."""

    part: str
    """The section of the page that it belongs to."""
    task: Task
    shape: str = ""
    """Name of a published shape."""
    length: int = 0
    batch: int = 1
    competitors: tuple[str, ...] = ()
    """Run in alternation in the one process; a job of one competitor also has a peak of memory."""
    memory: Literal["given back", "kept"] = "given back"
    """Freed memory: glibc's default, or the package's `reuse_freed_memory`."""
    waiting: Literal["default", "PASSIVE"] = "default"
    """OMP_WAIT_POLICY: not set, or PASSIVE as the package's commands set it."""
    neighbour: bool = False
    """Whether another process keeps a core busy meanwhile."""
    once: bool = False
    """One call and no warm-up at full length, for what takes long or is run for its memory."""
    repeat: int = 0
    """Tells apart repetitions of a job in alternation with others."""

    def title(self) -> str:
        """The job in a few words, for progress."""
        what = f"{self.part}: {self.task} {self.shape} {self.batch} x {self.length:,}"
        extra = [f"freed memory {self.memory}"] if self.memory != "given back" else []
        extra += [f"waiting {self.waiting}"] if self.waiting != "default" else []
        extra += ["busy neighbour"] if self.neighbour else []
        extra += [f"again ({self.repeat + 1})"] if self.repeat else []
        return ", ".join([f"{what} {' '.join(self.competitors)}", *extra])


def single(job: Job, competitors: Sequence[str]) -> Iterator[Job]:
    """The job split into one process a competitor, one call each."""
    for name in competitors:
        yield dataclasses.replace(job, competitors=(name,), once=True)


def quick_plan() -> list[Job]:
    """A plan of two or three minutes that touches everything but the long sequences."""
    return [
        Job(part="limits", task="limits"),
        *_neighbour(settings=SETTINGS[:1]),
        *(
            Job(part="lengths", task="forward", shape="small-32k", length=n,
                competitors=(*EVERY_ENGINE, "attention"))
            for n in (128, 1024, 4096)
        ),
        Job(part="training", task="step", shape="small-32k", length=1024,
            competitors=EVERY_ENGINE),
        *single(Job(part="memory", task="forward", shape="small-32k", length=4096),
                (*FLOAT32, "attention")),
        Job(part="multimolecule", task="forward", shape="small-32k", length=1024,
            competitors=("original", "multimolecule", "native")),
        Job(part="parts", task="parts", shape="small-32k", length=4096,
            competitors=(*FLOAT32, "native+bf16")),
    ]  # fmt: skip


def full_plan() -> list[Job]:
    """Everything but the two flags of an hour's patience, most important first."""
    return [
        Job(part="limits", task="limits"),
        *_headline(),
        *_neighbour(settings=SETTINGS),
        *_training(),
        *_million(),
        *_multimolecule(),
        *_lengths(),
        *_growth(),
        *_shapes(),
        *_medium(),
        *_memory(),
        Job(part="parts", task="parts", shape="small-32k", length=32768,
            competitors=EVERY_ENGINE[:-1]),
    ]  # fmt: skip


def original_million() -> list[Job]:
    """The original's forward pass at 999,999: about 5 minutes and 20 GB."""
    return list(single(_long("large-1m"), ["original"]))


def train_million(engines: Sequence[str]) -> list[Job]:
    """One training step of large-1m at 999,999."""
    return list(single(_long("large-1m", task="step"), engines))


def _headline() -> Iterator[Job]:
    for memory, waiting in SETTINGS:
        yield Job(
            part="headline", task="forward", shape="small-32k", length=32768,
            competitors=EVERY_ENGINE, memory=memory, waiting=waiting,
        )  # fmt: skip


def _neighbour(settings: Sequence[Setting]) -> Iterator[Job]:
    for memory, waiting in settings:
        for neighbour in (False, True):
            yield Job(
                part="neighbour", task="step", shape="tiny-1k", length=1024, batch=16,
                competitors=(*FLOAT32, "plain"), memory=memory, waiting=waiting,
                neighbour=neighbour,
            )  # fmt: skip


def _training() -> Iterator[Job]:
    for length in (32768, 16384, 4096, 1024):
        names = EVERY_ENGINE if length < 32768 else EVERY_ENGINE[:-1]
        yield Job(part="training", task="step", shape="small-32k", length=length, competitors=names)
    yield Job(
        part="training", task="step", shape="small-32k", length=32768, competitors=FLOAT32,
        memory="kept", waiting="PASSIVE",
    )  # fmt: skip
    for length in (1024, 4096, 16384):
        yield from single(
            Job(part="training", task="step", shape="small-32k", length=length), ["attention"]
        )


def _long(shape: str, task: Task = "forward", repeat: int = 0) -> Job:
    length = preset(shape).max_seq_len - 3  # 159,999, 449,999, 999,999: 2L is no round number
    return Job(part="long", task=task, shape=shape, length=length, repeat=repeat)


def _million() -> Iterator[Job]:
    yield from single(_long("large-1m"), ["native", "torch", "native+bf16"])
    yield from single(_long("large-1m", task="loss"), ["native"])


def _medium() -> Iterator[Job]:
    yield from single(_long("medium-160k"), EVERY_ENGINE[:4])
    yield from single(_long("medium-160k", repeat=1), ["native", "torch"])
    kept = dataclasses.replace(_long("medium-160k"), memory="kept", waiting="PASSIVE")
    yield from single(kept, ["original", "native"])
    yield from single(_long("medium-160k", task="step"), ["native"])
    yield from single(_long("medium-450k"), FLOAT32)


def _multimolecule() -> Iterator[Job]:
    names = ("original", "multimolecule", "native")
    cases: Sequence[tuple[Task, int]] = (
        ("forward", 1024), ("forward", 32768), ("step", 1024), ("step", 8192),
    )  # fmt: skip
    for task, length in cases:
        yield Job(
            part="multimolecule", task=task, shape="small-32k", length=length, competitors=names
        )


def _lengths() -> Iterator[Job]:
    for length in (128, 256, 512, 1024, 2048, 4096, 8192, 16384):
        yield Job(
            part="lengths", task="forward", shape="small-32k", length=length,
            competitors=EVERY_ENGINE,
        )  # fmt: skip


def _growth() -> Iterator[Job]:
    """Eight layers of width 256, the shape of the three longest models, from short to long."""
    names = ("original", "native", "torch", "attention")
    for length in (128, 256, 512, 1024, 4096):
        yield Job(part="growth", task="forward", shape="large-1m", length=length, competitors=names)
    for length in (16384, 65536):
        job = Job(part="growth", task="forward", shape="large-1m", length=length)
        yield from single(job, names)
        yield from single(dataclasses.replace(job, repeat=1), names[1:3])
    yield from single(Job(part="growth", task="forward", shape="large-1m", length=4096), names)


def _shapes() -> Iterator[Job]:
    """The smaller published shapes at their full length; the longer ones are in other parts."""
    for shape in ("tiny-1k", "tiny-1k-d256", "tiny-16k-d128"):
        length = preset(shape).max_seq_len - 2
        for batch in (1, 16) if length == 1024 else (1,):
            yield Job(
                part="shapes", task="forward", shape=shape, length=length, batch=batch,
                competitors=EVERY_ENGINE,
            )  # fmt: skip
        for task in ("loss", "step"):
            yield Job(
                part="shapes", task=task, shape=shape, length=length, competitors=FLOAT32
            )  # fmt: skip
    yield Job(
        part="shapes", task="loss", shape="small-32k", length=32768, competitors=FLOAT32
    )  # fmt: skip


def _memory() -> Iterator[Job]:
    forward = Job(part="memory", task="forward", shape="small-32k", length=32768)
    yield from single(
        forward, ("original", "multimolecule", "native", "torch", "native+bf16", "plain")
    )
    for length in (4096, 32768):
        step = Job(part="memory", task="step", shape="small-32k", length=length)
        names = ("original", "multimolecule", "native", "torch", "plain")
        yield from single(step, names)


# Microseconds a token and layer of width 256 for a forward pass on two cores, as a guess for the
# progress line and the limits of time; never for a result.
_GUESS: Final[Mapping[str, float]] = {
    "original": 28, "multimolecule": 28, "attention": 8, "plain": 14, "torch": 10.5,
    "torch+bf16": 7.5, "native": 5.2, "native+bf16": 3.5,
}  # fmt: skip
_ATTENTION_GUESS: Final = 1.7e-3  # more, for each token of the sequence
_STEP_GUESS: Final = 3.0
ROUNDS_SECONDS: Final = 4.0
LONG_ROUND: Final = 20.0


def guessed_seconds(job: Job) -> float:
    """About how long the job takes on two cores, with starting up."""
    if job.task == "limits":
        return 20.0
    start = 3.0 + 6.0 * ("multimolecule" in job.competitors) + 0.3 * len(job.competitors)
    calls = sum(_call_guess(job, name) for name in job.competitors)
    if job.neighbour:
        calls *= 6
    if job.task == "parts":
        return start + 2 * calls
    return start + (calls if job.once else (1 + rounds_for(calls)) * calls)


def rounds_for(round_seconds: float) -> int:
    """How often competitors alternate when one round of all takes so long."""
    if round_seconds > LONG_ROUND:
        return 2
    return min(max(int(ROUNDS_SECONDS / max(round_seconds, 1e-9)), 3), 15)


def _call_guess(job: Job, name: str) -> float:
    config = PRESETS[job.shape]
    each = _GUESS[name] * config.d_model / 256
    if name == "attention":
        each += _ATTENTION_GUESS * job.length * config.d_model / 256
    if job.memory == "kept" and name in ("original", "multimolecule"):
        each *= 0.6
    seconds = 1e-6 * each * config.n_layer * job.batch * job.length
    return max(seconds * (_STEP_GUESS if job.task == "step" else 1.0), 2e-3)
