# SPDX-License-Identifier: Apache-2.0
"""Check, by running a function, that rescaling its links leaves it as it is."""

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
    """Check that links are what they are said to be: that moving them changes nothing.

    Each link in turn is rescaled by random powers of two between 1/4 and 4, which floats
    are multiplied by without rounding: a link that is right gives the same result to the
    last bit. One across a GELU, or with a consumer that was forgotten, does not. The
    function is compiled once and runs once more than there are links.

    Args:
      fn: ``(params, *args) -> out``, a tree; in evaluation mode, without dropout.
      params: its parameters; not of zeros, such as biases as they are initialized, which
        would hide that they are missing in a link.
      links: to be checked.
      *args: what ``fn`` is given beside the parameters: real data.
      rotated: rotate instead, as ``hadamard_rotation`` does; to rounding.
      key: PRNG key of the scales or signs; None: a fixed one.
      tolerance: largest difference, relative to the largest magnitude of the same output.
        None: 100 units of the least precise float among parameters and outputs and at
        most 0.01; for rotations the square root of its unit.

    Raises:
      ValueError: at the first link that changes the function, naming it and by how much;
        for links that do not fit the parameters; and if the function gives NaN or
        infinity.

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
    # Other devices multiply float32 in fewer bits unless told not to.
    with jax.default_matmul_precision("float32"):
        expected = run(params)
        _check_finite(expected)
        allowed = (
            _allowed((params, expected), rotated) if tolerance is None else tolerance
        )
        for i, link in enumerate(bound):
            moved = _moved(params, link, jax.random.fold_in(key, i), rotated)
            found = _difference(expected, run(moved))
            if not found <= allowed:
                raise ValueError(_complaint(link, found, allowed, rotated))


def _moved(params: PyTree, link: Bound, key: jax.Array, rotated: bool) -> PyTree:
    paths, leaves, _ = paths_and_leaves(params)
    known: ByPath = dict(zip(paths, leaves, strict=True))
    if rotated:
        new = rotate(known, [link], signs_of([link], key))
    else:
        powers = jnp.array([0.25, 0.5, 2.0, 4.0], jnp.float32)
        new = rescale(known, [link], [jax.random.choice(key, powers, link.dims)])
    return map_with_path(lambda path, leaf: new[path], params)


def _floats(tree: PyTree) -> list[Any]:
    return [
        x
        for x in jax.tree.leaves(tree)
        if jnp.issubdtype(jnp.result_type(x), jnp.floating)
    ]


def _allowed(tree: PyTree, rotated: bool) -> float:
    unit = max(float(jnp.finfo(jnp.result_type(x)).eps) for x in _floats(tree))
    return unit**0.5 if rotated else min(100 * unit, 0.01)


def _difference(expected: PyTree, found: PyTree) -> float:
    """The largest of all outputs, each relative to its own largest magnitude."""
    worst = 0.0
    for a, b in zip(_floats(expected), _floats(found), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        size = np.max(np.abs(a), initial=0)
        change = np.max(np.abs(a - b), initial=0)
        # Written so that a NaN stays.
        worst = max(change / size if size else change, worst)
    return float(worst)


def _check_finite(out: PyTree) -> None:
    if not _floats(out):
        raise ValueError("the function gives no floats: return logits, not classes.")
    if not all(bool(jnp.all(jnp.isfinite(x))) for x in _floats(out)):
        raise ValueError(
            "the function gives NaN or infinity with these parameters and arguments, so "
            "that nothing can be compared."
        )


def _complaint(link: Bound, found: float, allowed: float, rotated: bool) -> str:
    how = "rotating" if rotated else "rescaling"
    between = (
        "is not linear (a ReLU, a gate, a scale of a norm)"
        if rotated
        else "is not positively homogeneous (a GELU, a sigmoid, a norm)"
    )
    return (
        f"{how} the link {link.name} changes the output by {found:.1e} of its largest "
        f"magnitude; {allowed:.1e} is rounding. Either what lies between {between}, or a "
        "leaf is missing: a bias among the producers, another layer that reads the same "
        "channels, or others that write to the same sum."
    )
