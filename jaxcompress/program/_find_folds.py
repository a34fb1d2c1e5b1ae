# SPDX-License-Identifier: Apache-2.0
"""Find the batch norms of a function that can be folded into the layers before them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from .._arguments import check_function
from ..quantize.equivalent import Fold, verify_folds
from .axes._zero_keeping import REPEATS, constant
from .trace import _compat
from .trace._analyze import analyze
from .trace._graph import Node, Program, Value, readers

_MOVES = REPEATS | {
    "optimization_barrier", "pvary", "reshape", "reshard", "sharding_constraint",
    "squeeze", "stop_gradient", "transpose",
}  # fmt: skip
_PARAMS, _STATS = "params/", "batch_stats/"


class Folds(Sequence[Fold]):
    """The folds of a function, for ``fold_batch_norm``.

    Attributes:
      skipped: norms that cannot be folded, by path, each with the reason.
    """

    def __init__(self, folds: Sequence[Fold], skipped: Mapping[str, str]):
        self._folds = tuple(folds)
        self.skipped = dict(skipped)

    def __getitem__(self, i: Any) -> Any:
        return self._folds[i]

    def __len__(self) -> int:
        return len(self._folds)

    def __repr__(self) -> str:
        lines = [f"{f.norm} -> {f.kernel} (epsilon {f.epsilon:g})" for f in self._folds]
        return "\n".join(
            [*lines, *(f"{name}: skipped, {why}" for name, why in self.skipped.items())]
        )


class _Skip(Exception):
    """Why a norm cannot be folded."""


def find_folds(
    fn: Callable[..., Any], params: Any, batch_stats: Any, *args: Any
) -> Folds:
    """Find which batch norm follows which product alone, and with which epsilon.

    Both are read from the traced program, so it does not matter in which order a framework
    subtracts the mean, multiplies and adds. If all arguments are arrays, each fold is
    verified by running the function.

    Args:
      fn: ``(params, batch_stats, *args) -> out``, in evaluation mode.
      params: tree of arrays or shapes.
      batch_stats: the running statistics, named ``mean`` and ``var``, as for
        ``fold_batch_norm``.
      *args: trees of arrays or shapes; real data, to verify.

    Returns:
      The folds, in the order of the norms. Norms that do not follow a product alone, for
      instance after a residual sum or a concatenation, are in ``skipped``.

    Raises:
      ValueError: if a fold changes the function; see ``verify_folds``.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> params = {"w": jnp.ones((1, 2)), "norm": {"bias": jnp.ones(2)}}
      >>> stats = {"norm": {"mean": jnp.ones(2), "var": jnp.array([1.0, 0.01])}}
      >>> def fn(params, stats, x):
      ...     mean, var = stats["norm"]["mean"][None], stats["norm"]["var"][None]
      ...     normed = (x @ params["w"] - mean) * jax.lax.rsqrt(var + 1e-3)
      ...     return normed + params["norm"]["bias"][None]
      >>> folds = jc.program.find_folds(fn, params, stats, jnp.array([[3.0]]))
      >>> folds
      norm -> w (epsilon 0.001)
      >>> folded = jc.quantize.fold_batch_norm(params, stats, folds)
    """
    check_function(fn, "find_folds(fn, params, batch_stats, *args)")
    trees = {"params": params, "batch_stats": batch_stats}
    program = analyze(
        lambda trees, *args: fn(trees["params"], trees["batch_stats"], *args),
        trees,
        args,
    )
    folds, skipped = [], {}
    for i, path in enumerate(program.paths):
        if not path.startswith(_STATS):
            continue
        name, _, last = path.removeprefix(_STATS).rpartition("/")
        try:
            epsilon = _epsilon(program.root.ins[i])
            if epsilon is not None:
                if last != "var" or f"{_STATS}{name}/mean" not in program.paths:
                    raise _Skip("a Fold needs statistics named mean and var")
                folds.append(_fold(program, program.root.ins[i], name, epsilon))
        except _Skip as why:
            skipped[name] = str(why)
    everything = jax.tree.leaves((params, batch_stats, args))
    if folds and all(isinstance(x, jax.Array | np.ndarray) for x in everything):
        verify_folds(fn, params, batch_stats, folds, *args)
    return Folds(folds, skipped)


def _epsilon(leaf: Value) -> float | None:
    """Return what is added to a variance before its root; None for other values."""
    waiting = [(leaf, 0.0)]
    while waiting:
        value, epsilon = waiting.pop()
        for node in readers(value):
            if node.primitive in ("sqrt", "rsqrt"):
                return epsilon
            if node.primitive == "scan":
                raise _Skip("it is used within a loop")
            numbers = [constant(v) for v in node.ins]
            if node.primitive in _MOVES or (node.primitive == "max" and 0 in numbers):
                waiting.append((node.outs[0], epsilon))
            elif node.primitive == "add":
                number = numbers[0] if numbers[1] is None else numbers[1]
                if number is not None:
                    waiting.append((node.outs[0], epsilon + number))
    return None


def _fold(program: Program, var: Value, norm: str, epsilon: float) -> Fold:
    """Return the fold of a norm.

    Raises:
      _Skip: with the reason if there is none.
    """
    meets = list(_meets(var))
    scaled = [node for node in meets if node.primitive in ("mul", "div")]
    # Some add bias - mean * factor in one go.
    if len(scaled) != 1 or any(n.primitive not in ("mul", "div", "add") for n in meets):
        raise _Skip("it is not applied as a factor, once")
    product, biases = _product(scaled[0], program, norm)
    sides = [i for i, v in enumerate(product.ins) if not v.origin.data]
    if len(sides) != 1:
        raise _Skip("it follows a product of two activations")
    trail = product.ins[sides[0]].trail
    if trail is None or not (trail.exact and trail.whole) or trail.layers:
        raise _Skip("the kernel before it is computed from the parameters")
    kernel = program.paths[trail.leaf]
    if not kernel.startswith(_PARAMS):
        raise _Skip("the kernel before it is not in params")
    if len(list(_meets(program.root.ins[trail.leaf]))) != 1:
        raise _Skip(f"{kernel.removeprefix(_PARAMS)!r} is used more than once")
    if not biases and f"{_PARAMS}{norm}/bias" not in program.paths:
        raise _Skip(
            "neither the norm nor the layer has a bias, so none can absorb the mean"
        )
    axes: list[int] = []
    for i in _outputs(product, sides[0]):
        if trail.axes[i] is None:
            raise _Skip("the output axes of the kernel could not be followed")
        axes += trail.axes[i] or ()
    return Fold(
        kernel.removeprefix(_PARAMS),
        norm,
        biases[0].removeprefix(_PARAMS) if biases else None,
        axes[0] if len(axes) == 1 else tuple(axes),
        epsilon,
    )


def _meets(value: Value) -> Iterator[Node]:
    """Iterate over the nodes where a parameter, or what is computed from it, meets data."""
    seen, waiting = set(), [value]
    while waiting:
        for node in readers(waiting.pop()):
            if node in seen:
                continue
            seen.add(node)
            if any(v.origin.data for v in node.outs):
                yield node
            else:
                waiting += node.outs


def _product(node: Node, program: Program, norm: str) -> tuple[Node, list[str]]:
    """Follow the input of a norm back to a product, and return the biases on the way."""
    biases: list[str] = []
    own = (_STATS, f"{_PARAMS}{norm}/")
    while node.primitive not in ("dot_general", "conv_general_dilated"):
        data = [v for v in node.ins if v.origin.data]
        leaves = {i for v in node.ins if v not in data for i in v.origin.leaves}
        others = [
            p for p in (program.paths[i] for i in leaves) if not p.startswith(own)
        ]
        is_sum = node.primitive in ("add", "sub")
        is_factor = node.primitive in ("mul", "div") and leaves and not others
        if len(data) != 1 or not (is_sum or is_factor or node.primitive in _MOVES):
            raise _Skip(f"it follows {node.primitive!r}, not a product alone")
        biases += others
        value = data[0]
        if len(list(readers(value))) != 1 or any(v is value for v in program.root.outs):
            raise _Skip("its input is read elsewhere, too")
        if value.producer is None:
            raise _Skip("its input is an argument, or is carried by a loop")
        node = value.producer
    if len(biases) > 1:
        raise _Skip("several parameters are added before it")
    return node, biases


def _outputs(node: Node, side: int) -> list[int]:
    """Return the axes of one operand of a product that the result has."""
    if node.primitive == "conv_general_dilated":
        return [_compat.convolution(node.eqn).rhs_spec[0]]
    axes = _compat.dot_axes(node.eqn)
    used = (*axes.lhs, *axes.lhs_batch) if side == 0 else (*axes.rhs, *axes.rhs_batch)
    return [i for i in range(node.ins[side].aval.ndim) if i not in used]
