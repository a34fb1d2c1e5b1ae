# SPDX-License-Identifier: Apache-2.0
"""Quantization-aware training whose forward pass multiplies integers."""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from ..._select import Where, is_weight, paths_and_leaves, select
from ...formats import Int
from ...leaves import QArray
from ...numerics import ste
from ..products._find import Found, find
from ..products._site import Site
from ..trace import _compat
from ..trace._analyze import analyze
from ..trace._graph import Node, Program
from ..trace._interpret import Frame, Interpreter, NodeHook
from ._choose import Pays, always, columns_rounded, rows_rounded
from ._product import MAX_SUMMED, as_codes, product
from ._steps import Step, Steps, warn_of_floats

_INT8 = Int(8)


class IntegerForward(NamedTuple):
    """A function whose products by weights are quantized.

    Attributes:
      run: ``(params, *args) -> out``, as the function it was made of; to be
        differentiated, mapped and compiled.
      plan: ``(params, *args) -> Steps``: what runs how, and why not. The arguments may be
        shapes.
    """

    run: Callable[..., Any]
    plan: Callable[..., Steps]


def integer_forward(
    fn: Callable[..., Any],
    *,
    weights: Int = _INT8,
    inputs: Int = _INT8,
    where: Where = is_weight,
    pays: Pays = always,
    at_rounded: bool = True,
    inline_custom: bool = False,
) -> IntegerForward:
    """Train with int8 products in the forward pass, and their float gradients.

    Every product by a weight rounds its input row by row and its weight output by output,
    each to a range of its own, and multiplies int8 by int8 into int32, as ``execute``
    does. Its derivative is that of the float product of the *rounded* operands, passed
    straight through the rounding: with ``x_q`` and ``w_q`` the values of the codes, a
    cotangent ``g`` becomes ``g @ w_q.T`` and ``x_q.T @ g``, which is what simulated
    training computes. (Ranges of extremes clip nothing, so nothing is cut from it.)
    Forward mode and second derivatives are those of that product too.

    The parameters stay dense floats; ``compress(weight_quantization(bits=8), params)``
    after training and ``execute(fn, pays=always)`` give the same numbers. They may be the
    view of a compressor that prunes, for instance. Symmetric weights that are already on
    the grid of their output, as the view of such a ``weight_quantization`` is, are not
    moved; those on an asymmetric one may be, by a step.

    Convolutions and products of data and data run on floats, unrounded.

    Args:
      fn: ``(params, *args) -> out``; see ``sites``.
      weights: codes of the weights, 2 to 8 bits.
      inputs: codes of what they are multiplied by, 2 to 8 bits.
      where: the leaves whose products are quantized: a glob, ``(path, leaf) -> bool`` or
        a bool tree.
      pays: which of them gain from integers. The others compute the same on floats, so
        this is a matter of time alone: ``always``, ``large``, or what ``measured`` found.
      at_rounded: whether the derivative is that at ``x_q`` and ``w_q``, as above; if not,
        it is that at ``x`` and ``w``, as in qwix and AQT. That needs no rounded floats,
        and so less time (see ``benchmarks/integer_forward.py``).
      inline_custom: look into functions with derivative rules of their own.

    Returns:
      ``run`` and ``plan``.

    Raises:
      ValueError: for other formats; when run, if ``where`` selects nothing.

    Warns:
      FloatWarning: if nothing runs on integers; it says why.
      OpaqueWarning: where parts of the function are not entered.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> params = {"kernel": jax.random.normal(jax.random.key(0), (64, 32))}
      >>> forward = jc.program.integer_forward(lambda params, x: x @ params["kernel"])
      >>> x = jax.random.normal(jax.random.key(1), (16, 64))
      >>> print(forward.plan(params, x))
      site      MACs               runs as
      kernel  32,768  int8 x int8 -> int32
      >>> loss = lambda params: jnp.mean(forward.run(params, x) ** 2)
      >>> gradient = jax.jit(jax.grad(loss))(params)
      >>> gradient["kernel"].dtype, gradient["kernel"].shape
      (dtype('float32'), (64, 32))

    References:
      Jacob et al., 2017, https://arxiv.org/abs/1712.05877 (rounding in training); Bengio
      et al., 2013, https://arxiv.org/abs/1308.3432 (straight through); Abdolrashidi et
      al., 2021, https://arxiv.org/abs/2105.03536 (integer products in training)
    """
    for name, fmt in (("weights", weights), ("inputs", inputs)):
        if not isinstance(fmt, Int) or fmt.traced or not 2 <= fmt.bits <= 8:
            raise ValueError(
                f"{name}={fmt}: products on integers take integer codes of 2 to 8 bits, "
                "known before the function is traced."
            )

    formats = _Formats(inputs, weights, at_rounded)

    def prepare(params: Any, args: tuple[Any, ...]) -> _Prepared:
        chosen, _, _ = paths_and_leaves(select(params, where).tree)
        program = analyze(fn, params, args, inline_custom=inline_custom)
        found = find(program)
        ways = {
            node: _way(site, set(chosen), pays)
            for node, site in found.sites.items()
            if site.primitive != "gather"
        }
        return _Prepared(program, found, ways)

    def run(params: Any, *args: Any) -> Any:
        known = prepare(params, args)
        known.found.warn("integer_forward")
        warn_of_floats(known.steps)
        hooks = {
            node: _hook(known.found.sites[node], formats, way.integers)
            for node, way in known.ways.items()
            if way.rounds
        }
        leaves = jax.tree.leaves((params, args))
        return Interpreter(known.program, hooks)(leaves, {})[0]

    return IntegerForward(run, lambda params, *args: prepare(params, args).steps)


