"""Triton kernels of the engine, in Triton's interpreter, equal their slow twins.

With a GPU at hand the same tests run there, see tests/gpu/test_triton_engine.py for real sizes.
"""

from __future__ import annotations

import importlib.util
import weakref

import pytest
import torch
from torch.nn import functional

if importlib.util.find_spec("triton") is None:
    pytest.skip("no Triton", allow_module_level=True)

import tests.conv.interpreter  # noqa: F401 - before the kernels are imported
from tests.ahead_of_time import GPUS, lines_of
from tests.model import ahead_of_time

from hyenadna.alphabet import IGNORED
from hyenadna.config import ModelConfig, preset
from hyenadna.conv import long_convolution, matrix_fft, short_convolution
from hyenadna.conv.fft import smooth_length
from hyenadna.conv.matrix_tables import shape_of
from hyenadna.conv.right_angle import DEVICE_BLOCK_SAMPLES, RightAngle
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.decoding.decoder import Decoder
from hyenadna.model.decoding.trunk import TrunkReader
from hyenadna.model.engine import (
    plan,
    run,
    spectra,
    triton_convolution,
    triton_ends,
    triton_norms,
)
from hyenadna.model.engine.choose import require_triton
from hyenadna.model.engine.plan import gpu_plan, gpu_rooms, make_plan
from hyenadna.model.engine.run import layer_of
from hyenadna.model.engine.sizes import DEVICE_SAMPLES, Workload
from hyenadna.model.engine.spectra import SpectrumCache
from hyenadna.model.engine.triton_convolution import TransformedConvolution
from hyenadna.model.engine.triton_gates import Before, Gated, gate_in, gate_out
from hyenadna.model.engine.triton_kernels import TritonKernels
from hyenadna.model.engine.triton_matrix import MatrixConvolution
from hyenadna.model.engine.triton_products import fold, gelu_backward, unfold
from hyenadna.model.likelihood import target_nats
from hyenadna.model.planning.parts import memory
from hyenadna.model.planning.setup import Setup

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SMALL = ModelConfig(
    d_model=20, n_layer=1, d_inner=36, max_seq_len=60, filter_order=8, embed_dropout=0.0,
    num_inner_mlps=1,
)  # fmt: skip


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(DEVICE)


def near(found: torch.Tensor, exact: torch.Tensor, tolerance: float = 2e-6) -> None:
    scale = exact.abs().max().item() + 1e-3
    torch.testing.assert_close(found.double(), exact.double(), atol=tolerance * scale, rtol=0)


