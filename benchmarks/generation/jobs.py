"""What is measured: jobs, with the time that each is expected to take."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from benchmarks import measurements
from hyenadna.config import ModelConfig, preset

Way = Literal["ours", "recompute", "direct"]
Task = Literal["ours", "recompute", "direct", "blocks", "whole", "split"]
NAMES: Final[Mapping[Way, str]] = {
    "ours": "ours",
    "recompute": "full recompute",
    "direct": "direct cached sum",
}
RAISED: Final = {"tiny-1k": 131_072 + 1_024}
"""`max_seq_len` of shapes that are too short as they are published."""
BLOCKS: Final = (16, 32, 64, 128, 256, 512, 1024)
CONTEXTS: Final = (1_000, 8_000, 32_000, 128_000)
SHORT_CONTEXTS: Final = (16, 128)
"""Where the ways might cross."""
WHOLE_CONTEXTS: Final = (1_000, 10_000, 30_000, 101_000)
STEPS: Final[Mapping[str, int]] = {"ours": 512, "recompute": 1, "direct": 16}
REPEATED_CONTEXT: Final = 1_000
"""The direct sum is timed in several rounds up to here, where the ways are close."""
ROUNDS: Final = 3


@dataclass(frozen=True, kw_only=True)
class Job(measurements.Job):
    """One measurement, made in one process of its own."""

    part: Literal["ways", "blocks", "whole", "split"]
    """The section of the page that it belongs to."""
    task: Task
    shape: str
    """Name of a published shape."""
    context: int = 1_000
    """Bases before the first new one."""
    batch: int = 1
    """Sequences that are generated together; they branch from one prompt."""
    new: int
    """New bases of each sequence."""

    def title(self) -> str:
        """The job in a few words, for progress."""
        rows = f", {self.batch} rows" if self.batch > 1 else ""
        return f"{self.part}: {self.task} {self.shape}, {self.new:,} after {self.context:,}{rows}"

    def config(self) -> ModelConfig:
        """The shape of the model, without dropout."""
        config = preset(self.shape)
        longest = RAISED.get(self.shape, config.max_seq_len)
        return config.replace(embed_dropout=0.0, max_seq_len=longest)


def quick_plan() -> list[Job]:
    """A plan of less than two minutes that touches everything but the long contexts."""
    return [
        *_ways("tiny-1k", CONTEXTS[:2]),
        *_ways("large-1m", CONTEXTS[:2]),
        *_split("tiny-1k"),
        *_split("large-1m"),
        _blocks("tiny-1k", 1),
        *_whole(5_000, (1_000, 6_000)),
    ]


def full_plan() -> list[Job]:
    """Everything."""
    return [
        *_ways("tiny-1k", (*SHORT_CONTEXTS, *CONTEXTS)),
        *_ways("large-1m", (*SHORT_CONTEXTS, *CONTEXTS)),
        *(_way("ours", shape, n, batch=16) for shape in ("tiny-1k", "large-1m") for n in CONTEXTS),
        *_split("tiny-1k", batches=(1, 16)),
        *_split("large-1m", batches=(1, 16)),
        *(_blocks(s, b) for s in ("tiny-1k", "small-32k", "large-1m") for b in (1, 16)),
        *_whole(100_000, WHOLE_CONTEXTS),
    ]


def _way(way: Way, shape: str, context: int, *, batch: int = 1) -> Job:
    return Job(
        part="ways", task=way, shape=shape, context=context, batch=batch, new=STEPS[way]
    )  # fmt: skip


def _ways(shape: str, contexts: tuple[int, ...]) -> Iterator[Job]:
    """The three ways one after the other at each context, so that they meet the same machine."""
    for context in contexts:
        for way in ("ours", "recompute", "direct"):
            yield _way(way, shape, context)


def _split(shape: str, batches: tuple[int, ...] = (1,)) -> Iterator[Job]:
    for batch in batches:
        yield Job(part="split", task="split", shape=shape, batch=batch, new=512)


def _blocks(shape: str, batch: int) -> Job:
    return Job(part="blocks", task="blocks", shape=shape, batch=batch, new=1024)


def _whole(new: int, contexts: tuple[int, ...]) -> Iterator[Job]:
    shape = "medium-450k"
    yield Job(part="whole", task="whole", shape=shape, new=new)
    for context in contexts:
        for way in ("recompute", "direct"):
            yield dataclasses.replace(_way(way, shape, context), part="whole")


# Guesses for the progress line and the limits of time, on two cores; never for a result.
_START: Final = 4.0
_STEP: Final = 0.35e-6  # seconds a step, layer and channel
_FORWARD: Final = 2e-8  # seconds a token, layer and channel


def guessed_seconds(job: Job) -> float:
    """About how long the job takes on two cores, with starting up."""
    config = job.config()
    size = config.n_layer * config.d_model
    rows = (1 + job.batch) / 2
    step, forward = _STEP * size * rows, _FORWARD * size * job.context
    seconds = {
        "ours": (ROUNDS + 1) * job.new * step + 3 * forward,
        "recompute": 4 * forward,
        "direct": 4 * forward + 2 * job.new * 1e-9 * size * job.context,
        "blocks": ROUNDS * len(BLOCKS) * 1.3 * job.new * step,
        "whole": 1.4 * job.new * step + _FORWARD * size * (job.context + job.new),
        "split": 12 * job.new * step,
    }
    return _START + seconds[job.task]
