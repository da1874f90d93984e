"""Step by step equals the full forward pass, whatever happens between the steps."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from hyenadna.checkpoint.load import load
from hyenadna.config import ModelConfig
from hyenadna.conv import online
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.decoding import Decoder, DecodingState, decoder
from hyenadna.model.engine.native_kernels import available
from hyenadna.model.likelihood import target_nats
from hyenadna.native import why_not

SMALL = ModelConfig(d_model=32, n_layer=2, max_seq_len=160, filter_order=16)
VARIANTS = {
    "three taps": SMALL,
    "one tap": SMALL.replace(short_filter_order=1),
    "seven taps, untied": SMALL.replace(short_filter_order=7, tie_word_embeddings=False),
    "order 3": SMALL.replace(hyena_order=3),
    "order 4, five taps": SMALL.replace(hyena_order=4, short_filter_order=5),
    "widths of no kernel": SMALL.replace(d_model=20, d_inner=28, filter_order=12),
    "attention": SMALL.replace(mixer="attention", num_heads=2),
}
KERNELS = ("native", "torch", "plain")


def make(config: ModelConfig, kernels: str = "auto", dtype=torch.float64, seed: int = 0):
    """A model with weights large enough that every part matters."""
    torch.manual_seed(seed)
    model = HyenaDNA(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model = model.to(dtype).eval()
    if kernels == "native" and not available(config, dtype):
        pytest.skip(f"no native kernels: {why_not() or config}")
    model.set_engine(kernels)
    return model


@torch.no_grad()
def full_logits(model: HyenaDNA, ids: torch.Tensor) -> torch.Tensor:
    """Logits of whole sequences, by the plain modules."""
    plain = copy.deepcopy(model)
    plain.set_engine("plain")
    return plain(ids)


def bases(batch: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(7, 12, (batch, length), generator=torch.Generator().manual_seed(seed))


class Walk:
    """Rows of known sequences of which a decoder reads more and more, checked at every step."""

    def __init__(self, model, lengths, room, *, block=8, tolerance=1e-9, ids=None):
        self.ids = bases(len(lengths), max(lengths) + room) if ids is None else ids
        self.wanted = full_logits(model, self.ids)
        self.decoder = Decoder(model, block=block)
        self.at, self.tolerance, self.room = list(lengths), tolerance, room
        prompts = [row[:n] for row, n in zip(self.ids, lengths, strict=True)]
        self.state = self.decoder.prefill(prompts, room=room)
        self.check(self.state.logits)

    def check(self, logits, back=1):
        wanted = torch.stack([w[n - back] for w, n in zip(self.wanted, self.at, strict=True)])
        torch.testing.assert_close(logits, wanted, atol=self.tolerance, rtol=0)

    def next(self, n):
        rows = [row[at : at + n] for row, at in zip(self.ids, self.at, strict=True)]
        self.at = [at + n for at in self.at]
        return torch.stack(rows)

    def step(self, n=1):
        for _ in range(n):
            self.check_all(self.decoder.step(self.state, self.next(1)[:, 0])[:, None])

    def extend(self, n):
        self.check_all(self.decoder.extend(self.state, self.next(n)))

    def check_all(self, logits):
        assert torch.equal(logits[:, -1], self.state.logits)
        for back in range(1, logits.shape[1] + 1):
            self.check(logits[:, -back], back)
        assert self.state.lengths.tolist() == self.at

    def select(self, rows):
        self.ids, self.wanted = self.ids[rows], self.wanted[rows]
        self.at = [self.at[row] for row in rows]
        self.state = self.state.select(rows)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_steps_and_chunks_equal_the_full_pass(variant, kernels):
    walk = Walk(make(VARIANTS[variant], kernels), [30, 1, 57, 30], room=100)
    walk.step(37)
    walk.extend(11)
    walk.step(2)
    walk.extend(1)
    walk.step(49)
    assert walk.state.room == 0


@pytest.mark.parametrize("kernels", KERNELS)
def test_float32(kernels):
    walk = Walk(make(SMALL, kernels, torch.float32), [50, 3], room=100, tolerance=2e-4)
    walk.step(40)
    walk.extend(20)
    walk.step(40)


actions = st.one_of(
    st.tuples(st.just("step"), st.integers(1, 20)),
    st.tuples(st.just("extend"), st.integers(1, 20)),
    st.tuples(st.just("select"), st.lists(st.integers(0, 2), min_size=3, max_size=3)),
    st.tuples(st.just("file"), st.none()),
)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(1, 40), min_size=3, max_size=3),
    st.lists(actions, max_size=6),
    st.sampled_from([1, 4, 16]),
    st.sampled_from(["auto", "plain"]),
)
def test_any_walk(tmp_path_factory, lengths, doings, block, kernels):
    walk = Walk(make(SMALL, kernels), lengths, room=60, block=block)
    for doing, what in doings:
        if doing == "file":
            path = tmp_path_factory.mktemp("walk") / "state.safetensors"
            walk.decoder.save(walk.state, path)
            walk.state = walk.decoder.load(path)
        elif doing == "select":
            walk.select(what)
        elif what <= walk.state.room:
            getattr(walk, doing)(what)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("case", ["base_o2", "deep_emb9", "order3", "lightning_ckpt/weights.ckpt"])
def test_golden_models(shared, case, kernels):
    """Every golden sequence read in four ways: halves one by one and at once."""
    model = load(shared / "golden" / case)
    if kernels == "native" and not available(model.config, torch.float64):
        pytest.skip(f"no native kernels: {why_not() or model.config}")
    model.set_engine(kernels)
    folder = shared / "golden" / case.split("/")[0]
    expected = load_file(folder / "expected.safetensors")
    for name, ids in load_file(folder / "tokens.safetensors").items():
        wanted = expected[f"logits.{name.split('.')[1]}"]
        length = ids.shape[1]
        prompt = max(1, length // 2)
        steps = min(100, (length - prompt) // 2)
        for dtype, tolerance in ((torch.float32, 2e-4), (torch.float64, 1e-9)):
            model.to(dtype)
            walk = Walk(
                model, [prompt] * len(ids), length - prompt, block=16, tolerance=tolerance, ids=ids
            )
            walk.step(steps)
            if length > prompt + steps:
                walk.extend(length - prompt - steps)
            assert walk.state.room == 0
            if dtype == torch.float32:  # and the original's own logits
                torch.testing.assert_close(
                    walk.state.logits, wanted[:, walk.at[0] - 1], atol=2e-4, rtol=0
                )


def test_rows_do_not_depend_on_their_batch():
    model = make(SMALL, dtype=torch.float32)
    together = Walk(model, [20, 20, 7, 33], room=50, tolerance=2e-4)
    alone = Walk(model, [7], room=50, tolerance=2e-4, ids=together.ids[2:3])
    for _ in range(50):
        together.step()
        alone.step()
        assert torch.equal(together.state.logits[2], alone.state.logits[0])


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("variant", ["three taps", "order 3", "attention"])
def test_scores_equal_the_loss_of_whole_sequences(variant, kernels, monkeypatch):
    model = make(VARIANTS[variant], kernels)
    monkeypatch.setattr(decoder, "SCORED_TOKENS", 60)
    d = Decoder(model, block=8)
    prefix = bases(1, 40, seed=3)[0]
    state = d.prefill([prefix[:29]], room=60)
    for token in prefix[29:]:
        d.step(state, [token])
    tails = [bases(1, n, seed=n)[0] for n in (5, 1, 50, 17, 1, 30)]
    before = state.clone()
    for _ in range(2):
        found = d.score(state, tails)
        for tail, nats in zip(tails, found, strict=True):
            whole = torch.cat([prefix, tail])[None]
            wanted = target_nats(model, whole[:, :-1], whole[:, 1:])[0, 39:]
            torch.testing.assert_close(nats, wanted.detach(), atol=1e-9, rtol=0)
    assert torch.equal(state.logits, before.logits) and state.room == before.room
    torch.testing.assert_close(d.step(state, [7]), d.step(before, [7]), atol=1e-9, rtol=0)
    rows = d.prefill([prefix[:10], prefix[:20]], room=5)
    one, two = d.score(rows, [tails[0], tails[4]])
    torch.testing.assert_close(one, d.score(rows.select([0]), [tails[0]])[0])
    torch.testing.assert_close(two, -torch.log_softmax(rows.logits[1], 0)[tails[4]])


def test_prompts_of_embedded_tokens():
    for kernels in KERNELS:
        model = make(SMALL, kernels)
        ids = bases(2, 30)
        embedded = model.backbone.embeddings(ids).detach()
        d = Decoder(model)
        one, other = d.prefill(ids, room=5), d.prefill(embedded, room=5)
        torch.testing.assert_close(one.logits, other.logits, atol=1e-9, rtol=0)
        torch.testing.assert_close(d.step(one, [7, 8]), d.step(other, [7, 8]), atol=1e-9, rtol=0)


def test_branches_share_the_effect_of_their_prompt():
    d = Decoder(make(SMALL))
    trunk = d.prefill(bases(1, 40), room=100)
    branches = trunk.select([0] * 50)
    assert branches.nbytes < 4 * trunk.nbytes
    assert branches.nbytes <= d.bytes_for(50, 100)
    tokens = bases(50, 100, seed=9)
    for t in range(100):
        d.step(branches, tokens[:, t])
    assert branches.nbytes <= d.bytes_for(50, 100)
    wanted = full_logits(d.model, torch.cat([bases(1, 40).expand(50, -1), tokens], 1))
    torch.testing.assert_close(branches.logits, wanted[:, -1], atol=1e-9, rtol=0)
    torch.testing.assert_close(trunk.logits, wanted[:1, 39], atol=1e-9, rtol=0)


def test_state_is_float32_for_models_of_half_precision():
    model = make(SMALL, dtype=torch.float32)
    exact = Walk(model, [40], room=60, tolerance=2e-4)
    half = Decoder(copy.deepcopy(model).bfloat16(), block=8)
    state = half.prefill([exact.ids[0, :40]], room=60)
    layer = state.layers[0]
    assert layer.halo.dtype == layer.convolutions[0].settled.dtype == torch.float32
    whole = full_logits(half.model, exact.ids)
    for t in range(40, 100):
        half.step(state, exact.ids[:, t])
        # bf16 rounds each product; what matters is that errors do not pile up along the sequence
        torch.testing.assert_close(state.logits, whole[:, t], atol=0.3, rtol=0.1)
    assert state.logits.dtype == torch.float32


def test_bf16_products_under_autocast():
    model = make(SMALL, "native", torch.float32)
    if not available(SMALL, torch.float32, torch.bfloat16):
        pytest.skip("no bf16 products on this machine")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = Decoder(model)
        state = rounded.prefill(bases(1, 40), room=60)
        with torch.no_grad():
            wanted = model(bases(1, 100))
    assert rounded._stepper is not None
    for t in range(40, 100):
        rounded.step(state, bases(1, 100)[:, t])
    scale = wanted.abs().max()
    torch.testing.assert_close(state.logits, wanted[:, -1], atol=0.03 * scale, rtol=0)
    assert not torch.equal(state.logits, full_logits(model, bases(1, 100))[:, -1])


def test_dropout_is_off_and_modes_stay():
    model = make(SMALL.replace(embed_dropout=0.5, resid_dropout=0.5, hyena_dropout=0.5))
    wanted = full_logits(model, bases(1, 50))[:, -1]
    model.train()
    d = Decoder(model)
    state = d.prefill(bases(1, 50)[:, :40], room=10)
    for t in range(40, 50):
        d.step(state, bases(1, 50)[:, t])
    torch.testing.assert_close(state.logits, wanted, atol=1e-9, rtol=0)
    assert all(module.training for module in model.modules())


def test_states_outlive_inference_mode():
    d = Decoder(make(SMALL, "plain"))
    with torch.inference_mode():
        state = d.prefill(bases(1, 30), room=20)
        d.step(state, [7])
    d.step(state, [8])
    d.extend(state.clone(), [[8, 9]])


def test_adapters_on_linear_layers_count():
    class Adapter(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x) * 1.5

    model = make(SMALL)
    model.backbone.layers[1].mixer.in_proj.__class__ = Adapter
    Walk(model, [20, 3], room=50).step(50)


def test_hooks_that_would_never_run_are_refused():
    model = make(SMALL)
    hook = model.backbone.layers[1].register_forward_hook(lambda *_: None)
    with pytest.raises(InputError, match=r"backbone\.layers\.1 has a hook .* remove it"):
        Decoder(model)
    hook.remove()
    Decoder(model)


def test_refusals_leave_the_state_as_it_was():
    d = Decoder(make(SMALL))
    state = d.prefill([bases(1, 30)[0], bases(1, 9)[0]], room=3)
    before = state.clone()
    for wrong, message in (
        (lambda: d.prefill([[]], room=1), "empty prompt"),
        (lambda: d.prefill([], room=1), "empty prompt"),
        (lambda: d.prefill([[7] * 100], room=61), r"room between 0 and 60 or shorten"),
        (lambda: d.prefill([[7]], room=-1), "room between 0 and 159"),
        (lambda: d.prefill([[7, 99]], room=1), "prompt 0 has token ids 7 to 99"),
        (lambda: d.prefill([[7.5]], room=1), r"prompt 0 is torch.float64 of shape \(1,\)"),
        (lambda: d.prefill(torch.zeros(1, 5, 7), room=1), r"embedded tokens of shape \(L, 32\)"),
        (lambda: d.step(state, [7]), r"tokens are torch.int64 of shape \(1,\) for 2 sequences"),
        (lambda: d.step(state, [7.5, 8]), "give one integer id for each"),
        (lambda: d.step(state, [7, 16]), "token ids 7 to 16; they must be in 0 .. 15"),
        (lambda: d.step(state, [7, -1]), "must be in 0 .. 15"),
        (lambda: d.extend(state, [[7, 7]]), r"tokens are torch.int64 of shape \(1, 2\) for 2"),
        (lambda: d.extend(state, [[0.5], [7]]), "give integer ids of shape"),
        (lambda: d.extend(state, [[7] * 4] * 2), "4 more tokens, but the state has room for 3"),
        (lambda: d.score(state, [[7]]), "1 continuations, the shortest of 1 tokens, for a state"),
        (lambda: d.score(state, [[7], []]), "2 continuations, the shortest of 0 tokens"),
        (lambda: d.score(state, [[7] * 5] * 2), "4 more tokens, but the state has room for 3"),
        (lambda: state.select([2]), r"rows \[2\] of a state of 2 sequences"),
        (lambda: state.select([]), "give at least one"),
    ):
        with pytest.raises(InputError, match=message):
            wrong()
    assert torch.equal(state.logits, before.logits) and state.room == 3
    for _ in range(3):
        torch.testing.assert_close(d.step(state, [7, 8]), d.step(before, [7, 8]))
    with pytest.raises(InputError, match="room for 0"):
        d.step(state, [7, 8])


@pytest.mark.parametrize("variant", ["three taps", "order 3", "attention"])
def test_states_in_files(variant, tmp_path):
    model = make(VARIANTS[variant])
    walk = Walk(model, [20, 3], room=60)
    walk.step(13)
    path = tmp_path / "state.safetensors"
    walk.decoder.save(walk.state, path)
    assert [p.name for p in tmp_path.iterdir()] == ["state.safetensors"]
    walk.state = Decoder(model, block=8).load(path)
    assert isinstance(walk.state, DecodingState)
    walk.step(47)
    model.backbone.layers[0].norm1.weight.data += 1
    with pytest.raises(InputError, match="a model of other weights"):
        Decoder(model).load(path)
    with pytest.raises(InputError, match="not a decoding state"):
        Decoder(model).load(tmp_path / "none")
    path.write_bytes(b"something else")
    with pytest.raises(InputError, match="not a decoding state"):
        Decoder(model).load(path)


def test_states_of_other_models_are_refused():
    d, other = Decoder(make(SMALL)), Decoder(make(SMALL, seed=1))
    state = d.prefill(bases(1, 20), room=9)
    for use in (
        lambda: other.step(state, [7]),
        lambda: other.extend(state, [[7, 8]]),
        lambda: other.score(state, [[7]]),
        lambda: other.save(state, "never"),
    ):
        with pytest.raises(InputError, match="the state is of another model"):
            use()
    assert Decoder(d.model).step(state, [7]).shape == (1, 16)  # another decoder of the same one


@pytest.mark.parametrize("change", ["write", "convert"])
def test_models_that_change_are_refused(change):
    model = make(SMALL, dtype=torch.float32)
    d = Decoder(model)
    state = d.prefill(bases(1, 20), room=9)
    if change == "write":
        with torch.no_grad():
            model.backbone.layers[0].mixer.in_proj.weight.mul_(1.1)
    else:
        model.double()
    for use in (
        lambda: d.prefill(bases(1, 20), room=9),
        lambda: d.extend(state, [[7, 8]]),
        lambda: d.score(state, [[7]]),
    ):
        with pytest.raises(InputError, match="changed since the decoder was made; make a new"):
            use()


def test_float64_under_autocast_stays_float64():
    model = make(SMALL)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        d = Decoder(model)
        state = d.prefill(bases(1, 20), room=40)
    wanted = full_logits(model, bases(1, 60))
    for t in range(20, 60):
        d.step(state, bases(1, 60)[:, t])
    assert state.logits.dtype == torch.float64
    torch.testing.assert_close(state.logits, wanted[:, -1], atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_step_that_breaks_off_leaves_no_wrong_state(kernels, monkeypatch):
    """Out of memory or Ctrl-C in the middle: what has half moved is refused, not used."""
    d = Decoder(make(SMALL, kernels), block=4)
    state = d.prefill(bases(1, 30), room=60)
    for token in (7, 8, 9):
        d.step(state, [token])
    whole = state.clone()
    came = online.OnlineConvolution.came
    calls = []

    def broken(self):
        calls.append(self)
        if len(calls) == 2:  # the first layer has moved
            raise MemoryError("no memory")
        came(self)

    monkeypatch.setattr(online.OnlineConvolution, "came", broken)
    with pytest.raises(MemoryError):
        d.step(state, [10])
    monkeypatch.undo()
    for use in (
        lambda: d.step(state, [7]),
        lambda: d.extend(state, [[7, 8]]),
        lambda: d.score(state, [[7]]),
        lambda: state.clone(),
    ):
        with pytest.raises(InputError, match="interrupted half done"):
            use()
    assert d.step(whole, [10]).shape == (1, 16)


def test_a_settling_that_breaks_off_can_be_done_again(monkeypatch):
    walk = Walk(make(SMALL), [30], room=90, block=4)
    walk.step(13)
    settle, calls = online.settle, []

    def broken(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise MemoryError("no memory")
        return settle(*arguments)

    monkeypatch.setattr(online, "settle", broken)
    with pytest.raises(MemoryError):
        walk.state.settle()
    monkeypatch.undo()
    walk.step(20)
    walk.extend(10)
    walk.step(30)


def test_logits_that_are_given_out_are_copies():
    for kernels in KERNELS:
        d = Decoder(make(SMALL, kernels))
        state = d.prefill(bases(1, 20), room=9)
        before = d.score(state, [[7, 8]])[0]
        d.step(state, [7])[:] = torch.inf
        assert state.logits.isfinite().all() and before.isfinite().all()


def test_select_takes_row_numbers_only():
    state = Decoder(make(SMALL)).prefill(bases(3, 20), room=9)
    for wrong in (torch.tensor([True, False, True]), [0.0, 1.0]):
        with pytest.raises(InputError, match="give at least one whole number"):
            state.select(wrong)


def test_deep_copies_are_branches():
    d = Decoder(make(SMALL))
    state = d.prefill(bases(1, 20), room=9)
    d.step(state, [7])
    branch = copy.deepcopy(state)
    assert torch.equal(d.step(branch, [8]), d.step(state, [8]))


def test_files_of_states_keep_to_themselves(tmp_path):
    model = make(SMALL.replace(tie_word_embeddings=False))
    d = Decoder(model)
    state = d.prefill(bases(1, 20), room=9)
    path = tmp_path / "state.safetensors"
    d.save(state, path)
    loaded = d.load(path)
    path.write_bytes(b"\0" * path.stat().st_size)  # in place: what is loaded does not follow
    assert torch.equal(d.step(loaded, [7]), d.step(state, [7]))
    d.save(state, path)
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    with pytest.raises(InputError, match="a model of other weights"):
        Decoder(model).load(path)
    for wrong in (tmp_path / "none" / "state", tmp_path):
        with pytest.raises(InputError, match=r"cannot write|no ordinary file"):
            d.save(state, wrong)
    half = Decoder(make(SMALL, dtype=torch.float32).bfloat16())
    half.save(half.prefill(bases(1, 20), room=9), path)
    assert half.load(path).room == 9


def test_prompts_that_are_no_ids():
    d = Decoder(make(SMALL))
    for wrong in (["ACGT"], [[True, False]], [torch.ones(3, dtype=torch.complex64)]):
        with pytest.raises(InputError, match="integer ids"):
            d.prefill(wrong, room=1)
    state = d.prefill([torch.tensor([7, 8], dtype=torch.uint8)], room=9)
    d.extend(state, torch.tensor([[7, 8]], dtype=torch.int16))
    embedded = d.backbone.embeddings(bases(1, 9)).detach().float()
    d.prefill(embedded, room=2)


def test_attention_under_autocast():
    model = make(VARIANTS["attention"], dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        d = Decoder(model)
        state = d.prefill(bases(1, 20), room=30)
        for t in range(20, 50):
            d.step(state, bases(1, 50)[:, t])
        wanted = full_logits(model, bases(1, 50))[:, -1]
    torch.testing.assert_close(state.logits, wanted, atol=0.1 * wanted.abs().max(), rtol=0)


def test_memory_of_what_is_to_come_is_in_the_budget(monkeypatch):
    # Other tests leave memory behind that a pass gives back: what the process holds is set here.
    monkeypatch.setattr("hyenadna.model.engine.run.resident_bytes", lambda: 1 << 30)
    model = make(SMALL.replace(max_seq_len=60_000), dtype=torch.float32)
    d = Decoder(model)
    state = d.prefill([[7]], room=50_000).select([0] * 40)
    model.set_engine(max_memory=(1 << 30) + (300 << 20))
    with pytest.raises(InputError, match="max_memory"):
        d.extend(state, torch.full((40, 64), 7))


@pytest.mark.parametrize(("steps", "room"), [(2100, 40), (40, 2100), (1023, 1500)])
def test_settling_in_several_pieces(steps, room):
    model = make(ModelConfig(d_model=16, n_layer=1, max_seq_len=4000, filter_order=16))
    walk = Walk(
        model, [10, 1], room=steps + room + 8, block=64, ids=bases(2, 10 + steps + room + 8)
    )
    ids = torch.stack([row[at : at + steps] for row, at in zip(walk.ids, walk.at, strict=True)])
    for tokens in ids.unbind(1):
        walk.decoder.step(walk.state, tokens)
    walk.at = [at + steps for at in walk.at]
    walk.check(walk.state.logits)
    walk.extend(8)
    walk.step(min(room, 20))
    walk.extend(walk.state.room)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("variant", ["three taps", "order 3", "attention"])
def test_batches_are_read_behind_a_state_that_stays(variant, kernels):
    model = make(VARIANTS[variant], kernels if variant == "three taps" else "auto")
    decoder = Decoder(model)
    prefix, rows = bases(1, 30), bases(3, 12, seed=2)
    state = decoder.prefill(prefix, room=12)
    for batch in (rows, rows[:1], rows[1:, :5]):
        with torch.no_grad():
            whole = model.embed(torch.cat([prefix.expand(len(batch), -1), batch], dim=1))
        found = decoder.read(state, batch)
        torch.testing.assert_close(found, whole[:, 30:], rtol=0, atol=1e-9)
    assert state.lengths.tolist() == [30] and state.room == 12
    with pytest.raises(InputError, match="room"):
        decoder.read(state, bases(2, 13))
    with pytest.raises(InputError, match="for a state of 1"):
        decoder.read(state, bases(2, 3)[0])


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("variant", ["three taps", "order 3", "attention"])
def test_prompts_behind_a_state_are_read_as_if_it_stood_before_each(variant, kernels):
    """The state, here of vectors that are no tokens, is read once and stays where it is."""
    model = make(VARIANTS[variant], kernels)
    reader = Decoder(model, block=4)
    soft = torch.randn(11, 32, dtype=torch.float64)
    before = reader.prefill([soft], room=60)
    kept = before.clone()
    prompts = [bases(1, n, seed=n)[0] for n in (9, 1, 30, 9)]
    state = reader.prefill(prompts, room=30, behind=before)
    table = model.backbone.embeddings.word_embeddings.weight
    slow = reader.prefill([torch.cat([soft, table[ids]]) for ids in prompts], room=30)
    assert (state.room, before.room) == (30, 60) and state.lengths.tolist() == [20, 12, 41, 20]
    torch.testing.assert_close(state.logits, slow.logits, rtol=0, atol=1e-9)
    for tokens in bases(30, 4):
        torch.testing.assert_close(
            reader.step(state, tokens), reader.step(slow, tokens), rtol=0, atol=1e-9
        )
    for one, other in zip(before.layers, kept.layers, strict=True):
        for name, tensor in one.tensors().items():
            assert torch.equal(tensor, other.tensors()[name])
    assert reader.prefill(prompts[2:3], room=0, behind=before).room == 0
    with pytest.raises(InputError, match="the state behind which it stands takes 60; ask for room"):
        reader.prefill(prompts, room=31, behind=before)
    with pytest.raises(InputError, match="a state of 4 sequences; select one"):
        reader.prefill(prompts, room=0, behind=slow)