def make(config: ModelConfig = SMALL, seed: int = 0) -> HyenaDNA:
    """A model with weights large enough that every part matters."""
    torch.manual_seed(seed)
    model = HyenaDNA(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.to(DEVICE)


def random_tokens(batch: int, length: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(7, 12, (batch, length), generator=generator).to(DEVICE)


def outputs(model: HyenaDNA, tokens: torch.Tensor) -> list[torch.Tensor]:
    """Losses and embeddings, and the gradient of every parameter, in float64."""
    targets = random_tokens(*tokens.shape, seed=2)
    targets[0, 0] = IGNORED
    model.zero_grad()
    nats = target_nats(model, tokens, targets)
    (nats * torch.linspace(0.5, 2, nats.numel(), device=DEVICE).view_as(nats)).sum().backward()
    with torch.no_grad():
        still = model.embed(tokens)
    found = [nats.detach(), still, *(p.grad.clone() for p in model.parameters())]
    return [t.double() for t in found]


def errors(found: list[torch.Tensor], exact: list[torch.Tensor]) -> torch.Tensor:
    """Largest error of each tensor as a part of its largest number."""
    pairs = zip(found, exact, strict=True)
    return torch.stack([(a - b).abs().max() / (b.abs().max() + 1e-3) for a, b in pairs])


def mean_errors(found: list[torch.Tensor], exact: list[torch.Tensor]) -> torch.Tensor:
    """Root mean square error of each tensor as a part of its own root mean square."""
    pairs = zip(found, exact, strict=True)
    return torch.stack([((a - b).square().mean() / b.square().mean()).sqrt() for a, b in pairs])


def gated_case(taps: int, batch: int, length: int, width: int = 5):
    """p, shift, taps, bias, filters and a gradient of y (B, L, c)."""
    return (
        normal(3, width, batch, length), normal(3, width, seed=1),
        normal(3, width, taps, seed=2), normal(3, width, seed=3),
        normal(width, length, seed=4), normal(batch, length, width, seed=5),
    )  # fmt: skip


def gated_twin(p, shift, taps, bias, k):
    """(B, L, c): what the gates and the convolution between them are."""
    whole = (p + shift[..., None, None]).transpose(1, 2)
    x0, x1, v = (short_convolution(whole[i], taps[i], bias[i]) for i in range(3))
    return (x0 * long_convolution(x1 * v, k)).transpose(1, 2)


def check_gated(make_convolution, taps: int, batch: int, length: int) -> None:
    """Values, gradients, and how many channels come to `keep`."""
    *inputs, k, grad = gated_case(taps, batch, length)
    exact = [t.double().requires_grad_() for t in (*inputs, k)]
    y = gated_twin(*exact)
    y.backward(grad.double())
    gated, conv = Gated(*inputs), make_convolution(length, k.device)
    spectrum = conv.spectrum(k)
    wide, dp = torch.zeros(batch, length, 8, device=DEVICE), torch.empty_like(inputs[0])
    conv.forward(gated, spectrum, wide, 2, None, None)
    near(wide[..., 2:7], y)
    assert not wide[..., :2].any() and not wide[..., 7:].any()
    again, seen = torch.zeros_like(wide), []
    conv.forward(gated, spectrum, again, 2, None, lambda channels, u: seen.append(u.shape[2]))
    near(again, wide)
    assert sum(seen) == 5
    wide[..., 2:7] = grad
    grad_k, sums = conv.backward(gated, spectrum, wide, 2, dp)
    near(grad_k, exact[4].grad)
    near(dp, exact[0].grad)
    near(sums[..., :taps], exact[2].grad)
    near(sums[..., taps], exact[3].grad)
    near(sums[..., taps + 1], exact[1].grad)


@pytest.mark.parametrize(
    ("taps", "batch", "length"), [(1, 1, 1), (2, 3, 5), (3, 2, 19), (4, 1, 33), (3, 1, 2)]
)
def test_gates_and_convolution(taps, batch, length, monkeypatch):
    monkeypatch.setattr(triton_convolution, "DEVICE_SAMPLES", 100)  # some channels at a time
    check_gated(TransformedConvolution, taps, batch, length)


@pytest.mark.parametrize(("taps", "batch", "length"), [(3, 2, 19), (1, 1, 33)])
def test_gates_with_the_convolution_by_matrix_products(taps, batch, length):
    def by_products(length: int, device: torch.device) -> MatrixConvolution:
        return MatrixConvolution(length, torch.float32, device)

    check_gated(by_products, taps, batch, length)


@pytest.mark.parametrize("taps", [1, 3])
def test_gates_behind_other_positions(taps):
    p, shift, weights, bias, k, _ = gated_case(taps, 2, 21)
    exact = gated_twin(*(t.double() for t in (p, shift, weights, bias, k)))
    first, count = 8, 13
    # of all 3 D = 3 x 7 projections of the positions before, these are channels 1 to 5
    halo = torch.zeros(2, taps - 1, 3, 7, device=DEVICE)
    kept = (p + shift[..., None, None])[..., first - taps + 1 : first].permute(2, 3, 0, 1)
    halo[..., 1:6] = kept
    _, x1, v = (
        short_convolution((p + shift[..., None, None])[i].transpose(0, 1), weights[i], bias[i])
        for i in range(3)
    )
    samples = x1 * v
    early = torch.where(torch.arange(21, device=DEVICE) < first, samples, 0.0)
    settled = torch.zeros(2, count + 3, 7, device=DEVICE)
    settled[:, :count, 1:6] = long_convolution(early, k)[..., first:].transpose(1, 2)
    conv, seen = TransformedConvolution(count, k.device), {}
    y = torch.zeros(2, count, 7, device=DEVICE)

    def keep(channels: slice, u: torch.Tensor) -> None:
        seen[channels.start, channels.stop] = u.clone()

    conv.forward(
        Gated(p[..., first:].contiguous(), shift, weights, bias), conv.spectrum(k[:, :count]), y, 1,
        Before(halo.flatten(2), settled, 1), keep,
    )  # fmt: skip
    near(y[..., 1:6], exact[:, first:])
    near(seen[1, 6], samples[..., first:].transpose(1, 2))
    # a convolution that makes no transforms of torch's gives its result as it is
    later, plain = Gated(p[..., first:].contiguous(), shift, weights, bias), torch.zeros_like(y)
    before = Before(halo.flatten(2), settled, 1)
    mixed = long_convolution(seen[1, 6].transpose(1, 2), k[:, :count]).transpose(0, 1)
    gate_out(later, mixed.contiguous(), None, plain, 1, before)
    near(plain, y)


def test_norms_and_what_stands_beside_them():
    rows, width = 11, 20
    h, o, grad, dn = (normal(rows, width, seed=s) for s in range(4))
    bias = normal(width, seed=5)
    exact = (h + o + bias).double().requires_grad_()
    n = functional.layer_norm(exact, (width,), eps=1e-5)
    n.backward(dn.double())
    a = torch.empty_like(h)
    near(triton_norms.add_norm(h, o, bias, 1e-5, a), n)
    near(a, exact)
    again, rstd, g, of_bias = triton_norms.add_norm_again(h, o, bias, 1e-5, grad)
    near(again, n)
    near(of_bias, grad.double().sum(0))
    out = torch.empty_like(h)
    total = triton_norms.norm_backward(again, rstd, dn, grad, out, g)
    near(out, grad + exact.grad)
    near(g, out)
    near(total, out.double().sum(0))
    plain = grad.clone()
    triton_norms.first_norm_backward(exact.detach().float(), 1e-5, dn, plain)
    near(plain, out)
    triton_norms.add(a, o, bias, a)
    near(a, h.double() + 2 * (o + bias))
    weight = normal(width, seed=6)
    triton_norms.norm_in_place(h, weight, bias, 1e-5)
    exact = functional.layer_norm(
        normal(rows, width).double(), (width,), weight.double(), bias.double()
    )
    near(h, exact)


def test_affine_parts_and_gelu():
    weight, bias = normal(18, 20), normal(18, seed=1)
    scale, shift = normal(20, seed=2), normal(20, seed=3)
    n, dz = normal(9, 20, seed=4), normal(9, 6, seed=5)
    rows = [i * 6 + j for i in range(3) for j in (2, 3)]  # 2 and 3 of each of three runs
    leaves = [t.double().requires_grad_() for t in (weight, bias, scale, shift)]
    z = functional.linear(n.double() * leaves[2] + leaves[3], leaves[0], leaves[1])[:, rows]
    value = functional.gelu(z, approximate="tanh")
    value.backward(dz.double())
    folded, folded_bias = fold(weight, bias, scale, shift, slice(2, 4), 3, torch.float32)
    product = n @ folded.T
    near(product + folded_bias, z)
    d = dz.clone()
    total = gelu_backward(product, d, folded_bias)
    near(product, value)
    sums = tuple(torch.zeros_like(t) for t in (weight, bias, scale, shift))
    unfold(d.T @ n, total, (weight, scale, shift), sums, slice(2, 4), 3)
    for found, leaf in zip(sums, leaves, strict=True):
        near(found, leaf.grad)


def test_loss_and_table():
    rows, width, classes = 19, 20, 12
    h, head = normal(rows, width), normal(classes, width, seed=1)
    weight, bias = normal(width, seed=2), normal(width, seed=3)
    targets = random_tokens(1, rows)[0]
    targets[[0, 7]] = IGNORED
    leaves = [t.double().requires_grad_() for t in (h, head, weight, bias)]
    x = functional.layer_norm(leaves[0], (width,), leaves[2], leaves[3])
    nats = functional.cross_entropy(
        x @ leaves[1].T, targets, ignore_index=IGNORED, reduction="none"
    )
    grad = normal(rows, seed=4)
    nats.backward(grad.double())
    found = triton_ends.nats(h, (weight, bias), 1e-5, head, targets)
    near(found, nats)
    assert not found[[0, 7]].any()
    for one, leaf in zip(
        triton_ends.nats_backward(h, (weight, bias), 1e-5, head, targets, grad), leaves, strict=True
    ):
        near(one, leaf.grad)
    ids = random_tokens(1, rows, seed=5)[0]
    table = torch.zeros(classes, width, dtype=torch.float64, device=DEVICE)
    near(triton_ends.embed_backward(classes, ids, h), table.index_add(0, ids, h.double()))


@pytest.mark.parametrize(
    ("changes", "batch", "length", "channels"),
    [
        ({}, 2, 19, None),
        ({"short_filter_order": 5, "tie_word_embeddings": False}, 1, 7, 9),
        # a minute in the interpreter beside other work
        pytest.param({"short_filter_order": 1, "n_layer": 2}, 3, 1, None, marks=pytest.mark.slow),
    ],
)
def test_a_model_is_as_near_to_float64_as_in_torch(changes, batch, length, channels, monkeypatch):
    model, tokens = make(SMALL.replace(**changes)), random_tokens(batch, length)
    if channels is not None:  # blocks of that many: the last is smaller
        monkeypatch.setattr(plan, "_even_blocks", lambda work, step, room: channels)
    model.set_engine("triton")
    found = outputs(model, tokens)
    model.set_engine("torch")
    in_torch = outputs(model, tokens)
    model.double().set_engine("plain")
    exact = outputs(model, tokens)
    limit = 4 * errors(in_torch, exact).max() + 1e-6
    assert (errors(found, exact) < limit).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_no_more_than_plain_autocast(dtype):
    """Error against float64: of no tensor 1.5 times plain torch's, and no larger on average."""
    model, tokens = make(), random_tokens(2, 19)
    found = {}
    with torch.autocast(DEVICE, dtype=dtype):
        for name in ("triton", "plain"):
            model.set_engine(name)
            found[name] = outputs(model, tokens)
    model.double().set_engine("plain")
    exact = outputs(model, tokens)
    ours, plain = (mean_errors(found[name], exact) for name in ("triton", "plain"))
    unit = torch.finfo(dtype).eps
    assert (ours < 1.5 * plain + unit).all()  # small tensors: luck plays its part
    assert ours.mean() < 1.1 * plain.mean()
    assert ours.max() > unit / 100  # products are rounded


def test_one_launch_gives_the_same_bits_again_and_alone():
    p, *small = gated_case(3, 3, 19)[:4]
    twist = RightAngle(19, torch.float32, p.device).twist

    def run(batch: slice) -> tuple[torch.Tensor, torch.Tensor]:
        gated = Gated(p[:, :, batch].contiguous(), *small)
        y = torch.empty(gated.p.shape[2], 19, 5, device=DEVICE)
        u = gate_in(gated, 20, twist, None)
        gate_out(gated, u, twist, y, 0, None)
        return u.transpose(0, 1), y

    for whole, again, one in zip(*map(run, (slice(0, 3), slice(0, 3), slice(1, 2))), strict=True):
        assert torch.equal(whole, again) and torch.equal(whole[1:2], one)
    h = normal(30, 20)
    n = triton_norms.standardise(h, 1e-5, torch.float32)
    assert torch.equal(n[7:9], triton_norms.standardise(h[7:9], 1e-5, torch.float32))


def test_branches_of_a_trunk():
    model, tokens = make().eval(), random_tokens(1, 17)[0]
    at, ends = torch.tensor([3, 9], device=DEVICE), random_tokens(2, 6, seed=4)
    found = []
    for name in ("triton", "plain"):
        model.set_engine(name)
        reader = TrunkReader(model)
        trunk = reader.read(tokens)
        read = reader.ends(trunk, at, ends)
        found.append([trunk.hidden, trunk.nats[1:], read.hidden, read.nats])
    for one, other in zip(*found, strict=True):
        near(one, other, 1e-5)


def test_generation_goes_on_from_a_prompt():
    model, tokens = make().eval(), random_tokens(2, 16)
    found = []
    for name in ("triton", "plain"):
        model.set_engine(name)
        decoder = Decoder(model, block=8)
        state = decoder.prefill(list(tokens[:, :9]), room=8)
        found.append([
            state.logits.clone(), decoder.extend(state, tokens[:, 9:14]),
            decoder.step(state, tokens[:, 14]), decoder.step(state, tokens[:, 15]),
        ])  # fmt: skip
    for one, other in zip(*found, strict=True):
        near(one, other, 1e-5)


def test_a_second_backward_pass_and_gradients_scaled_for_fp16():
    model, tokens = make(), random_tokens(1, 9)
    model.set_engine("triton")
    loss = target_nats(model, tokens, tokens).mean()
    loss.backward(retain_graph=True)
    once = [p.grad.clone() for p in model.parameters()]
    loss.backward()
    for parameter, before in zip(model.parameters(), once, strict=True):
        near(parameter.grad, 2 * before, 1e-6)
    model.zero_grad()
    with torch.autocast(DEVICE, dtype=torch.float16):
        scaled = target_nats(model, tokens, tokens).mean() * 2.0**40
    scaled.backward()
    largest = torch.stack([p.grad.abs().max() for p in model.parameters()])
    assert not largest.isfinite().all()  # so that GradScaler sees it: nothing is clamped


def test_filters_of_all_layers_are_compared_at_once():
    model = make(SMALL.replace(n_layer=2))
    cache, room = SpectrumCache(), 1 << 20

    def check() -> dict:
        with torch.no_grad():
            layers = [layer_of(i, b, 9) for i, b in enumerate(model.backbone.layers)]
            return cache.check_together([(x.tables, x.trained) for x in layers])

    states = check()
    cache.put((1, "a spectrum"), torch.zeros(4), room)
    assert check() == states and cache.bytes == 16
    model.backbone.layers[1].mixer.filter_fn.bias.data[3] += 1
    assert check()[1] is not states[1] and cache.bytes == 0


def test_a_cuda_graph_keeps_the_spectra_it_reads_and_leaves_none(monkeypatch):
    cache, layer = SpectrumCache(), layer_of(0, make().backbone.layers[0], 9)
    spectrum = torch.zeros(4)
    last = weakref.ref(spectrum)
    cache.check_together([(layer.tables, layer.trained)])
    cache.put((0, "warm-up"), spectrum, 16)
    monkeypatch.setattr(spectra, "capturing", lambda device: True)
    assert cache.get((0, "warm-up")) is spectrum
    cache.put((0, "of the graph"), torch.zeros(4), 32)
    assert cache.get((0, "of the graph")) is None  # void before the graph is replayed
    monkeypatch.undo()
    cache.shrink(0)
    assert cache.get((0, "warm-up")) is None
    del spectrum
    assert last() is not None  # replays will read it
    del cache
    assert last() is None


WIDE = preset("large-1m").replace(d_model=768, d_inner=3072, max_seq_len=1 << 22)


@pytest.mark.parametrize(
    ("config", "batch", "length"),
    [(preset("tiny-1k"), 1 << 20, 1), (preset("tiny-1k"), 70_000, 17), (WIDE, 1, 1 << 22)],
)
def test_every_grid_is_one_that_cuda_can_start(config, batch, length, monkeypatch):
    grids = {}

    class Grids:
        def launch(self, kernel, grid, *args, **meta):
            grids.setdefault(kernel.fn.__name__, []).append(grid)

    monkeypatch.setattr(ahead_of_time, "Recorder", Grids)
    for module in ahead_of_time.MODULES:
        monkeypatch.setattr(module, "launch", module.launch)
    monkeypatch.setattr(matrix_fft, "launch", Grids().launch)
    ahead_of_time.record(config, batch, length, torch.bfloat16)
    assert len(grids) > 20
    for kernel, found in grids.items():
        for first, *others in found:
            assert 1 <= first < 1 << 31 and max(others, default=1) <= 65_535, kernel


def test_the_plan_of_a_gpu():
    large, tokens = preset("large-1m"), 999_999
    work = Workload(large, 1, tokens, training=True, gpu=True, product_itemsize=2)
    h200 = make_plan(work, rooms=gpu_rooms(141 * 10**9))
    assert h200.channels == large.d_model and h200.keep_mixed
    assert h200.cache_bytes == work.spectra
    assert work.mixed == tokens * large.d_model * 2
    smaller = make_plan(work, rooms=gpu_rooms(24 * 10**9))
    assert smaller.channels < large.d_model and not smaller.cache_bytes
    budget = make_plan(work, max_memory=20 << 30, rooms=gpu_rooms(141 * 10**9))
    assert budget.total_bytes < 20 << 30 and budget.channels < smaller.channels
    # where not all fits: no spectra, no mixed signals, smaller blocks
    plans = [gpu_plan(work, 141 * 10**9, taken * 10**9) for taken in (0, 80, 95, 100, 105, 200)]
    assert plans[0] == h200
    assert [one.cache_bytes > 0 for one in plans] == [True] + 5 * [False]
    assert [one.keep_mixed for one in plans] == [True, True] + 4 * [False]
    blocks = [one.channels for one in plans]
    assert blocks[:3] == 3 * [256] and 256 > blocks[3] > blocks[4] > blocks[5] > 0
    for one, taken in zip(plans[:-1], (0, 80, 95, 100, 105), strict=True):
        assert one.total_bytes <= (0.92 * 141 - taken) * 10**9
    short = Workload(preset("tiny-1k"), 64, 1024, training=True, gpu=True, product_itemsize=2)
    assert make_plan(short, rooms=gpu_rooms(24 * 10**9)).channels == 128


@pytest.mark.parametrize("length", [1, 1000, 1024, 1025, 5000, 8193, 33_000, 999_999, 1 << 23])
def test_the_plan_of_a_gpu_has_room_for_every_spectrum(length):
    """Or the cache would drop those of the first layers before the last are made."""
    config = preset("tiny-1k").replace(max_seq_len=max(length, 2))
    room = Workload(config, 1, length, gpu=True).spectra // (config.n_layer * config.d_model)
    for largest in (4096, 8192):
        assert 8 * shape_of(length, largest=largest).m + 4 * matrix_fft.PADDING <= room
    assert 8 * smooth_length(length) <= room


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_hyenadna_plan_counts_what_the_engine_plans(training, half, monkeypatch):
    config, total = preset("tiny-1k").replace(n_layer=3), 80 * 10**9
    model = HyenaDNA(config).to(DEVICE)
    model.set_engine("triton")
    monkeypatch.setattr(run, "device_memory", lambda device: total)
    with torch.autocast(DEVICE, torch.bfloat16, enabled=half), torch.set_grad_enabled(training):
        found = model.backbone.engine_pass(model.head_weight, 4, 1000).plan.total_bytes
    setup = Setup(
        config=config, length=1000, batch=4, precision="bf16" if half else "float32",
        task="train" if training else "infer",
    )  # fmt: skip
    told = memory(setup, total)
    assert told.kept + told.work + told.loss == found
    assert (told.kept > 0) and told.freed == pytest.approx(0.05 * found)


def test_both_providers_transform_as_much_at_once_as_the_plan_counts():
    assert DEVICE_SAMPLES == DEVICE_BLOCK_SAMPLES


def test_where_there_are_no_triton_kernels(monkeypatch):
    model, tokens = make().cpu(), random_tokens(1, 5).cpu()
    run = model.backbone.engine_pass(model.head_weight, 1, 5)
    assert run is None or not isinstance(run.kernels, TritonKernels)  # auto, on a CPU
    with pytest.raises(InputError, match=r"no Triton kernels: they are for float32 models"):
        make().double().set_engine("triton")
    wide = SMALL.replace(short_filter_order=17)
    for other in (wide, SMALL.replace(hyena_order=3)):
        with pytest.raises(InputError, match=r"not for a model of this shape"):
            require_triton(other, torch.float32)
    model.set_engine("triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(InputError, match=r"they need an NVIDIA GPU, not cpu; take kernels"):
        model(tokens)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"triton is not installed \(it comes with CUDA builds"):
        model.set_engine("triton")


@pytest.mark.slow
def test_every_kernel_compiles_for_an_h200():
    """Within 64 spilled bytes and a multiprocessor's shared memory. Minutes at first."""
    kernels = lines_of("tests.model.ahead_of_time")
    assert len({kernel["kernel"] for kernel in kernels}) >= 20
    for kernel in kernels:
        assert kernel["shared"] <= 232_448 and kernel["spilled"] <= 64, kernel


@pytest.mark.slow
@pytest.mark.parametrize("gpu", sorted(GPUS.keys() - {"h200"}))
def test_the_kernels_of_a_step_compile_for_other_gpus(gpu):
    kernels = lines_of("tests.model.ahead_of_time", "--short", "--gpu", gpu)
    assert len({kernel["kernel"] for kernel in kernels}) >= 20
    for kernel in kernels:
        assert kernel["shared"] <= GPUS[gpu].shared and not kernel["spilled"], kernel
