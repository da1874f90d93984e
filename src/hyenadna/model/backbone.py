"""The network: token table, blocks, final norm, language-model head.

Parameter names are those of the published checkpoints without their leading `hyena.` or `model.`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, cast

import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hyenadna.config import ModelConfig
from hyenadna.errors import InputError
from hyenadna.model.attention import CausalAttention
from hyenadna.model.engine import pages
from hyenadna.model.engine.block import Pass
from hyenadna.model.engine.choose import (
    Choice,
    EngineSettings,
    all_like,
    choose_kernels,
    expects_call,
    require_native,
    require_triton,
    untouched,
)
from hyenadna.model.engine.ends import embed_tokens
from hyenadna.model.engine.run import (
    held_bytes,
    make_pass,
    needs_gradients,
    run_blocks,
    run_states,
)
from hyenadna.model.engine.sizes import Workload
from hyenadna.model.engine.spectra import SpectrumCache
from hyenadna.model.filter import ImplicitFilter, Sine, StoredTables, filters
from hyenadna.model.operator import HyenaOperator, ShortFilter


class MLP(nn.Module):
    """D -> I -> D with the tanh form of GELU."""

    def __init__(self, d_model: int, d_inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(d_model, d_inner)
        self.fc2 = nn.Linear(d_inner, d_model)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(nn.functional.gelu(self.fc1(x), approximate="tanh"))
        return out


def make_mixer(config: ModelConfig) -> nn.Module:
    """The sequence mixer that the configuration names."""
    if config.mixer == "attention":
        return CausalAttention(
            config.d_model, num_heads=config.num_heads, dropout=config.hyena_dropout
        )
    filter_fn = ImplicitFilter(
        config.filter_channels,
        max_seq_len=config.max_seq_len,
        lag_scale=config.lag_scale,
        emb_dim=config.emb_dim,
        width=config.filter_order,
        num_inner_mlps=config.num_inner_mlps,
        activation_freq=config.activation_freq,
        train_freq=config.train_freq,
        window_shift=config.window_shift,
    )
    return HyenaOperator(
        config.d_model,
        order=config.hyena_order,
        short_filter_order=config.short_filter_order,
        filter_fn=filter_fn,
        dropout=config.hyena_dropout,
    )


class Block(nn.Module):
    """Pre-norm block: `a = h + mixer(norm1(h))`, then `a + mlp(norm2(a))`.

    The residual stream keeps its own type (float32), also under autocast. `checkpoint_mixer` and
    `checkpoint_mlp` trade memory for a second forward pass of that part.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.mixer = make_mixer(config)
        self.norm2 = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.mlp = MLP(config.d_model, config.inner_width)
        self.dropout = nn.Dropout(config.resid_dropout)
        self.checkpoint_mixer = False
        self.checkpoint_mlp = False

    def forward(self, h: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        mixed = self._run(self._mix, h, recompute=self.checkpoint_mixer)
        h = h + self.dropout(mixed).to(h.dtype)
        inner = self._run(self._feed, h, recompute=self.checkpoint_mlp)
        return h + self.dropout(inner).to(h.dtype)

    def _mix(self, h: Tensor) -> Tensor:
        out: Tensor = self.mixer(self.norm1(h))
        return out

    def _feed(self, h: Tensor) -> Tensor:
        out: Tensor = self.mlp(self.norm2(h))
        return out

    def _run(self, part: Any, h: Tensor, *, recompute: bool) -> Tensor:
        if recompute and self.training and torch.is_grad_enabled():
            out: Tensor = checkpoint(part, h, use_reentrant=False)
        else:
            out = part(h)
        return out


class Embeddings(nn.Module):
    """The token table; there are no positions in it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.padded_vocab_size, config.d_model)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.word_embeddings(tokens)
        return out


# What the engine knows how to compute: see `Backbone.engine_pass`.
_ENGINE_TYPES: Final = frozenset(
    {
        Block, MLP, HyenaOperator, ShortFilter, ImplicitFilter, Sine, StoredTables,
        nn.Linear, nn.LayerNorm, nn.Dropout, nn.Sequential,
    }
)  # fmt: skip


@lru_cache(maxsize=8)
def _block_shapes(config: ModelConfig) -> dict[str, torch.Size]:
    """Shapes of a block's parameters by name."""
    with torch.device("meta"):
        return {name: p.shape for name, p in Block(config).named_parameters()}


def engine_fits(block: Block, config: ModelConfig) -> bool:
    """Whether the engine computes what this block does now.

    Order 2, no dropout, nothing added, and every parameter of the shape that the configuration
    says: the kernels read memory by it.
    """
    mixer = block.mixer
    if {name: p.shape for name, p in block.named_parameters()} != _block_shapes(config):
        return False
    if not untouched(block, _ENGINE_TYPES) or not isinstance(mixer, HyenaOperator):
        return False
    dropout = any(m.training and m.p > 0 for m in (block.dropout, mixer.dropout))
    return mixer.order == 2 and mixer.conv_method == "fft" and not dropout


class Backbone(nn.Module):
    """Tokens to hidden states: table, blocks, final norm.

    The blocks run through the engine (`hyenadna.model.engine`) where it fits, see `set_engine`,
    and otherwise as the modules they are, the engine's slow twin.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.dropout = nn.Dropout(config.embed_dropout)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.engine = EngineSettings()
        self._spectra = SpectrumCache()

    def set_engine(
        self,
        kernels: Choice = "auto",
        max_memory: str | int | None = None,
        *,
        offload: str | Path | None = None,
    ) -> None:
        """See `HyenaDNA.set_engine`."""
        settings = EngineSettings.of(kernels, max_memory, offload)
        if settings.kernels == "native":
            require_native(self.config, self.ln_f.weight.dtype)
        if settings.kernels == "triton":
            require_triton(self.config, self.ln_f.weight.dtype)
        self.engine = settings
        self._spectra = SpectrumCache()

    def forward(self, h: Tensor) -> Tensor:
        """Embedded tokens (B, L, D) -> (B, L, D), after the final norm; h is left as it is."""
        run = self.engine_pass(h, h.shape[0], h.shape[1])
        return self.norm(self.stream(h, run, owned=False), run)

    def engine_pass(
        self, like: Tensor, batch: int, length: int, *, states: bool = False, besides: int = 0
    ) -> Pass | None:
        """How the engine will run (B, L) tokens; None where it does not fit.

        like: the embedded tokens, or the table that they will come from. states: whether the
        outputs of all blocks will be kept. besides: bytes that others will take by then.

        It fits hyena models of order 2 without dropout inside the blocks, in float32 or float64 (or
        under bf16 autocast), on a CPU or an NVIDIA GPU (there also under fp16 autocast); with
        kernels="torch" on any device. Raises InputError where `max_memory` is too small, or native
        or Triton kernels are asked for and there are none.
        """
        blocks = self._blocks()
        kernels = choose_kernels(self.engine, self.config, like)
        if kernels is None or min(batch, length, len(blocks)) < 1:
            return None
        if length > self.config.max_seq_len or like.shape[-1] != self.config.d_model:
            return None  # the modules say what is wrong
        if not all(
            engine_fits(block, self.config) and all_like(like, block.parameters())
            for block in blocks
        ):
            return None
        work = Workload(
            self.config,
            batch,
            length,
            itemsize=like.element_size(),
            training=needs_gradients(blocks, like),
            threads=torch.get_num_threads(),
            offload=self.engine.offload is not None,
            states=states,
            native=kernels.name == "native",
            gpu=like.is_cuda or kernels.name == "triton",
            product_itemsize=kernels.mixed_like(like.detach()[:0]).element_size(),
        )
        # what is embedded already is the first of the streams that a backward pass keeps
        held = work.stream if work.training and like.ndim == 3 else 0
        return make_pass(kernels, self.engine, work, self._spectra, like.device, held, besides)

    def stream(
        self, h: Tensor, run: Pass | None, *, owned: bool, blocks: int | None = None
    ) -> Tensor:
        """The residual stream (B, L, D) after the first `blocks` blocks, before the final norm.

        run: what `engine_pass` gave. owned: whether h may be overwritten. blocks: all when left
        out.
        """
        h = self.dropout(h)
        first = self._blocks()[:blocks]
        if run is None:
            for block in first:
                h = block(h)
            return h
        if needs_gradients(first, h) or owned:
            return run_blocks(run, first, h.contiguous())
        return run_blocks(run, first, pages.copy_of(h))

    def norm(self, h: Tensor, run: Pass | None) -> Tensor:
        """The final norm of what `stream` gave, in its place where there is no graph."""
        if run is not None and not torch.is_grad_enabled() and self.plain_norm(h):
            run.kernels.norm(h, self.ln_f.weight, self.ln_f.bias, self.ln_f.eps)
            return h
        out: Tensor = self.ln_f(h)
        return out

    def plain_norm(self, h: Tensor) -> bool:
        """Whether the final norm is as it was made, in the type of h."""
        return untouched(self.ln_f, frozenset({nn.LayerNorm})) and all_like(
            h, self.ln_f.parameters()
        )

    def hidden_states(self, h: Tensor) -> list[Tensor]:
        """n_layer + 2 tensors (B, L, D): embeddings, residual stream after each block, final norm.

        The layout of `output_hidden_states` of the published port.
        """
        run = self.engine_pass(h, h.shape[0], h.shape[1], states=True)
        states = [h]
        if run is not None:
            states += run_states(run, self._blocks(), h.contiguous())
        else:
            for layer in self.layers:
                states.append(layer(states[-1]))
        return [*states, self.ln_f(states[-1])]

    def _blocks(self) -> Sequence[Block]:
        return cast(Sequence[Block], list(self.layers))


class HyenaDNA(nn.Module):
    """A causal language model of DNA: `model(tokens) -> logits (B, L, V)`.

    Output at position t depends on tokens 0..t only, and not on the rest of the batch; padding
    belongs on the right, where causality keeps it from every real position.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        self.lm_head: nn.Linear | None = None
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.d_model, config.padded_vocab_size, bias=False)
        self.reset_parameters()

    @property
    def head_weight(self) -> Tensor:
        """Matrix (V, D) from hidden states to logits: the token table where the head is tied."""
        table: Tensor = self.backbone.embeddings.word_embeddings.weight
        return table if self.lm_head is None else self.lm_head.weight

    def forward(self, tokens: Tensor | npt.ArrayLike) -> Tensor:
        """Logits (B, L, V) of the next token, float32 (float64 in a float64 model).

        tokens: integer ids (B, L), or (L,) for one sequence. Raises InputError for an empty
        sequence or one longer than `max_seq_len`.
        """
        return self.logits(self.embed(tokens))

    def embed(self, tokens: Tensor | npt.ArrayLike) -> Tensor:
        """Hidden states (B, L, D) after the final norm; arguments and errors as for `forward`."""
        if expects_call(self.backbone):
            out: Tensor = self.backbone(self.backbone.embeddings(self._check(tokens)))
            return out
        h, run = self.residual_stream(tokens)
        return self.backbone.norm(h, run)

    def layer_states(self, tokens: Tensor | npt.ArrayLike, layer: int = -1) -> Tensor:
        """One of `hidden_states`, (B, L, D), and nothing of the blocks behind it.

        layer: 0 for the embedded tokens, k for the residual stream after block k, -1 for the states
        after the final norm. Other arguments and errors as for `forward`; InputError for a layer
        that is not there.
        """
        require_layer(self.config, layer)
        if layer == -1:
            return self.embed(tokens)
        if layer == 0:
            out: Tensor = self.backbone.embeddings(self._check(tokens))
            return out
        return self.residual_stream(tokens, blocks=layer)[0]

    def residual_stream(
        self, tokens: Tensor | npt.ArrayLike, *, blocks: int | None = None
    ) -> tuple[Tensor, Pass | None]:
        """The stream (B, L, D) after the first `blocks` blocks (all when left out), and the pass.

        The engine's pass that made it, if it did. Arguments and errors as for `forward`.
        """
        ids = self._check(tokens)
        embeddings = self.backbone.embeddings
        table = embeddings.word_embeddings.weight
        run = self.backbone.engine_pass(table, ids.shape[0], ids.shape[1])
        bare = untouched(embeddings, frozenset({Embeddings, nn.Embedding}))
        if run is not None and bare and table.shape == (self.vocab_rows, self.config.d_model):
            h = embed_tokens(run.kernels, table, ids)
            return self.backbone.stream(h, run, owned=True, blocks=blocks), run
        return self.backbone.stream(embeddings(ids), run, owned=False, blocks=blocks), run

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of hidden states (..., D) after the final norm.

        float32 also under autocast (the head is narrow, and the loss is worth the digits).
        """
        dtype = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        with torch.autocast(hidden.device.type, enabled=False):
            return nn.functional.linear(hidden.to(dtype), self.head_weight.to(dtype))

    def hidden_states(self, tokens: Tensor | npt.ArrayLike) -> list[Tensor]:
        """All n_layer + 2 hidden states, each (B, L, D); see `Backbone.hidden_states`."""
        return self.backbone.hidden_states(self.backbone.embeddings(self._check(tokens)))

    def set_engine(
        self,
        kernels: Choice = "auto",
        max_memory: str | int | None = None,
        *,
        offload: str | Path | None = None,
    ) -> None:
        """Choose how the blocks are computed; all choices give the same values up to rounding.

        kernels: `native` (compiled C++, on a CPU), `triton` (on an NVIDIA GPU), `torch`, `plain`
        (the modules themselves, the slow twin), or `auto`: native or Triton where there are any for
        this model, else torch. A pass that the engine cannot run, see `Backbone.engine_pass`, is
        plain whatever is chosen. max_memory: bytes, or a size such as `4GiB`, that the whole
        process may hold (on a GPU: its tensors there); blocks are cut to fit, and a plain pass does
        not heed it. offload: a folder for the blocks' inputs between the forward and the
        backward pass, on a disk with room for n_layer B L D numbers; None keeps them in memory.

        There are no second derivatives through the engine; take `plain` for them.

        Raises InputError for an unknown name, size or folder, and where native or Triton kernels
        are asked for and there are none; and later, before a pass that the budget is too small for.
        """
        self.backbone.set_engine(kernels, max_memory, offload=offload)

    def pass_memory(
        self, batch: int, length: int, *, training: bool = False, besides: int = 0
    ) -> int | None:
        """Estimated bytes of this process in a pass over (B, L) tokens; None for plain modules.

        On a GPU, of its tensors there.

        training: with a backward pass. besides: bytes that will be held by then and are not yet.
        Raises InputError where that is more than `max_memory`, with the length that would fit.
        """
        table = self.backbone.embeddings.word_embeddings.weight
        with torch.set_grad_enabled(training):
            run = self.backbone.engine_pass(table, batch, length, besides=besides)
        return None if run is None else held_bytes(table.device) + besides + run.plan.total_bytes

    def set_checkpointing(self, *, mixer: bool, mlp: bool) -> None:
        """Switch the recomputation of activations in the backward pass on or off.

        For plain modules: the engine always recomputes.
        """
        for layer in self.backbone.layers:
            assert isinstance(layer, Block)
            layer.checkpoint_mixer, layer.checkpoint_mlp = mixer, mlp

    def set_embed_dropout(self, rate: float) -> None:
        """Change the dropout on the token embeddings. Raises InputError outside [0, 1)."""
        self.config = self.config.replace(embed_dropout=rate)
        self.backbone.config = self.config
        self.backbone.dropout.p = rate

    def _check(self, tokens: Tensor | npt.ArrayLike) -> Tensor:
        device = self.backbone.embeddings.word_embeddings.weight.device
        ids = torch.as_tensor(tokens, device=device)
        ids = ids[None] if ids.ndim == 1 else ids
        if ids.ndim != 2 or ids.is_floating_point() or not len(ids):
            raise InputError(
                f"model: tokens are {ids.dtype} of shape {tuple(ids.shape)}; "
                "give integer ids of shape (B, L)"
            )
        if not 1 <= ids.shape[1] <= self.config.max_seq_len:
            raise InputError(
                f"model: sequence of {ids.shape[1]:,} tokens, but this model reads 1 to "
                f"{self.config.max_seq_len:,} (max_seq_len); cut it into windows or take a "
                "longer model (`hyenadna models` lists them)"
            )
        if device.type == "cpu" and not 0 <= int(ids.min()) <= int(ids.max()) < self.vocab_rows:
            raise InputError(
                f"model: token ids {int(ids.min())} to {int(ids.max())}; they must be in 0 .. "
                f"{self.vocab_rows - 1} (hyenadna.encode makes them)"
            )
        return ids.long()

    @property
    def vocab_rows(self) -> int:
        """Rows of the token table, V."""
        return self.config.padded_vocab_size

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Fresh weights as in the paper's code: see `initialise`."""
        initialise(self)


