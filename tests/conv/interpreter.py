"""Triton kernels without a GPU: import this before anything that imports them."""

from __future__ import annotations

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from triton.runtime import interpreter

_patch = interpreter._patch_lang_tensor


def _patch_with_index(tensor, scope):
    _patch(tensor, scope)
    # Triton 3.6 takes int() of an array of one number, which NumPy 2.4 refuses.
    scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())


interpreter._patch_lang_tensor = _patch_with_index
