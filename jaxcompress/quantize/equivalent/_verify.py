# SPDX-License-Identifier: Apache-2.0
"""Run a function to check that rescaling its links does not change it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._compressor import PyTree
from ..._select import map_with_path, paths_and_leaves
from ._links import Bound, ByPath, Link, bind, rescale
from ._rotate import rotate, signs_of


def verify_links(
    fn: Callable[..., Any],
    params: PyTree,
    links: Sequence[Link],
    *args: Any,
    rotated: bool = False,
    key: jax.Array | None = None,
    tolerance: float | None = None,
) -> None:
    """Check that rescaling each link leaves the function unchanged; run it before AWQ etc.

    Each link in turn is rescaled by random powers of two between 1/4 and 4. Floats multiply
    by these without rounding, so a correct link gives the same result to the last bit. A
    link across a GELU, or one with a missing consumer, does not. The function is compiled
    once and runs once more than there are links.

    Args:
      fn: ``(params, *args) -> out``, a tree; in evaluation mode, without dropout.
      params: parameters of ``fn``. Avoid zeros, such as freshly initialized biases: they
        would hide a leaf that is missing in a link.
      links: the links to check.
      *args: further arguments of ``fn``: real data.
      rotated: rotate instead of rescaling, as ``hadamard_rotation`` does; the results then
        agree only up to rounding.
      key: PRNG key of the scales or signs; None uses a fixed key.
      tolerance: largest allowed difference, relative to the largest magnitude of the same
        output. None uses 100 times the machine epsilon of the least precise float among
        parameters and outputs, at most 0.01; for rotations the square root of that
        epsilon.

    Raises:
      ValueError: at the first link that changes the function (the error names the link and
        the change); if links do not fit the parameters; or if the function returns NaN
        or infinity.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> from jaxcompress.quantize.equivalent import Link, verify_links
      >>> params = {"up": jnp.full((2, 4), 0.5), "down": jnp.ones((4, 2))}
      >>> def fn(params, x, act=jax.nn.relu):
      ...     return act(x @ params["up"]) @ params["down"]
      >>> link, x = Link({"up": 1}, {"down": 0}), jnp.array([[1.0, 2.0]])
      >>> verify_links(fn, params, [link], x)
      >>> verify_links(fn, params, [link], x, jax.nn.gelu)  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      ...
      ValueError: rescaling the link 'up' -> 'down' changes the output by ...
    """
    bound = bind(links, params)
    key = jax.random.key(0) if key is None else key
    run = jax.jit(lambda p: fn(p, *args))
    # Accelerators multiply float32 with fewer bits by default.
    with jax.default_matmul_precision("float32"):
        expected = run(params)
        check_finite(expected)
        allowed = tolerance
        if allowed is None:
            unit = coarsest_unit((params, expected))
            allowed = unit**0.5 if rotated else min(100 * unit, 0.01)
        for i, link in enumerate(bound):
            moved = _moved(params, link, jax.random.fold_in(key, i), rotated)
            difference = largest_difference(expected, run(moved))
            if not difference <= allowed:
                raise ValueError(_message(link, difference, allowed, rotated))


def _moved(params: PyTree, link: Bound, key: jax.Array, rotated: bool) -> PyTree:
    paths, leaves, _ = paths_and_leaves(params)
    by_path: ByPath = dict(zip(paths, leaves, strict=True))
    if rotated:
        new = rotate(by_path, [link], signs_of([link], key))
    else:
        powers = jnp.array([0.25, 0.5, 2.0, 4.0], jnp.float32)
        new = rescale(by_path, [link], [jax.random.choice(key, powers, link.dims)])
    return map_with_path(lambda path, leaf: new[path], params)


def _floats(tree: PyTree) -> list[Any]:
    return [
        x
        for x in jax.tree.leaves(tree)
        if jnp.issubdtype(jnp.result_type(x), jnp.floating)
    ]


def coarsest_unit(tree: PyTree) -> float:
    """Return the machine epsilon of the least precise float of a tree."""
    return max(float(jnp.finfo(jnp.result_type(x)).eps) for x in _floats(tree))


def largest_difference(expected: PyTree, actual: PyTree) -> float:
    """Return the largest difference, relative to each output's largest magnitude."""
    worst = 0.0
    for a, b in zip(_floats(expected), _floats(actual), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        size = np.max(np.abs(a), initial=0)
        change = np.max(np.abs(a - b), initial=0)
        # In this order max() keeps a NaN.
        worst = max(change / size if size else change, worst)
    return float(worst)


def check_finite(out: PyTree) -> None:
    """Reject outputs that cannot be compared."""
    if not _floats(out):
        raise ValueError(
            "fn must return floating-point outputs: return logits, not classes."
        )
    if not all(bool(jnp.all(jnp.isfinite(x))) for x in _floats(out)):
        raise ValueError(
            "fn returns NaN or infinity for these parameters and arguments, so the "
            "outputs cannot be compared."
        )


def _message(link: Bound, difference: float, allowed: float, rotated: bool) -> str:
    action = "rotating" if rotated else "rescaling"
    operation = (
        "is not linear (a ReLU, a gate, a scale of a norm)"
        if rotated
        else "is not positively homogeneous (a GELU, a sigmoid, a norm)"
    )
    return (
        f"{action} the link {link.name} changes the output by {difference:.1e} of its "
        f"largest magnitude; rounding explains {allowed:.1e}. Either an operation between "
        f"producers and consumers {operation}, or a leaf is missing: a bias among the "
        "producers, another layer that reads the same channels, or another leaf that "
        "writes to the same sum."
    )
