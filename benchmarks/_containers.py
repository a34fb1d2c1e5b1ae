# SPDX-License-Identifier: Apache-2.0
"""The same two layers in the containers of several libraries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

_SIZES = (16, 8, 4)


def _layers(dtype: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return kernels and biases: normal numbers, without a program for each shape."""
    draws = np.random.default_rng(0)
    return [
        (
            draws.normal(size=shape).astype(jnp.dtype(dtype)),
            draws.normal(size=shape[1:]).astype(jnp.dtype(dtype)),
        )
        for shape in zip(_SIZES, _SIZES[1:], strict=False)
    ]


def _filled(tree: Any, dtype: str) -> Any:
    """Put the numbers into a tree of that structure, whichever way its kernels lie."""
    numbers = {}
    for kernel, bias in _layers(dtype):
        numbers |= {
            kernel.shape: kernel,
            kernel.shape[::-1]: kernel.T,
            bias.shape: bias,
        }
    return jax.tree.map(lambda leaf: jnp.asarray(numbers[leaf.shape]), tree)


class _Linen(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(_SIZES[2])(nn.relu(nn.Dense(_SIZES[1])(x)))


class _NNX(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(*_SIZES[:2], rngs=rngs)
        self.second = nnx.Linear(*_SIZES[1:], rngs=rngs)


class _Equinox(eqx.Module):
    layers: list[eqx.nn.Linear]

    def __init__(self, key: jax.Array) -> None:
        sizes = zip(_SIZES, _SIZES[1:], strict=False)
        self.layers = [eqx.nn.Linear(n, m, key=key) for n, m in sizes]


def _linen(dtype: str) -> Any:
    shapes = jax.eval_shape(_Linen().init, jax.random.key(0), jnp.ones((1, _SIZES[0])))
    return _filled(shapes["params"], dtype)


def _nnx(dtype: str) -> Any:
    return _filled(
        nnx.state(nnx.eval_shape(lambda: _NNX(nnx.Rngs(0))), nnx.Param), dtype
    )


def _equinox(dtype: str) -> Any:
    shapes = eqx.filter_eval_shape(_Equinox, jax.random.key(0))
    return _filled(eqx.filter(shapes, lambda x: hasattr(x, "shape")), dtype)


def _haiku(dtype: str) -> Any:
    return {
        f"mlp/~/linear_{i}": {"w": jnp.asarray(kernel), "b": jnp.asarray(bias)}
        for i, (kernel, bias) in enumerate(_layers(dtype))
    }


def _numpy(dtype: str) -> Any:
    return {
        f"layer_{i}": {"kernel": kernel, "bias": bias}
        for i, (kernel, bias) in enumerate(_layers(dtype))
    }


def _tuples(dtype: str) -> Any:
    return tuple(tuple(map(jnp.asarray, layer)) for layer in _layers(dtype))


CONTAINERS: dict[str, Callable[[str], Any]] = {
    "Linen": _linen,
    "NNX": _nnx,
    "Equinox": _equinox,
    "Haiku": _haiku,
    "numpy": _numpy,
    "tuples": _tuples,
    "unnamed": _tuples,  # whose weights the caller does not point out
}
