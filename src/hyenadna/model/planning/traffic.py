"""Bytes that a rank sends to others in a step, by purpose.

As `hyenadna.train.parallel` and `hyenadna.model.parallel` have it: nothing of it is in half
precision. An exchange of positions for channels sends (R - 1) / R of what a rank holds; a gather or
a sum in parts (R - 1) / R of the whole; a sum of all, twice that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hyenadna.model.planning.context import mixed_channels
from hyenadna.model.planning.setup import Setup


@dataclass(frozen=True)
class Traffic:
    """Bytes that one rank sends, and how often ranks meet."""

    exchanges: float
    """Positions for channels and back, around long convolutions, by the ranks of a sequence."""
    halos: float
    """Last positions of the rank before, for short filters."""
    gradients: float
    """DDP: the sum of all gradients. FSDP: gradients in parts."""
    parameters: float
    """FSDP: whole blocks, forward and backward."""
    meetings: float
    """Calls of exchanges and halos."""


def traffic(setup: Setup) -> Traffic:
    """What a rank sends in a step."""
    exchanges, halos, meetings = _context(setup)
    share = (setup.ranks - 1) / setup.ranks
    whole = 4.0 * setup.config.num_parameters() * share
    gradients = parameters = 0.0
    if setup.fsdp:
        parameters = setup.passes * whole * (2 if setup.training else 1)
        gradients = whole * setup.training
    elif setup.training:
        gradients = 2 * whole
    return Traffic(exchanges, halos, gradients, parameters, meetings)


def exchange_bytes(setup: Setup) -> float:
    """Bytes that one rank puts into exchanges in one pass, those to itself included.

    For each layer and each of the N - 1 convolutions: the gated signal there, the filter there, and
    the result back. In training three times: forward, again, and their gradients.
    """
    if setup.context == 1:
        return 0.0
    config = setup.config
    times = 3 if setup.training else 1
    each = (2 * setup.rows_at_once + 1) * config.filter_channels * setup.here
    return 4.0 * times * config.n_layer * each


def _context(setup: Setup) -> tuple[float, float, float]:
    if setup.context == 1:
        return 0.0, 0.0, 0.0
    config, ranks = setup.config, setup.context
    times = 3 if setup.training else 1
    others = (ranks - 1) / ranks
    reach, wide = config.short_filter_order - 1, config.projected_width
    # the halo is gathered from all ranks, for it is a few positions
    halos = 4.0 * setup.rows_at_once * wide * reach * (ranks - 1) * times * config.n_layer
    channels = mixed_channels(setup.rows_at_once, setup.here, ranks, gpu=setup.gpu)
    calls = math.ceil(config.d_model / channels) * config.n_layer * times
    meetings = calls * (3 * (config.hyena_order - 1) + 1)
    passes = setup.passes
    return passes * others * exchange_bytes(setup), passes * halos, float(passes * meetings)
