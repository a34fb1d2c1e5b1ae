# SPDX-License-Identifier: Apache-2.0
"""Run a packed tree: integer products where they pay, dense leaves where they do not."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from ..._select import path_text
from ...formats import Int
from ...leaves import dense, is_leaf
from .._rewrite import check_names
from ..activations._quantize import Plan, Policy, make_plan
from ..products._find import Found, find
from ..products._site import Site
from ..trace import _compat
from ..trace._analyze import analyze
from ..trace._graph import Program
from ..trace._interpret import Interpreter
from ._choose import (
    Pays,
    Product,
    choose,
    columns_rounded,
    hook,
    large,
    layered,
    rows_rounded,
)
from ._product import as_codes, product
from ._steps import (
    FloatWarning as FloatWarning,
    Step as Step,
    Steps as Steps,
    warn_of_floats,
)


class Execution(NamedTuple):
    """A function of packed parameters.

    Attributes:
      run: ``(packed, *args, ranges=None) -> out``. Jit it with the packed tree as an
        argument: closed over, its weights would be constants and made dense.
      plan: ``(packed, *args, ranges=None) -> Steps``: what runs how, and why not.
    """

    run: Callable[..., Any]
    plan: Callable[..., Steps]


def execute(
    fn: Callable[..., Any],
    policy: Policy | None = None,
    *,
    pays: Pays = large,
    inline_custom: bool = False,
) -> Execution:
    """Run a function on packed parameters, with integer products where they pay.

    A product by a ``QArray`` of up to 8 bits, with scales along its outputs, multiplies
    int8 by int8 into int32 and scales the sum: exact but for the rounding of its input.
    (Integers have no NaN: with ranges from data, one in an input comes out as a number.)
    Few rows are padded to 8 on a CPU, whose integer kernels want them. Every other leaf,
    and every product for which it does not pay, runs on dense floats.

    Args:
      fn: ``(params, *args) -> out`` of dense parameters; see ``sites``.
      policy: of ``quantize_activations``, whose frozen mode this then computes, given the
        same ``ranges``. None: every row of an input is rounded to 8 symmetric bits of its
        own range, at products on integers only.
      pays: which products gain; ``large``, or what ``measured`` found.
      inline_custom: look into functions with derivative rules of their own.

    Returns:
      ``run`` and ``plan``.

    Raises:
      ValueError: when run, if the policy needs ranges that are not given.

    Warns:
      FloatWarning: if nothing runs on integers; it says why.
      OpaqueWarning: where parts of the function are not entered.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> params = {"kernel": jax.random.normal(jax.random.key(0), (1024, 1024))}
      >>> packed = jc.compress(jc.weight_quantization(bits=8), params)
      >>> execution = jc.execute(lambda params, x: x @ params["kernel"])
      >>> x = jnp.ones((16, 1024))
      >>> print(execution.plan(packed, x))
      site          MACs               runs as
      kernel  16,777,216  int8 x int8 -> int32
      >>> out = jax.jit(execution.run)(packed, x)
      >>> bool(jnp.abs(out - x @ params["kernel"]).max() < 1)
      True
    """

    def run(packed: Any, *args: Any, ranges: dict[str, Any] | None = None) -> Any:
        known = _prepare(fn, policy, pays, inline_custom, packed, args, ranges)
        known.found.warn("execute")
        warn_of_floats(Steps(known.steps), "of the packed tree ")
        nodes, values, state = {}, {}, {}
        if known.plan is not None:
            nodes, values = known.plan.hooks(observe=False, rounds=True)
            # Dynamic points have a state too, an empty one.
            state = dict.fromkeys(known.plan.points, ()) | (ranges or {})
        nodes |= {p.node: hook(p) for p in known.products}
        given = {p.site.name: layered(p) for p in known.products}
        leaves = jax.tree.leaves((dense(packed), args))
        out, _, _ = Interpreter(known.program, nodes, values)(leaves, state, given)
        return out

    def plan(packed: Any, *args: Any, ranges: dict[str, Any] | None = None) -> Steps:
        known = _prepare(fn, policy, pays, inline_custom, packed, args, ranges)
        return Steps(known.steps)

    return Execution(run, plan)


class Measured(NamedTuple):
    """What was measured: a ``pays`` for ``execute``.

    Attributes:
      ratios: for each product that can run on integers the time it then takes, divided by
        its time on floats; below 1 is faster.
    """

    ratios: dict[str, float]

    def __call__(self, site: Site) -> bool:
        """Whether a product was faster on integers."""
        return self.ratios.get(site.name, 1.0) < 1.0


def measured(
    fn: Callable[..., Any],
    packed: Any,
    *args: Any,
    rounds: int = 15,
    inline_custom: bool = False,
) -> Measured:
    """Time every product of a packed tree on integers and on floats, on this device.

    Each product alone, on random numbers, the rounding of its input included; the two
    take turns, and the ratio is the median over the rounds. It runs programs and reads a
    clock, so it stands outside of ``jit``, once.

    Args:
      fn: ``(params, *args) -> out`` of dense parameters.
      packed: packed parameters.
      *args: arrays or shapes, of the sizes to be run.
      rounds: how many.
      inline_custom: look into functions with derivative rules of their own.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> packed = jc.compress(jc.weight_quantization(bits=8), {"kernel": jnp.eye(64)})
      >>> fn = lambda params, x: x @ params["kernel"]
      >>> pays = jc.program.measured(fn, packed, jnp.ones((16, 64)), rounds=2)
      >>> list(pays.ratios)
      ['kernel']
      >>> execution = jc.execute(fn, pays=pays)
    """
    if rounds < 1:
        raise ValueError(f"rounds={rounds} is below 1.")
    always = _prepare(fn, None, lambda site: True, inline_custom, packed, args, None)
    return Measured({p.site.name: _ratio(p, rounds) for p in always.products})


def _ratio(p: Product, rounds: int) -> float:
    weight = p.site.weight or 0
    shapes = p.site.operands
    keys = jax.random.split(jax.random.key(0))
    x, w = (
        jax.random.normal(key, s.shape, s.dtype)
        for key, s in zip(keys, (shapes[1 - weight], shapes[weight]), strict=True)
    )
    op = _compat.operation(p.node.region.jaxpr, p.node.eqn)
    codes = as_codes(columns_rounded(w, p.site, Int(8)))

    def on_floats(x: jax.Array, w: jax.Array) -> jax.Array:
        return op(x, w) if weight == 1 else op(w, x)

    def on_integers(x: jax.Array, codes: Any) -> jax.Array:
        return product(as_codes(rows_rounded(x, p.site, Int(8))), codes, p.site)

    programs = [(jax.jit(on_floats), w), (jax.jit(on_integers), codes)]
    ratios = []
    for program, operand in programs:
        jax.block_until_ready(program(x, operand))
    for _ in range(rounds):
        seconds = []
        for program, operand in programs:
            start = time.perf_counter()
            jax.block_until_ready(program(x, operand))
            seconds.append(time.perf_counter() - start)
        ratios.append(seconds[1] / seconds[0])
    return statistics.median(ratios)


@dataclasses.dataclass(frozen=True)
class _Prepared:
    program: Program
    found: Found
    plan: Plan | None
    products: list[Product]
    steps: tuple[Step, ...]


def _prepare(
    fn: Callable[..., Any],
    policy: Policy | None,
    pays: Pays,
    inline_custom: bool,
    packed: Any,
    args: tuple[Any, ...],
    ranges: dict[str, Any] | None,
) -> _Prepared:
    shapes = jax.eval_shape(dense, packed)
    program = analyze(fn, shapes, args, inline_custom=inline_custom)
    plan = None if policy is None else make_plan(program, policy)
    _check_ranges(plan, ranges)
    found = plan.found if plan else find(program)
    pairs, _ = jax.tree_util.tree_flatten_with_path(packed, is_leaf=is_leaf)
    by_path = {path_text(path): leaf for path, leaf in pairs}
    products, steps = [], []
    for node, site in found.sites.items():
        if site.primitive == "gather":
            continue
        made = choose(node, site, by_path.get(site.leaf or ""), plan, pays)
        if isinstance(made, Product):
            products.append(made)
            steps.append(Step(site, True, ""))
        else:
            steps.append(Step(site, False, made))
    return _Prepared(program, found, plan, products, tuple(steps))


def _check_ranges(plan: Plan | None, ranges: dict[str, Any] | None) -> None:
    if plan is None:
        if ranges is not None:
            raise ValueError(
                "ranges= belong to a policy, and there is none: every row is rounded to "
                "its own range. Pass execute the policy that the ranges were made with."
            )
        return
    kept = any(way.kept.is_kept for _, way in plan.points.values())
    if kept and ranges is None:
        raise ValueError(
            "this policy takes ranges from data: pass ranges=, as calibrate or train of "
            "quantize_activations with the same policy have made them."
        )
    check_names(ranges or {}, plan.points, all_of=kept)
