# SPDX-License-Identifier: Apache-2.0
"""What the tests of second-order pruning share: layers with inputs, and plain oracles."""

from typing import Any

import numpy as np
from draws import put


def layer(features, outputs, seed=0, positive=False):
    """Weights and the Gram matrix of correlated inputs, float64."""
    rng = np.random.default_rng(seed)
    mixing = np.eye(features) + 0.5 * rng.normal(size=(features,) * 2) / features**0.5
    x = rng.normal(size=(4 * features, features)) @ mixing
    x = np.maximum(x, 0) if positive else x
    return rng.normal(size=(features, outputs)), x.T @ x


def singles(*arrays: Any) -> Any:
    """As float32 JAX arrays."""
    return [put(x) for x in arrays]


def loss(v, w, h):
    """Half of the squared change of the layer's outputs."""
    change = np.asarray(v, np.float64) - w
    return 0.5 * np.sum(change * (h @ change))


def damp(h, damping):
    """Damped in float64, with the mean over live features where the diagonal is zero."""
    h = np.array(h, np.float64)
    diagonal = np.diag(h).copy()
    mean = diagonal[diagonal > 0].mean()
    h[np.diag_indices(len(h))] += np.where(diagonal > 0, damping * mean, mean)
    return h


def refit(w, h, keep):
    """Least squares under a mask, by ``lstsq`` on a square root of ``h``."""
    root = np.linalg.cholesky(h).T
    new = np.zeros_like(w)
    for j in range(w.shape[1]):
        kept = np.asarray(keep)[:, j]
        new[kept, j] = np.linalg.lstsq(root[:, kept], root @ w[:, j])[0]
    return new
