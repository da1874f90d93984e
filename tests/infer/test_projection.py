"""Projections are those of their definitions, and the same for the same seed."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from hyenadna.errors import InputError
from hyenadna.infer.projection import project, require_method


@pytest.fixture
def values():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 5)) * 8
    return (centres.repeat(20, 0) + rng.normal(size=(60, 5))).astype(np.float32)


def test_pca_is_the_singular_value_decomposition(values):
    found = project(values, "pca", 0)
    centred = values - values.mean(0)
    _, singular, axes = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    np.testing.assert_allclose(np.abs(found.points), np.abs(centred @ axes[:2].T), atol=1e-4)
    share = (singular**2 / (singular**2).sum())[:2]
    assert found.axes == (f"PC1 ({share[0]:.1%})", f"PC2 ({share[1]:.1%})")


@pytest.mark.parametrize("method", ["pca", "tsne", "umap"])
def test_groups_stay_together_and_a_seed_is_kept(values, method):
    if method == "umap":
        pytest.importorskip("umap")
    one, again = (project(values, method, 3) for _ in range(2))
    np.testing.assert_array_equal(one.points, again.points)
    assert one.points.shape == (60, 2)
    centres = one.points.reshape(3, 20, 2).mean(1)
    nearest = np.linalg.norm(one.points[:, None] - centres, axis=2).argmin(1)
    assert (nearest == np.arange(3).repeat(20)).all()


@pytest.mark.parametrize("method", ["pca", "tsne", "umap"])
@pytest.mark.parametrize("rows", [3, 4, 12])
def test_few_rows_and_rows_that_are_all_the_same(method, rows):
    if method == "umap":
        pytest.importorskip("umap")
    rng = np.random.default_rng(0)
    assert np.isfinite(project(rng.normal(size=(rows, 4)), method, 0).points).all()
    with pytest.raises(InputError, match=f"all {rows} rows are the same: there is nothing to draw"):
        project(np.ones((rows, 4), np.float32), method, 0)
    if method == "pca":
        assert project(rng.normal(size=(rows, 1)), method, 0).points.shape == (rows, 2)


def test_what_cannot_be_projected(values, monkeypatch):
    values[3, 1] = np.nan
    with pytest.raises(InputError, match="1 of 60 rows hold NaN"):
        project(values, "pca", 0)
    with pytest.raises(InputError, match="2 rows cannot be projected"):
        project(values[:2], "pca", 0)
    with pytest.raises(InputError, match="--method is 'mds'; it is pca, tsne, umap"):
        require_method("mds")
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(InputError, match=r"pip install 'hyenadna\[umap\]'"):
        require_method("umap")
