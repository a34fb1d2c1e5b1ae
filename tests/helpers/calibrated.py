# SPDX-License-Identifier: Apache-2.0
"""What the tests of layer-wise quantization share: layers with inputs, and their errors."""

from typing import Any

import numpy as np
from draws import put


def layer(features, outputs, seed=0, dead=()) -> Any:
    """Weights and the Gram matrix of correlated inputs behind a ReLU, float64."""
    rng = np.random.default_rng(seed)
    mixing = np.eye(features) + 0.5 * rng.normal(size=(features,) * 2) / features**0.5
    x = np.maximum(rng.normal(size=(6 * features, features)) @ mixing, 0)
    x[:, list(dead)] = 0
    return rng.normal(size=(features, outputs)), x.T @ x


def singles(*arrays: Any) -> Any:
    """As float32 JAX arrays."""
    return [put(x) for x in arrays]


def loss(v, w, h):
    """Squared change of the layer's outputs."""
    change = np.asarray(v, np.float64) - w
    return np.sum(change * (h @ change))
