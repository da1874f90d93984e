"""Inputs of the gated convolution, its values and gradients, and how far they are off."""

from __future__ import annotations

import torch

from hyenadna.conv import gated_long_convolution

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAMES = ("y", "v", "k", "skip", "before", "after")
# Root mean square errors, as parts of the root mean square. Of a 16-bit type the result has its own
# rounding: 1.9e-4 for float16 and 1.7e-3 for bfloat16. The transforms add 4e-4 (measured; 8
# roundings of 1.4e-4 each, of four factors and of four tables).
LEAST = {torch.float16: 1e-3, torch.bfloat16: 2.5e-3}


def inputs(batch, channels, length, dtype, seed=0):
    """v, k, skip, before, after; a filter that decays, as those of the model do."""
    generator = torch.Generator(DEVICE).manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, device=DEVICE)

    v, before, after = (normal(batch, channels, length).to(dtype) for _ in range(3))
    decay = torch.exp(-torch.arange(length, device=DEVICE) * 4 / length)
    return [v, normal(channels, length) * decay, normal(channels), before, after]


def values_and_gradients(method, arguments, exact=False):
    """y and gradients of a weighted sum of it, of all arguments that are not None."""
    dtype = arguments[0].dtype
    leaves = [
        None if x is None else (x.double() if exact else x).clone().requires_grad_()
        for x in arguments
    ]
    v, k, skip, before, after = leaves
    y = gated_long_convolution(v, k, skip, before=before, after=after, method=method)
    generator = torch.Generator(DEVICE).manual_seed(9)
    weight = torch.randn(y.shape, generator=generator, device=DEVICE).to(dtype)
    given = [x for x in leaves if x is not None]
    return [y.detach(), *torch.autograd.grad(y, given, weight.to(y))]


def errors(found, exact):
    """Root mean square errors, as parts of the root mean square."""
    return [
        ((x.double() - e).norm() / e.norm().clamp(min=1e-30)).item()
        for x, e in zip(found, exact, strict=True)
    ]


def assert_within(found, exact, limit):
    """Errors of y and of the gradients.

    Of the gradient of skip there is one number for each channel, the first of the gradient of k and
    as uncertain as any of it, however small it comes out: its error is a part of their root mean
    square, and may be twice as large as the mean of many.
    """
    for name, error in zip(NAMES, errors(found, exact), strict=True):
        if name != "skip":
            assert error < limit, name
    k, skip = NAMES.index("k"), NAMES.index("skip")
    typical = exact[k].square().mean(1).sqrt()
    assert ((found[skip].double() - exact[skip]).abs() < 2 * limit * typical).all(), "skip"


def assert_alike_in_any_batch(arguments, row):
    """Two runs are equal, and a row alone is what it is in its batch, bit by bit."""
    whole, again = (values_and_gradients("matrix", arguments) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
    v, k, skip, before, after = arguments
    own = slice(row, row + 1)
    alone = gated_long_convolution(
        v[own], k, skip, before=before[own], after=after[own], method="matrix"
    )
    assert torch.equal(alone, whole[0][own])
