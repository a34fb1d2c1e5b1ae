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
from ..._signatures import name_defaults
from ...formats import Int
from ...leaves import QArray
from ...numerics import ste
from ..products._find import SiteIndex, find
from ..products._site import Site
from ..trace import _compat
from ..trace._analyze import analyze
from ..trace._graph import Node, Program
from ..trace._interpret import Frame, Interpreter, NodeHook
from ._choose import Pays, always, columns_rounded, rows_rounded, stored_axes
from ._product import MAX_SUMMED, Codes, as_codes, product
from ._steps import Step, Steps, warn_of_floats

_INT8 = Int(8)


class IntegerForward(NamedTuple):
    """A function whose products by weights run on integers, and its plan.

    Attributes:
      run: ``(params, *args) -> out``, like the original function. ``grad``, ``vmap`` and
        ``jit`` work on it.
      plan: ``(params, *args) -> Steps``. Lists how each product runs, and why some run on
        floats. The arguments may be shapes.
    """

    run: Callable[..., Any]
    plan: Callable[..., Steps]


@name_defaults
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
    """Train with int8 products in the forward pass and float gradients.

    Every product by a weight rounds its input with one range per row and its weight with
    one range per output. It then multiplies int8 by int8 into int32, as ``execute`` does.
    The derivative is that of the float product of the *rounded* operands, with a
    straight-through estimator for the rounding. If ``x_q`` and ``w_q`` are the rounded
    values, a cotangent ``g`` becomes ``g @ w_q.T`` and ``x_q.T @ g``, as in simulated
    quantization-aware training. (Min-max ranges clip nothing, so no gradient is cut.)
    Forward mode and second derivatives follow the same product.

    The parameters stay dense floats. After training,
    ``compress(weight_quantization(bits=8), params)`` and ``execute(fn, pays=always)``
    give the same numbers. The parameters may be the view of a compressor, for example a
    pruner. Symmetric weights that are already on the grid of their output, such as the
    view of a ``weight_quantization``, do not change. Weights on an asymmetric grid may
    change by one step.

    Convolutions and products of two data arrays run on floats, unrounded.

    Args:
      fn: ``(params, *args) -> out``; see ``sites``.
      weights: format of the weights, 2 to 8 bits.
      inputs: format of the inputs of products, 2 to 8 bits.
      where: leaves whose products are quantized: a glob, ``(path, leaf) -> bool`` or a
        bool tree.
      pays: selects the products that run on integers: ``always``, ``large``, or the result
        of ``measured``. The others compute the same values on floats, so this only
        affects speed.
      at_rounded: True takes the derivative at ``x_q`` and ``w_q``, as above. False takes
        it at ``x`` and ``w``, as in qwix and AQT. That needs no rounded floats and is
        faster (see ``benchmarks/integer_forward.py``).
      inline_custom: also enter functions with custom derivative rules.

    Returns:
      ``run`` and ``plan``.

    Raises:
      ValueError: if a format is not an integer of 2 to 8 bits. When run, if ``where``
        selects nothing.

    Warns:
      FloatWarning: if nothing runs on integers; the warning says why.
      OpaqueWarning: if parts of the function are not entered.

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
                f"{name} must be an Int of 2 to 8 bits that is known before the function "
                f"is traced, got {fmt}."
            )

    formats = _Formats(inputs, weights, at_rounded)

    def prepare(params: Any, args: tuple[Any, ...]) -> _Prepared:
        selected, _, _ = paths_and_leaves(select(params, where).tree)
        program = analyze(fn, params, args, inline_custom=inline_custom)
        index = find(program)
        modes = {
            node: _choose_mode(site, set(selected), pays)
            for node, site in index.sites.items()
            if site.primitive != "gather"
        }
        return _Prepared(program, index, modes)

    def run(params: Any, *args: Any) -> Any:
        prepared = prepare(params, args)
        prepared.index.warn("integer_forward")
        warn_of_floats(prepared.steps)
        hooks = {
            node: _hook(node, prepared.index.sites[node], formats, mode.integers)
            for node, mode in prepared.modes.items()
            if mode.rounds
        }
        leaves = jax.tree.leaves((params, args))
        return Interpreter(prepared.program, hooks)(leaves, {})[0]

    return IntegerForward(run, lambda params, *args: prepare(params, args).steps)


class _Formats(NamedTuple):
    inputs: Int
    weights: Int
    at_rounded: bool


@dataclasses.dataclass(frozen=True)
class _Mode:
    """How a product runs: on integers, on rounded floats, or unchanged."""

    rounds: bool
    integers: bool = False
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class _Prepared:
    program: Program
    index: SiteIndex
    modes: dict[Node, _Mode]

    @property
    def steps(self) -> Steps:
        return Steps(
            tuple(
                Step(self.index.sites[node], mode.integers, mode.reason)
                for node, mode in self.modes.items()
            )
        )


def _choose_mode(site: Site, selected: set[str], pays: Pays) -> _Mode:
    if site.weight is None:
        return _Mode(False, reason="data times data")
    if site.leaf not in selected:
        return _Mode(False, reason="`where` does not select the leaf")
    if site.primitive != "dot_general":
        return _Mode(False, reason="a convolution")
    if not all(map(_compat.is_floating, site.operands)):
        return _Mode(False, reason="its input has an integer dtype")
    shape = site.operands[site.weight].shape
    summed = math.prod(shape[i] for i in site.contraction[site.weight])
    if summed > MAX_SUMMED:
        reason = f"rounded, but int32 does not hold sums of {summed} products"
        return _Mode(True, reason=reason)
    if not pays(site):
        return _Mode(True, reason="rounded, but it does not pay")
    return _Mode(True, True)


def _hook(node: Node, site: Site, formats: _Formats, integers: bool) -> NodeHook:
    """Make the hook that rounds both operands of a product and multiplies them."""
    weight, stored = site.weight or 0, stored_axes(node, site)
    back = sorted(range(len(stored)), key=stored.__getitem__)

    def to_operand(x: jax.Array) -> jax.Array:
        return x.transpose(back)

    def run(op: Callable[..., Any], operands: list[Any], frame: Frame) -> Any:
        del frame

        def floats(x: jax.Array, w: jax.Array) -> jax.Array:
            return op(x, w) if weight == 1 else op(w, x)

        x, w = operands[1 - weight], operands[weight]
        x_q = rows_rounded(x, site, formats.inputs)
        # Rounded as the leaf lies in memory: see `product`.
        w_q = columns_rounded(w, site, formats.weights, stored)

        def forward(x_q: QArray, w_q: QArray) -> jax.Array:
            if integers:
                codes, *scales = as_codes(w_q)
                arranged = Codes(codes, *jax.tree.map(to_operand, scales))
                return product(as_codes(x_q), arranged, site, stored)
            return floats(x_q.dense(), to_operand(w_q.dense()))

        run = _straight_through(forward, floats, to_operand, formats.at_rounded)
        return run(x, w, x_q, w_q)

    # The name makes the interpreter enter enclosing loops; there is no state.
    return NodeHook((site.name,), run)


def _straight_through(
    forward: Callable[[QArray, QArray], jax.Array],
    floats: Callable[[jax.Array, jax.Array], jax.Array],
    to_operand: Callable[[jax.Array], jax.Array],
    at_rounded: bool,
) -> Callable[..., jax.Array]:
    """Give a product of codes the derivative of a product of floats.

    Args:
      forward: ``(x_q, w_q) -> result``.
      floats: ``(x, w) -> result``, bilinear.
      to_operand: brings the rounded weight from the order of its axes in memory to that
        of ``w``.
      at_rounded: True takes the derivative at the rounded values.

    Returns:
      ``(x, w, x_q, w_q) -> result``.
    """

    @jax.custom_jvp
    def run(x: jax.Array, w: jax.Array, x_q: QArray, w_q: QArray) -> jax.Array:
        del x, w
        return forward(x_q, w_q)

    # Keep zeros symbolic. Materialized, they would add a float product to the forward
    # pass, for example with the tangent of the first layer's input.
    @functools.partial(run.defjvp, symbolic_zeros=True)
    def tangent(primals: Any, tangents: Any) -> Any:  # pyright: ignore[reportUnusedFunction]
        x, w, x_q, w_q = primals
        dx, dw = tangents[:2]
        parts = []
        if not _is_zero(dx):
            parts.append(
                floats(dx, ste(w, to_operand(w_q.dense())) if at_rounded else w)
            )
        if not _is_zero(dw):
            parts.append(floats(ste(x, x_q.dense()) if at_rounded else x, dw))
        out = run(*primals)
        return out, functools.reduce(operator.add, parts) if parts else 0 * out

    return run


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, jax.custom_derivatives.SymbolicZero)
