"""Triton kernels without a GPU: import this before anything that imports them."""

from __future__ import annotations

import os
from types import SimpleNamespace

import numpy as np
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

import triton.language as tl
from triton.runtime import interpreter

_patch_tensor, _patch_lang = interpreter._patch_lang_tensor, interpreter._patch_lang


def _patch_tensor_with_index(tensor, scope):
    _patch_tensor(tensor, scope)
    # Triton 3.6 takes int() of an array of one number, which NumPy 2.4 refuses.
    scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())


# A call of a function within a kernel patches the language once more, around the patches that are
# there already, and takes none of them back: kernels become slower with each. Here a kernel patches
# everything once.
def _patch_all(fn):
    both = SimpleNamespace(__globals__={"tl": tl, "core": tl.core})
    return _patch_lang(both)


def _call(self, *args, **kwargs):
    return self.rewrite()(*args, **kwargs)


_convert = interpreter._convert_float


def _convert_rounding(data, from_type, to_type, mode):
    """As a GPU does: the interpreter of Triton 3.6 cuts digits beyond bfloat16 off."""
    if from_type != tl.float32 or to_type != tl.bfloat16:
        return _convert(data, from_type, to_type, mode)
    values = torch.from_numpy(np.ascontiguousarray(data).view(np.float32))
    return values.bfloat16().view(torch.int16).numpy().view(np.uint16)


interpreter._convert_float = _convert_rounding
interpreter._patch_lang_tensor = _patch_tensor_with_index
interpreter._patch_lang = _patch_all
interpreter.InterpretedFunction.__call__ = _call
