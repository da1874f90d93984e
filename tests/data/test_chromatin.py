"""The DeepSEA matrices in both MATLAB layouts, read a block of rows at a time."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat
from tests.chromatin_rows import matrix_rows, one_hot

from hyenadna.alphabet import decode
from hyenadna.cli.finetune_report import prediction_rows
from hyenadna.data.benchmarks import chromatin
from hyenadna.data.labelled_batches import make_batch
from hyenadna.errors import InputError


def write_hdf5(path: Path, stem: str, texts, targets) -> None:
    """As MATLAB 7.3 does: HDF5 with the axes in reverse, behind a header of 512 bytes."""
    import h5py

    with h5py.File(path, "w", userblock_size=512) as file:
        file[f"{stem}xdata"] = one_hot(texts).transpose(2, 1, 0)
        file[f"{stem}data"] = targets.T
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file".ljust(512))


def test_chromatin_from_hdf5_needs_h5py(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)  # as if it were not there
    (tmp_path / "train.mat").write_bytes(b"MATLAB 7.3 MAT-file")
    with pytest.raises(InputError, match="read by h5py, which is not installed"):
        chromatin.load("1k", tmp_path)


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_chromatin_from_hdf5(tmp_path, monkeypatch, at_once):
    """A training part of MATLAB 7.3 beside an older valid part, a block of rows at a time."""
    pytest.importorskip("h5py", reason="h5py is not installed (the extra hdf5)")
    monkeypatch.setattr(chromatin, "_ROWS_AT_ONCE", at_once)
    texts, both, targets = matrix_rows()
    write_hdf5(tmp_path / "train.mat", "train", both, targets)
    savemat(tmp_path / "valid.mat", {"validxdata": one_hot(texts), "validdata": 1 - targets[:4]})
    data = chromatin.load("1k", tmp_path)
    assert [decode(ids) for ids in data.sequences] == [*texts, *texts]
    assert data.targets.tolist() == [*targets[:4].tolist(), *(1 - targets[:4]).tolist()]
    assert [str(s) for s in data.splits] == ["train"] * 4 + ["valid"] * 4
    wrong = targets.copy()
    wrong[3, 2] = 2
    write_hdf5(tmp_path / "train.mat", "train", both, wrong)
    with pytest.raises(InputError, match="row 4 has the label 2; it must be 0 or 1"):
        chromatin.load("1k", tmp_path)
    write_hdf5(tmp_path / "train.mat", "train", both, targets[:, :4])
    with pytest.raises(InputError, match=r"valid\.mat: has 5 labels, train.mat 4"):
        chromatin.load("1k", tmp_path)


def test_labels_are_a_byte_each_and_batches_have_numbers(tmp_path):
    """As bool they are the same data as float32: digest, parts, batches."""
    texts, _, targets = matrix_rows()
    savemat(tmp_path / "valid.mat", {"validxdata": one_hot(texts), "validdata": targets[:4]})
    data = chromatin.load("1k", tmp_path)
    assert data.targets.dtype == np.bool_
    wide = dataclasses.replace(data, targets=data.targets.astype(np.float32))
    assert data.digest() == wide.digest()
    index = np.array([2, 0])
    batch = make_batch(data, index)
    assert batch.targets.dtype == torch.float32
    assert batch.targets.tolist() == make_batch(wide, index).targets.tolist()
    outputs = np.full(data.targets.shape, 0.5, dtype=np.float32)
    assert list(prediction_rows(data, outputs)) == list(prediction_rows(wide, outputs))


def test_chromatin_letters_are_n_unless_one_is_set():
    hot = np.zeros((1, 4, 6))
    hot[0, [0, 1, 2, 3], [0, 1, 2, 3]] = 1  # A, G, C, T; then none, then all alike
    hot[0, :, 5] = 0.25
    for rows in (hot, np.asfortranarray(hot), hot.transpose(2, 1, 0).copy().transpose(2, 1, 0)):
        assert decode(chromatin._letters(rows)[0]) == "AGCTNN"
