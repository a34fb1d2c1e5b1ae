# SPDX-License-Identifier: Apache-2.0
"""Run a packed tree with integer products where they are faster, and floats elsewhere."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from ..._select import path_text
from ..._signatures import name_defaults
from ...formats import Int
from ...leaves import dense, is_leaf
from .._rewrite import check_names
from ..activations._plan import Plan, make_plan
from ..activations._quantizer import Policy
from ..products._find import SiteIndex, find
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
    """A function that runs on packed parameters, and its plan.

    Attributes:
      run: ``(packed, *args, ranges=None) -> out``. When you jit it, pass the packed tree
        as an argument. If it is closed over, its weights become constants and dense.
      plan: ``(packed, *args, ranges=None) -> Steps``. Lists how each product runs, and
        why some run on floats.
    """

    run: Callable[..., Any]
    plan: Callable[..., Steps]


@name_defaults
def execute(
    fn: Callable[..., Any],
    policy: Policy | None = None,
    *,
    pays: Pays = large,
    inline_custom: bool = False,
) -> Execution:
    """Run inference on packed parameters, with int8 products where they are faster.

    A product by a ``QArray`` of up to 8 bits, with scales along its outputs, multiplies
    int8 by int8 into int32 and scales the sum. It is exact except for the rounding of its
    input. (Integers have no NaN: with calibrated ranges, a NaN input gives a number.) On
    CPU, inputs with few rows are padded to 8, because the integer kernels need them. All
    other leaves, and products that are not faster on integers, run on dense floats.

    Args:
      fn: ``(params, *args) -> out`` of dense parameters; see ``sites``.
      policy: policy of ``quantize_activations``. The result then equals that of its frozen
        mode with the same ``ranges``. None rounds every row of an input to 8 symmetric
        bits with its own range, only at products that run on integers.
      pays: selects the products to run on integers; ``large``, ``always``, or the result
        of ``measured``.
      inline_custom: also enter functions with custom derivative rules.

    Returns:
      ``run`` and ``plan``.

    Raises:
      ValueError: when run, if the policy needs ranges and none are passed.

    Warns:
      FloatWarning: if nothing runs on integers; the warning says why.
      OpaqueWarning: if parts of the function are not entered.

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
        prepared = _prepare(fn, policy, pays, inline_custom, packed, args, ranges)
        prepared.index.warn("execute")
        warn_of_floats(Steps(prepared.steps), "of the packed tree ")
        nodes, values, state = {}, {}, {}
        if prepared.plan is not None:
            nodes, values = prepared.plan.hooks(observe=False, rounds=True)
            # Dynamic points have an empty state.
            state = dict.fromkeys(prepared.plan.points, ()) | (ranges or {})
        nodes |= {p.node: hook(p) for p in prepared.products}
        weights = {p.site.name: layered(p) for p in prepared.products}
        leaves = jax.tree.leaves((dense(packed), args))
        interpreter = Interpreter(prepared.program, nodes, values)
        out, _, _ = interpreter(leaves, state, weights)
        return out

    def plan(packed: Any, *args: Any, ranges: dict[str, Any] | None = None) -> Steps:
        prepared = _prepare(fn, policy, pays, inline_custom, packed, args, ranges)
        return Steps(prepared.steps)

    return Execution(run, plan)


class Measured(NamedTuple):
    """The timings from ``measured``; pass it to ``execute`` as ``pays``.

    Attributes:
      ratios: time on integers divided by time on floats, by site name, for each product
        that can run on integers. Below 1, integers are faster.
    """

    ratios: dict[str, float]

    def __call__(self, site: Site) -> bool:
        """True if a product was faster on integers."""
        return self.ratios.get(site.name, 1.0) < 1.0


def measured(
    fn: Callable[..., Any],
    packed: Any,
    *args: Any,
    rounds: int = 15,
    inline_custom: bool = False,
) -> Measured:
    """Time every product on integers and on floats on this device, to choose ``pays``.

    Each product runs alone on random numbers, including the rounding of its input. The two
    versions alternate, and the ratio is the median over the rounds. It measures wall-clock
    time, so call it once, outside ``jit``.

    Args:
      fn: ``(params, *args) -> out`` of dense parameters.
      packed: packed parameters.
      *args: arrays or shapes with the sizes of the real run.
      rounds: number of timed rounds.
      inline_custom: also enter functions with custom derivative rules.

    Raises:
      ValueError: if ``rounds`` is below 1.

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
        raise ValueError(f"rounds must be at least 1, got {rounds}.")
    prepared = _prepare(fn, None, lambda site: True, inline_custom, packed, args, None)
    return Measured({p.site.name: _time_ratio(p, rounds) for p in prepared.products})


def _time_ratio(p: Product, rounds: int) -> float:
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
    index: SiteIndex
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
    program = plan.program if plan else program
    index = plan.index if plan else find(program)
    pairs, _ = jax.tree_util.tree_flatten_with_path(packed, is_leaf=is_leaf)
    by_path = {path_text(path): leaf for path, leaf in pairs}
    products, steps = [], []
    for node, site in index.sites.items():
        if site.primitive == "gather":
            continue
        choice = choose(node, site, by_path.get(site.leaf or ""), plan, pays)
        if isinstance(choice, Product):
            products.append(choice)
            steps.append(Step(site, True, ""))
        else:
            steps.append(Step(site, False, choice))
    return _Prepared(program, index, plan, products, tuple(steps))


def _check_ranges(plan: Plan | None, ranges: dict[str, Any] | None) -> None:
    if plan is None:
        if ranges is not None:
            raise ValueError(
                "ranges= needs a policy; without one every row is rounded to its own "
                "range. Pass to execute the policy that the ranges were made with."
            )
        return
    needs_ranges = any(quantizer.kept.is_kept for _, quantizer in plan.points.values())
    if needs_ranges and ranges is None:
        raise ValueError(
            "this policy needs calibrated ranges: pass ranges= from calibrate or train of "
            "quantize_activations with the same policy."
        )
    check_names(ranges or {}, plan.points, all_of=needs_ranges)
