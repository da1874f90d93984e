"""The implicit filter: lag positions in, one long causal filter per channel out.

Formulas: shared specification of the reference, "Implicit filter"; paper arXiv 2306.15794,
section 3 and Poli et al. 2023 (arXiv 2302.10866), section 3.3.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache

import torch
from torch import Tensor, nn

_flag_lock = threading.RLock()

# Decay of the slowest and the fastest channel: the window falls to TARGET at FAST or SLOW of M.
_TARGET, _SLOW, _FAST = 1e-2, 1.5, 0.3


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _rates_on(channels: int, device: torch.device) -> Tensor:
    """`decay_rates`; kept, for every copy to a GPU waits for all its work."""
    return decay_rates(channels).to(device)


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # cached: a table made inside inference mode could never train
def lag_features(
    max_seq_len: int, emb_dim: int, device: torch.device, scale: int, /
) -> tuple[Tensor, Tensor]:
    """Features z (1, M, E) and normalised lags t (1, M, 1), float32, of the lags 0..M-1.

    `t = l / (S-1)`; `z = [t, cos(f w), -sin(f w)]` with `w = 2 pi l / S` and `(E-1)/2` frequencies
    f evenly spaced from 1e-4. The scale S is M but in a model that was made longer
    (`ModelConfig.lag_scale`); the length of the input does not matter. Computed in float64 and
    rounded once; all layers of all models of this shape share the one table.
    """
    bands = (emb_dim - 1) // 2
    lag = torch.arange(max_seq_len, dtype=torch.float64, device="cpu")
    t = (lag / (scale - 1))[:, None]
    frequencies = torch.linspace(1e-4, bands - 1, bands, dtype=torch.float64, device="cpu")
    angle = frequencies * (2 * math.pi / scale * lag[:, None])
    z = torch.cat([t, torch.cos(angle), -torch.sin(angle)], dim=1)
    return z[None].float().to(device), t[None].float().to(device)


def decay_rates(channels: int) -> Tensor:
    """Signed decay rate of every channel, float32, shape (1, 1, C), from -3.07 to -15.35."""
    slow, fast = math.log(_TARGET) / _SLOW, math.log(_TARGET) / _FAST
    return torch.linspace(slow, fast, channels, dtype=torch.float32, device="cpu")[None, None]


def no_tf32(device: torch.device) -> AbstractContextManager[None]:
    """Within the block, float32 products on a GPU are float32, whatever torch was told before.

    TF32 has the 11 bits of fp16: at a lag axis of 160,002 the sines turn its rounding into 8 % of
    a filter. Not for what torch compiles, where the flag is not for us to set.
    """
    if device.type != "cuda" or torch.compiler.is_compiling():
        return nullcontext()
    return _without_tf32()


@contextmanager
def _without_tf32() -> Iterator[None]:
    matmul = torch.backends.cuda.matmul
    with _flag_lock:  # the flag is one for all threads
        before = matmul.fp32_precision
        if before != "tf32":
            yield
            return
        matmul.fp32_precision = "ieee"
        try:
            yield
        finally:
            matmul.fp32_precision = before


class Sine(nn.Module):
    """`sin(freq * x)` with a trained frequency per unit; one module serves all layers."""

    freq: Tensor

    def __init__(self, width: int, freq: float, *, train: bool) -> None:
        super().__init__()
        value = freq * torch.ones(1, width)
        if train:
            self.freq = nn.Parameter(value)
        else:
            self.register_buffer("freq", value, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.freq.to(x.dtype) * x)


class StoredTables(nn.Module):
    """Holds tables of a checkpoint that differ from the formula; empty otherwise."""


class ImplicitFilter(nn.Module):
    """A small sine network from lag to filter value, times an exponential window.

    `k[c, l] = net(z_l)[c] * (exp(-t_l |delta_c|) + shift)` for C = D (N-1) channels; for N > 2 the
    channel axis is (N-1, D). `bias` is the skip term of the long convolution, (C,).
    """

    def __init__(
        self,
        channels: int,
        *,
        max_seq_len: int,
        lag_scale: int | None = None,
        emb_dim: int,
        width: int,
        num_inner_mlps: int,
        activation_freq: float,
        train_freq: bool,
        window_shift: float,
    ) -> None:
        super().__init__()
        self.max_seq_len, self.emb_dim, self.channels = max_seq_len, emb_dim, channels
        self.lag_scale = lag_scale or max_seq_len
        self.window_shift = window_shift
        self.bias = nn.Parameter(torch.randn(channels))
        sine = Sine(width, activation_freq, train=train_freq)
        layers: list[nn.Module] = [nn.Linear(emb_dim, width), sine]
        for _ in range(num_inner_mlps):
            layers += [nn.Linear(width, width), sine]
        layers.append(nn.Linear(width, channels, bias=False))
        self.implicit_filter = nn.Sequential(*layers)
        self.pos_emb = StoredTables()
        self.modulation = StoredTables()

    def tables(self) -> dict[str, Tensor]:
        """The tables in effect: `pos_emb.z` (1, M, E), `pos_emb.t` (1, M, 1), `modulation.deltas`
        (1, 1, C); computed by formula unless a checkpoint stored others."""
        device = self.bias.device
        z, t = lag_features(self.max_seq_len, self.emb_dim, device, self.lag_scale)
        formula = {"pos_emb.z": z, "pos_emb.t": t}
        formula["modulation.deltas"] = _rates_on(self.channels, device)
        return formula | self.stored()

    def stored(self) -> dict[str, Tensor]:
        """The tables that are kept instead of the formula's (see `keep_table`), by name."""
        rooms = {"pos_emb": self.pos_emb, "modulation": self.modulation}
        return {f"{room}.{key}": v for room in rooms for key, v in rooms[room].named_buffers()}

    def keep_table(self, name: str, value: Tensor) -> None:
        """Use the stored `value` for the table `name` (see `tables`) instead of the formula.

        It becomes a persistent buffer, so that saving the model keeps it. Raises ValueError for an
        unknown name or another shape.
        """
        expected = self.tables().get(name)
        if expected is None or expected.shape != value.shape:
            raise ValueError(f"no table {name} of shape {tuple(value.shape)} in this filter")
        room, _, key = name.partition(".")
        getattr(self, room).register_buffer(key, value.clone())

    @property
    def dtype(self) -> torch.dtype:
        """Type that filters are computed in: float32, or float64 in a float64 model.

        Never below float32, also under autocast: rounding z to half precision at a lag axis of
        160,002 changes the filter by 12 % (fp16) or 89 % (bf16).
        """
        return torch.float64 if self.bias.dtype == torch.float64 else torch.float32

    def forward(self, length: int) -> Tensor:
        """The filter at lags 0..length-1: (C, length), without its skip term."""
        return self.filters(self.hidden(0, length), 0)

    def hidden(self, start: int, stop: int) -> Tensor:
        """Output of the network's last sine at lags start..stop-1: (stop - start, F)."""
        device = self.bias.device
        with torch.autocast(device.type, enabled=False), no_tf32(device):
            hidden = self.tables()["pos_emb.z"][0, start:stop].to(self.dtype)
            for layer in list(self.implicit_filter)[:-1]:
                if isinstance(layer, nn.Linear):
                    hidden = nn.functional.linear(
                        hidden, layer.weight.to(self.dtype), layer.bias.to(self.dtype)
                    )
                else:
                    hidden = layer(hidden)
        return hidden

    def filters(self, hidden: Tensor, start: int, channels: slice = slice(None)) -> Tensor:
        """The filter (c, n) at lags start..start+n-1, given `hidden` (n, F) there."""
        tables = self.tables()
        last = self.implicit_filter[-1].weight
        assert isinstance(last, Tensor)
        device = self.bias.device
        with torch.autocast(device.type, enabled=False), no_tf32(device):
            network = last[channels].to(self.dtype) @ hidden.T
            t = tables["pos_emb.t"][0, start : start + len(hidden), 0].to(self.dtype)
            rate = tables["modulation.deltas"][0, 0, channels].to(self.dtype).abs()
            return network * torch.exp(-rate[:, None] * t).add_(self.window_shift)


def filters(model: nn.Module) -> dict[str, ImplicitFilter]:
    """The implicit filters of a model, or a part of one, by name; none in an attention model."""
    return {n: m for n, m in model.named_modules() if isinstance(m, ImplicitFilter)}
