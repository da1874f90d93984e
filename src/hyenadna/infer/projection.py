"""Embeddings in two dimensions: PCA, t-SNE and UMAP."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from hyenadna.errors import InputError

Method = Literal["pca", "tsne", "umap"]
METHODS: Final[tuple[Method, ...]] = get_args(Method)
NAMES: Final = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
_COMPONENTS: Final = 50
"""Principal components that t-SNE and UMAP see: what is behind them is mostly noise, and time."""
_PERPLEXITY: Final = 30.0
_NEIGHBOURS: Final = 15

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Projection:
    """Rows in two dimensions."""

    method: Method
    points: npt.NDArray[np.float64]
    """(n, 2)."""
    axes: tuple[str, str]
    """What stands at the axes."""
    note: str
    """How it was made, in words."""


def require_method(method: str) -> Method:
    """The method of a name. Raises InputError for another, and where its package is missing."""
    for known in METHODS:
        if method == known:
            if known == "umap":
                _umap()
            return known
    raise InputError(f"--method is {method!r}; it is {', '.join(METHODS)}")


def project(values: Floats, method: Method, seed: int) -> Projection:
    """Rows (n, D) in two dimensions; the same for the same seed.

    PCA centres the columns and does not scale them. t-SNE and UMAP look at the first 50 principal
    components, with perplexity 30 and 15 neighbours (fewer where there are few rows). The sign of a
    component is that of its largest weight.

    Raises InputError for fewer than 3 rows, for rows that are all the same, and for numbers that
    are not finite.
    """
    if len(values) < 3:
        raise InputError(f"{len(values)} rows cannot be projected; there must be at least 3")
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).any(1).sum())
        raise InputError(f"{bad:,} of {len(values):,} rows hold NaN or infinity; embed them again")
    if (values == values[0]).all():
        raise InputError(f"all {len(values):,} rows are the same: there is nothing to draw")
    parts, explained = _principal(values, seed)
    if method == "pca":
        shares = [f"PC{i + 1} ({share:.1%})" for i, share in enumerate(explained[:2])]
        axes = (shares[0], shares[1])
        return Projection(method, parts[:, :2], axes, f"{sum(explained[:2]):.1%} of the variance")
    if method == "tsne":
        return _tsne(parts, seed)
    return _umapped(parts, seed)


def _principal(values: Floats, seed: int) -> tuple[npt.NDArray[np.float64], list[float]]:
    from sklearn.decomposition import PCA

    if values.shape[1] < 2:
        values = np.column_stack([values, np.zeros(len(values), values.dtype)])
    count = min(_COMPONENTS, *values.shape)
    solver = PCA(count, random_state=seed)
    parts = solver.fit_transform(values.astype(np.float64))
    return parts, solver.explained_variance_ratio_.tolist()


def _tsne(parts: npt.NDArray[np.float64], seed: int) -> Projection:
    from sklearn.manifold import TSNE

    perplexity = min(_PERPLEXITY, max(1.0, (len(parts) - 1) / 3))
    made = TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
    points = made.fit_transform(parts).astype(np.float64)
    note = f"perplexity {perplexity:g}, {parts.shape[1]} principal components, seed {seed}"
    return Projection("tsne", points, ("t-SNE 1", "t-SNE 2"), note)


def _umapped(parts: npt.NDArray[np.float64], seed: int) -> Projection:
    neighbours = min(_NEIGHBOURS, len(parts) - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a seed means one thread
        start = "spectral" if len(parts) > 10 else "random"
        made = _umap().UMAP(n_neighbors=neighbours, random_state=seed, init=start)
        points = made.fit_transform(parts).astype(np.float64)
    note = f"{neighbours} neighbours, {parts.shape[1]} principal components, seed {seed}"
    return Projection("umap", points, ("UMAP 1", "UMAP 2"), note)


def _umap() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import umap
    except ImportError:
        raise InputError(
            "--method umap: umap-learn is not installed; `pip install 'hyenadna[umap]'`"
        ) from None
    return umap