class _Formats(NamedTuple):
    inputs: Int
    weights: Int
    at_rounded: bool


@dataclasses.dataclass(frozen=True)
class _Way:
    """How a product is computed: on integers, on rounded floats, or as it was."""

    rounds: bool
    integers: bool = False
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class _Prepared:
    program: Program
    found: Found
    ways: dict[Node, _Way]

    @property
    def steps(self) -> Steps:
        return Steps(
            tuple(
                Step(self.found.sites[node], way.integers, way.reason)
                for node, way in self.ways.items()
            )
        )


def _way(site: Site, chosen: set[str], pays: Pays) -> _Way:
    if site.weight is None:
        return _Way(False, reason="data times data")
    if site.leaf not in chosen:
        return _Way(False, reason="`where` does not select the leaf")
    if site.primitive != "dot_general":
        return _Way(False, reason="a convolution")
    if not all(map(_compat.is_floating, site.operands)):
        return _Way(False, reason="its input is of integers")
    shape = site.operands[site.weight].shape
    summed = math.prod(shape[i] for i in site.contraction[site.weight])
    if summed > MAX_SUMMED:
        why = f"int32 does not hold sums of {summed} products"
        return _Way(True, reason=f"rounded, but {why}")
    if not pays(site):
        return _Way(True, reason="rounded, but it does not pay")
    return _Way(True, True)


def _hook(site: Site, formats: _Formats, integers: bool) -> NodeHook:
    """Rounds both operands of a product, and multiplies them."""
    weight = site.weight or 0

    def run(op: Callable[..., Any], operands: list[Any], frame: Frame) -> Any:
        del frame

        def floats(x: jax.Array, w: jax.Array) -> jax.Array:
            return op(x, w) if weight == 1 else op(w, x)

        x, w = operands[1 - weight], operands[weight]
        x_q = rows_rounded(x, site, formats.inputs)
        w_q = columns_rounded(w, site, formats.weights)

        def forward(x_q: QArray, w_q: QArray) -> jax.Array:
            if integers:
                return product(as_codes(x_q), as_codes(w_q), site)
            return floats(x_q.dense(), w_q.dense())

        return _straight_through(forward, floats, formats.at_rounded)(x, w, x_q, w_q)

    # Named, so that the loops around it are entered; there is no state.
    return NodeHook((site.name,), run)


def _straight_through(
    forward: Callable[[QArray, QArray], jax.Array],
    floats: Callable[[jax.Array, jax.Array], jax.Array],
    at_rounded: bool,
) -> Callable[..., jax.Array]:
    """A product of codes, with the derivative of a product of floats.

    Args:
      forward: ``(x_q, w_q) -> result``.
      floats: ``(x, w) -> result``, bilinear.
      at_rounded: whether it is differentiated at the values of the codes.

    Returns:
      ``(x, w, x_q, w_q) -> result``.
    """

    @jax.custom_jvp
    def run(x: jax.Array, w: jax.Array, x_q: QArray, w_q: QArray) -> jax.Array:
        del x, w
        return forward(x_q, w_q)

    # Zeros stay symbols: multiplied out, they would be a float product in the forward
    # pass, for instance by the first layer's input.
    @functools.partial(run.defjvp, symbolic_zeros=True)
    def tangent(primals: Any, tangents: Any) -> Any:  # pyright: ignore[reportUnusedFunction]
        x, w, x_q, w_q = primals
        dx, dw = tangents[:2]
        parts = []
        if not _is_zero(dx):
            parts.append(floats(dx, ste(w, w_q.dense()) if at_rounded else w))
        if not _is_zero(dw):
            parts.append(floats(ste(x, x_q.dense()) if at_rounded else x, dw))
        out = run(*primals)
        return out, functools.reduce(operator.add, parts) if parts else 0 * out

    return run


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, jax.custom_derivatives.SymbolicZero)