def require_layer(config: ModelConfig, layer: int) -> None:
    """Nothing, where `HyenaDNA.layer_states` has this layer. Raises InputError otherwise."""
    if not -1 <= layer <= config.n_layer:
        raise InputError(
            f"layer is {layer}; this model has 0 (embedded tokens), 1 to {config.n_layer} (after "
            "each block) and -1 (after the final norm)"
        )


@torch.no_grad()
def initialise(model: HyenaDNA) -> None:
    """Draw the weights from torch's global generator, as the original training code does.

    See `initialise_module`; the skip term is N(0, 1) and the short filter as torch's Conv1d.
    """
    for name, module in model.named_modules():
        initialise_module(name, module, model.config)


@torch.no_grad()
def initialise_module(name: str, module: nn.Module, config: ModelConfig) -> None:
    """Draw the weights of one Linear, Embedding or LayerNorm; other modules are left as they are.

    Linear (also of the filter network) and table weights N(0, 0.02), biases 0; the two matrices
    that write into the residual stream, named `out_proj` and `fc2`, N(0, 0.02 / sqrt(2 n_layer))
    (the published port names this rescaling but never applies it).
    """
    std = config.initializer_range
    if isinstance(module, nn.Linear):
        writes = name.rpartition(".")[2] in ("out_proj", "fc2")
        nn.init.normal_(module.weight, std=std / math.sqrt(2 * config.n_layer) if writes else std)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=std)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


@torch.no_grad()
def rescale_filters(model: nn.Module) -> None:
    """Redraw the filter networks' weights with standard deviation 1 / sqrt(inputs).

    With the paper's 0.02 the long filters start small and smooth, and learn slowly; see
    docs/decisions/filter-initialisation.md for the measured gain.
    A model without implicit filters is left as it is.
    """
    for filter_fn in filters(model).values():
        for layer in filter_fn.implicit_filter:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
