"""Operations and bytes of the matrix form, counted for cases that can be done by hand."""

from __future__ import annotations

import torch

from hyenadna.conv.matrix_tables import shape_of
from hyenadna.conv.matrix_work import Work, backward_work, forward_work, spectrum_work


def test_one_program_a_row():
    shape = shape_of(1024)  # 64 x 16
    # per row two real products with F1 and four with F2, there and back; two operations a term
    one_way = 2 * (2 * 64 * 1024 + 4 * 16 * 1024)
    work = forward_work(shape, 3, 5, 1024, torch.bfloat16)
    assert work.flops == 15 * 2 * one_way
    # v, two gates and y in bfloat16; a spectrum for each channel
    assert work.bytes == 15 * 4 * 1024 * 2 + 3 * 1024 * 8
    assert forward_work(shape, 3, 5, 1024, torch.float32).flops == 3 * work.flops
    # two spectra, and back both y (for the gate after) and the gradient of u; one for the filter
    assert backward_work(shape, 3, 5, 1024, torch.bfloat16).flops == (15 * 4 + 3) * one_way
    assert backward_work(shape, 3, 5, 1024, torch.bfloat16, gates=0).flops == (15 * 3 + 3) * one_way
    assert spectrum_work(shape, 3, 1024).flops == 3 * 3 * one_way


def test_outer_products():
    shape = shape_of(1000, inner=256)  # 4 x (16 x 16), in a tile of 16
    one_way = 2 * (4 * 16 + 4 * 16) * 1024 + 2 * 2 * 16 * 16 * 256
    work = forward_work(shape, 1, 2, 1000, torch.float16, gates=0)
    assert work.flops == 2 * 2 * one_way
    # complex numbers are written and read between the three kernels
    assert work.bytes == 2 * 2 * 1000 * 2 + 1024 * 8 + 2 * 4 * 1024 * 4


def test_works_add_up():
    assert Work(10, 1) + Work(10, 2) == Work(20, 3)
