"""Tensors that wait for the backward pass in files instead of in memory."""

from __future__ import annotations

import tempfile
import weakref
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hyenadna.errors import InputError
from hyenadna.model.engine import pages


class OffloadedTensor:
    """A float32 or float64 tensor in a file of its own, which is removed once it is read.

    It is also removed when nobody refers to this object any more. Raises InputError where the file
    cannot be written.
    """

    def __init__(self, tensor: Tensor, folder: Path) -> None:
        self.shape, self.dtype, self.device = tensor.shape, tensor.dtype, tensor.device
        array = tensor.detach().cpu().contiguous().numpy()
        path = None
        try:
            with tempfile.NamedTemporaryFile(
                dir=folder, prefix="hyenadna-", suffix=".stream", delete=False
            ) as file:
                path = Path(file.name)
                array.tofile(file)
        except OSError as error:
            if path is not None:
                path.unlink(missing_ok=True)
            raise InputError(
                f"offload: {folder}: {array.nbytes:,} bytes cannot be written "
                f"({error.strerror or error}); give a folder with room for them"
            ) from error
        self.path = path
        self._remove = weakref.finalize(self, path.unlink, missing_ok=True)

    def read(self) -> Tensor:
        """The tensor, bit for bit. Raises InputError when it is asked for a second time."""
        if not self._remove.alive:
            raise InputError(
                "offload: a second backward pass through one graph, but its files are used up; "
                "set_engine(offload=None) for retain_graph"
            )
        tensor = pages.empty(self.shape, self.dtype, torch.device("cpu"))
        with self.path.open("rb") as file:
            read = file.readinto(tensor.numpy().reshape(-1).view(np.uint8).data)
        self._remove()
        if read != tensor.nbytes:
            raise InputError(f"offload: {self.path}: cut short; was the disk full?")
        return tensor.to(self.device)
