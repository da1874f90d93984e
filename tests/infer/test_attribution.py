"""captum and tangermeme on a one-hot model: their numbers, and ours beside them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from hyenadna.alphabet import decode, encode
from hyenadna.config import ModelConfig
from hyenadna.data.labelled_data import Task
from hyenadna.errors import InputError
from hyenadna.infer.mutate import mutate
from hyenadna.infer.mutate_task import mutate_task
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.heads import TaskModel
from hyenadna.model.one_hot import OneHotModel, one_hot

IDS = np.random.default_rng(0).integers(7, 11, 24).astype(np.uint8)
X = one_hot(IDS).double()[None]


def make_network() -> HyenaDNA:
    torch.manual_seed(0)
    network = HyenaDNA(ModelConfig(d_model=8, n_layer=2, max_seq_len=40, filter_order=8))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.double().eval()


def make_tuned(**options) -> TaskModel:
    tuned = TaskModel(make_network(), Task("classes", ("no", "yes")), **options).eval()
    torch.nn.init.normal_(tuned.head.weight)
    return tuned


def test_one_hot_sequences_give_the_models_own_numbers():
    network, ids = make_network(), encode("ACGTNNACG")
    tokens = torch.as_tensor(ids).long()
    x = one_hot(ids)
    assert x.shape == (4, 9) and not x[:, 4:6].any() and decode(ids) == "ACGTNNACG"
    logp = network(tokens)[0].log_softmax(-1)
    want = sum(logp[t - 1, tokens[t]] for t in range(1, 9) if tokens[t] < 11)
    torch.testing.assert_close(OneHotModel(network)(x[None])[0, 0], want)
    for strands in ("forward", "average", "concatenate"):
        for pooling in ("mean", "last", "attention"):
            tuned = make_tuned(strands=strands, pooling=pooling)
            torch.testing.assert_close(OneHotModel(tuned)(x[None].double()), tuned(tokens))


@pytest.mark.parametrize("kernels", ["auto", "torch", "plain"])
def test_gradients_are_those_of_differences(kernels):
    network = make_network()
    network.set_engine(kernels)
    model, x, step = OneHotModel(network), X.clone().requires_grad_(), 1e-5
    (gradient,) = torch.autograd.grad(model(x).sum(), x)
    for row, position in ((0, 0), (3, 7), (1, 23)):
        nudge = torch.zeros_like(X)
        nudge[0, row, position] = step
        with torch.no_grad():
            slope = (model(X + nudge) - model(X - nudge)) / (2 * step)
        assert float(gradient[0, row, position]) == pytest.approx(slope.item(), rel=1e-6, abs=1e-8)


def test_captum():
    attr = pytest.importorskip("captum.attr")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for model, target in ((OneHotModel(make_network()), None), (OneHotModel(make_tuned()), 1)):
            column = target or 0
            zero = torch.zeros_like(X)  # all N
            found = attr.IntegratedGradients(model).attribute(
                X, baselines=zero, target=target, n_steps=200
            )
            whole = (model(X) - model(zero))[0, column]
            torch.testing.assert_close(found.sum(), whole, rtol=1e-5, atol=1e-5)
            x = X.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(model(x)[:, column].sum(), x)
            saliency = attr.Saliency(model).attribute(X, target=target, abs=False)
            torch.testing.assert_close(saliency, gradient)


@pytest.mark.parametrize("tuned", [False, True])
def test_tangermeme_finds_our_scores(tuned):
    module = pytest.importorskip("tangermeme.saturation_mutagenesis")
    network = make_tuned(strands="average") if tuned else make_network()
    model = OneHotModel(network)
    before, after = module.saturation_mutagenesis(model, X, raw_outputs=True, device="cpu")
    change = (after - before[:, None, None])[0].permute(1, 0, 2)  # (L, 4, T)
    if tuned:  # the log odds of one of two classes
        got = (change[..., 1] - change[..., 0]).numpy()
        want = mutate_task(network, IDS).score
    else:
        got = change[..., 0].numpy()
        want = mutate(network, IDS, after=None, strands="forward").score
    known = ~np.isnan(want)
    np.testing.assert_allclose(got[known], want[known], atol=1e-10)
    assert known.sum() == 3 * len(IDS) and not network.training


def test_tangermeme_marginalizes_a_motif():
    module = pytest.importorskip("tangermeme.marginalize")
    model = OneHotModel(make_network())
    found = module.marginalize(model, X, "TATAAA", device="cpu")
    put = encode(decode(IDS[:9]) + "TATAAA" + decode(IDS[15:]))  # in the middle
    torch.testing.assert_close(found.y_before, model(X).detach())
    torch.testing.assert_close(found.y_after, model(one_hot(put).double()[None]).detach())


def test_tangermeme_deep_lift_shap_with_integrated_gradients():
    """Its own rules do not know gates and long convolutions; this operation needs none."""
    module = pytest.importorskip("tangermeme.deep_lift_shap")
    model = OneHotModel(make_tuned())
    whole = {type(model): module.integrated_gradients_op(K=32)}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Convergence deltas")
        found, references = module.deep_lift_shap(
            model, X, target=1, n_shuffles=2, random_state=0, device="cpu",
            hypothetical=False, return_references=True, additional_nonlinear_ops=whole,
        )  # fmt: skip
    want = model(X)[0, 1] - model(references[0].double())[:, 1].mean()
    torch.testing.assert_close(found.sum().double(), want.detach(), rtol=1e-3, atol=1e-4)


def test_the_wrapper_follows_the_mode_of_the_model():
    network = make_network()
    assert not OneHotModel(network).training and OneHotModel(network.train()).training


def test_refuses():
    with pytest.raises(InputError, match=r"shape \(1, 3, 4\)"):
        OneHotModel(make_network())(torch.zeros(1, 3, 4))
    with pytest.raises(InputError, match="no one output"):
        OneHotModel(TaskModel(make_network(), Task("tokens", ("E", "I"))))
    with pytest.raises(InputError, match="ids of one sequence"):
        one_hot(np.array([1, 7], np.uint8))
