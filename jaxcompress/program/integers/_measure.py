# SPDX-License-Identifier: Apache-2.0
"""Time products on integers and on floats, each in the loops that it stands in."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ..._arguments import check_counts
from ...formats import Int
from ..products._site import Site
from ..trace import _compat
from ._choose import Product, as_operand, operand, rows_rounded, stored_axes
from ._execute import prepare
from ._product import as_codes, product

# Trips of a loop that are timed: what happens once per loop counts as in a loop of so many.
_TRIPS = 8


class Measured(NamedTuple):
    """The timings from ``measured``; pass it to ``execute`` as ``pays``.

    Attributes:
      ratios: time on integers divided by time on floats, by site name, for each product
        that can run on integers. Below 1, integers are faster.
      noise: by how much two runs of the same program differ, relative to their time, by
        site name.
    """

    ratios: Mapping[str, float]
    noise: Mapping[str, float] = {}

    def __call__(self, site: Site) -> bool:
        """True if a product was faster on integers by more than the noise."""
        limit = 1.0 - self.noise.get(site.name, 0.0)
        return self.ratios.get(site.name, 1.0) < limit


def measured(
    fn: Callable[..., Any],
    packed: Any,
    *args: Any,
    rounds: int = 15,
    inline_custom: bool = False,
) -> Measured:
    """Time every product on integers and on floats on this device, to choose ``pays``.

    Each product runs on random numbers in the loops that it stands in, up to 8 trips of
    each, with the leaf as it is stored and including the rounding of its input. The
    versions alternate, and the ratio is the median over the rounds. Floats run twice in
    each round: how far two equal runs differ is the noise, and integers that are not faster
    by more than that do not pay. What the compiler makes of a product and its neighbors
    together is not measured. It takes wall-clock time, so call it once, outside ``jit``.

    Args:
      fn: ``(params, *args) -> out`` of dense parameters.
      packed: packed parameters.
      *args: arrays or shapes with the sizes of the real run.
      rounds: number of timed rounds.
      inline_custom: also enter functions with custom derivative rules.

    Raises:
      ValueError: if ``rounds`` is below 1.
      TypeError: if it is not an integer.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> packed = jc.compress(jc.weight_quantization(bits=8), {"kernel": jnp.eye(64)})
      >>> fn = lambda params, x: x @ params["kernel"]
      >>> pays = jc.program.measured(fn, packed, jnp.ones((16, 64)), rounds=2)
      >>> list(pays.ratios)
      ['kernel']
      >>> execution = jc.execute(fn, pays=pays)
    """
    check_counts(rounds=rounds)
    prepared = prepare(fn, None, lambda site: True, inline_custom, packed, args, None)
    times = {p.site.name: _time(*programs(p), rounds) for p in prepared.products}
    return Measured(
        {name: ratio for name, (ratio, _) in times.items()},
        {name: noise for name, (_, noise) in times.items()},
    )


def programs(p: Product) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return a product on floats and on integers, in its loops, jitted.

    Args:
      p: the product.
    """
    weight, depth = p.site.weight or 0, len(p.layout.layers)
    layers = p.weight.codes.shape[:depth]
    trips = min(_TRIPS, (p.site.trips or _TRIPS) // math.prod(layers) or 1)
    shapes = p.site.operands
    keys = jax.random.split(jax.random.key(0))
    x, w = (
        jax.random.normal(key, shape, dtype)
        for key, shape, dtype in (
            (keys[0], (trips, *shapes[1 - weight].shape), shapes[1 - weight].dtype),
            (keys[1], p.weight.codes.shape, shapes[weight].dtype),
        )
    )
    op = _compat.operation(p.node.region.jaxpr, p.node.eqn)

    def on_floats(x: jax.Array, w: jax.Array) -> jax.Array:
        arranged = as_operand(w, p, shapes[weight].shape)
        return op(x, arranged) if weight == 1 else op(arranged, x)

    def on_integers(x: jax.Array, codes: Any) -> jax.Array:
        rows = as_codes(rows_rounded(x, p.site, Int(8)))
        return product(rows, codes, p.site, stored_axes(p.node, p.site))

    def in_loops(run: Callable[..., jax.Array], x: jax.Array, w: Any) -> Any:
        inner = (lambda w: run(x[0], w)) if trips == 1 else _loop(run, x)
        for _ in layers:
            inner = _over_layers(inner)
        return inner(w)

    def floats(x: jax.Array, w: jax.Array) -> Any:
        return in_loops(on_floats, x, w)

    def integers(x: jax.Array, weight: Any) -> Any:
        return in_loops(on_integers, x, operand(dataclasses.replace(p, weight=weight)))

    run_floats, run_integers = jax.jit(floats), jax.jit(integers)
    return lambda: run_floats(x, w), lambda: run_integers(x, p.weight)


def _loop(run: Callable[..., jax.Array], x: jax.Array) -> Callable[[Any], jax.Array]:
    """Run once per entry of ``x``, with the same weight, and return the last result."""

    def all_trips(w: Any) -> jax.Array:
        empty = jnp.zeros_like(jax.eval_shape(run, x[0], w))
        return lax.scan(lambda last, x: (run(x, w), None), empty, x)[0]

    return all_trips


def _over_layers(run: Callable[[Any], jax.Array]) -> Callable[[Any], jax.Array]:
    """Run once per layer of the weight, and return the last result."""

    def all_layers(w: Any) -> jax.Array:
        first = jax.eval_shape(lambda w: run(jax.tree.map(lambda a: a[0], w)), w)
        empty = jnp.zeros(first.shape, first.dtype)
        return lax.scan(lambda last, w: (run(w), None), empty, w)[0]

    return all_layers


def _time(
    floats: Callable[[], Any], integers: Callable[[], Any], rounds: int
) -> tuple[float, float]:
    """Return the median ratio of the times, and how far two runs on floats differ."""

    def seconds(program: Callable[[], Any]) -> float:
        start = time.perf_counter()
        jax.block_until_ready(program())
        return time.perf_counter() - start

    for program in (floats, integers):
        seconds(program)
    ratios, differences = [], []
    for _ in range(rounds):
        first, other, again = seconds(floats), seconds(integers), seconds(floats)
        ratios.append(2 * other / (first + again))
        differences.append(abs(first - again) / max(first, again))
    return statistics.median(ratios), statistics.median(differences)
