# SPDX-License-Identifier: Apache-2.0
"""Run a packed tree with integer products where they are faster, and floats elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from ..._arguments import check_function
from ..._select import path_text
from ..._signatures import name_defaults
from ...leaves import dense, is_leaf
from .._rewrite import check_names
from ..activations._plan import Plan, make_plan
from ..activations._quantizer import Policy
from ..products._find import SiteIndex, find
from ..trace._analyze import analyze
from ..trace._graph import Program
from ..trace._interpret import Interpreter
from ._choose import (
    Pays,
    Product,
    choose,
    hook,
    large,
    operand,
)
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
        prepared = prepare(fn, policy, pays, inline_custom, packed, args, ranges)
        prepared.index.warn("execute")
        warn_of_floats(Steps(prepared.steps), "of the packed tree ")
        nodes, values, state = {}, {}, {}
        if prepared.plan is not None:
            nodes, values = prepared.plan.hooks(observe=False, rounds=True)
            # Dynamic points have an empty state.
            state = dict.fromkeys(prepared.plan.points, ()) | (ranges or {})
        nodes |= {p.node: hook(p) for p in prepared.products}
        weights = {p.site.name: operand(p) for p in prepared.products}
        leaves = jax.tree.leaves((dense(packed), args))
        interpreter = Interpreter(prepared.program, nodes, values)
        out, _, _ = interpreter(leaves, state, weights)
        return out

    def plan(packed: Any, *args: Any, ranges: dict[str, Any] | None = None) -> Steps:
        prepared = prepare(fn, policy, pays, inline_custom, packed, args, ranges)
        return Steps(prepared.steps)

    return Execution(run, plan)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A program with the choice of how each of its products runs."""

    program: Program
    index: SiteIndex
    plan: Plan | None
    products: list[Product]
    steps: tuple[Step, ...]


def prepare(
    fn: Callable[..., Any],
    policy: Policy | None,
    pays: Pays,
    inline_custom: bool,
    packed: Any,
    args: tuple[Any, ...],
    ranges: dict[str, Any] | None,
) -> Prepared:
    """Trace a function and choose how each of its products runs."""
    check_function(fn, "execute(fn, policy)")
    if _holds_leaf(args) and not _holds_leaf(packed):
        raise TypeError(
            "run(packed, *args) takes the packed tree first, but compressed leaves are "
            "among the other arguments. Are the arguments in another order?"
        )
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
    return Prepared(program, index, plan, products, tuple(steps))


def _holds_leaf(tree: Any) -> bool:
    return any(map(is_leaf, jax.tree.leaves(tree, is_leaf=is_leaf)))


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
