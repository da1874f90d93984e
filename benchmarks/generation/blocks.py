"""Time of a step by the length of the block that is added one by one."""

from __future__ import annotations

import statistics
from typing import Any, cast

from benchmarks.generation.jobs import BLOCKS, ROUNDS, Job
from benchmarks.generation.ways import filter_bytes, job_tokens, step_seconds
from benchmarks.long_context.competitors import random_model

from hyenadna.model.decoding import Decoder
from hyenadna.model.decoding.state import HyenaState


def measure_blocks(job: Job) -> dict[str, Any]:
    """Mean seconds of a step of all rows, by block; the blocks alternate, A B A B.

    All run through `job.new` steps with the folds that belong to them. Longer folds are the same
    for every block, so that the differences are those of any longer run.
    """
    model = random_model(job.config()).eval()
    prompt, new = job_tokens(job)
    decoders = {block: Decoder(model, block=block) for block in BLOCKS}
    rows = {}
    for block, decoder in decoders.items():
        first = decoder.prefill([prompt], room=2 * job.new)
        rows[block] = first.select([0] * job.batch)
        filter_bytes(rows[block], job.new)  # makes the spectra, which are made once
        step_seconds(decoder, rows[block].clone(), new[:64])
    seconds: dict[str, list[float]] = {str(block): [] for block in BLOCKS}
    for _ in range(ROUNDS):
        for block, decoder in decoders.items():
            spent = step_seconds(decoder, rows[block].clone(), new)
            seconds[str(block)].append(statistics.mean(spent))
    used = cast(HyenaState, Decoder(model).prefill([prompt], room=0).layers[0])
    return {"seconds": seconds, "default": used.convolutions[0].filter.block}
