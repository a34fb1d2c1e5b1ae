# SPDX-License-Identifier: Apache-2.0
"""All access to JAX's representation of traced programs.

``jax.extend.core`` and equation parameters have no compatibility guarantee, so this file
and ``_compat_shapes`` are the only ones that a JAX release can break. They are tested
against the oldest and the newest supported JAX.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import eval_jaxpr
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

Atom = Var | Literal

# Higher-order primitives by name, because names have been more stable than classes.
INLINED = {"jit", "pjit", "closed_call", "core_call"}
REMATERIALIZED = {"remat2", "checkpoint", "remat"}
CUSTOM_RULES = {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}
# Opaque kernels: JAX does not show what they compute.
KERNELS = {
    "pallas_call",
    "ffi_call",
    "tpu_custom_call",
    "mosaic_gpu",
    "ragged_dot_general",
}


class Traced(NamedTuple):
    """The equations of a traced function."""

    jaxpr: Jaxpr
    consts: list[Any]  # values of jaxpr.constvars, which the function closed over
    out_tree: Any


def trace(fn: Callable[..., Any], *args: Any) -> Traced:
    """Trace ``fn(*args)``; the arguments may be arrays, tracers or shapes."""
    closed, shapes = jax.make_jaxpr(fn, return_shape=True)(*args)
    jaxpr, consts = opened(closed)
    return Traced(jaxpr, consts, jax.tree.structure(shapes))


def opened(jaxpr: Any) -> tuple[Jaxpr, list[Any]]:
    """Split a jaxpr and the values of its constants; since JAX 0.11 one class is both."""
    if isinstance(jaxpr, ClosedJaxpr):
        return jaxpr.jaxpr, list(jaxpr.consts)
    return jaxpr, []


def bodies(eqn: JaxprEqn) -> list[Any]:
    """Return every jaxpr among the parameters of an equation, in no particular order."""
    jaxprs = []
    for value in eqn.params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, ClosedJaxpr | Jaxpr):
                jaxprs.append(part)
    return jaxprs


def shape(atom: Any) -> tuple[int, ...]:
    """Return the shape of a variable or literal."""
    return atom.aval.shape


def scope(eqn: JaxprEqn) -> str:
    """Return the name stack of an equation, relative to its jaxpr."""
    return str(eqn.source_info.name_stack)


def in_scope(eqn: JaxprEqn) -> Any:
    """Enter the name scope of an equation, to trace a replacement."""
    name = scope(eqn)
    return jax.named_scope(name) if name else contextlib.nullcontext()


def shardings(eqn: JaxprEqn) -> tuple[Sequence[Any], Sequence[Any]]:
    """Return the shardings that a jitted call requires of its arguments and results."""
    ins = eqn.params.get("in_shardings", (None,) * len(eqn.invars))
    return ins, eqn.params.get("out_shardings", (None,) * len(eqn.outvars))


def placed(values: Sequence[Any], wanted: Sequence[Any]) -> list[Any]:
    """Constrain values to the required shardings; most are left to the compiler."""
    return [
        lax.with_sharding_constraint(x, s)
        if isinstance(s, jax.sharding.Sharding)
        else x
        for x, s in zip(values, wanted, strict=True)
    ]


def evaluate(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    """Run a jaxpr unchanged."""
    return eval_jaxpr(jaxpr, consts, *args)


def piece(
    jaxpr: Jaxpr, eqns: Sequence[JaxprEqn], needed: Callable[[Var], bool]
) -> tuple[list[Var], list[Var], Jaxpr]:
    """Build a jaxpr of consecutive equations of another jaxpr, for ``evaluate``.

    Args:
      jaxpr: the jaxpr that the equations come from.
      eqns: the equations, in order.
      needed: true for variables that other equations read.

    Returns:
      The variables that the equations read, the needed variables that they write, and the
      jaxpr.
    """
    written: dict[Var, None] = {}
    read: dict[Var, None] = {}
    for eqn in eqns:
        for atom in eqn.invars:
            if isinstance(atom, Var) and atom not in written:
                read[atom] = None
        written.update((v, None) for v in eqn.outvars)
    outs = [v for v in written if needed(v)]
    names = jaxpr.debug_info.with_unknown_names()
    return list(read), outs, Jaxpr([], list(read), outs, list(eqns), frozenset(), names)


def operation(jaxpr: Jaxpr, eqn: JaxprEqn) -> Callable[..., Any]:
    """Return one equation as a function of its operands, with its parameters."""
    names = jaxpr.debug_info.with_unknown_names()

    def op(*operands: Any) -> Any:
        # Turn literals into operands too, so that every operand can be replaced.
        slots: list[Var] = []
        invars: list[Atom] = [_add_slot(atom, slots) for atom in eqn.invars]
        single = Jaxpr(
            [], slots, eqn.outvars, [eqn.replace(invars=invars)], frozenset(), names
        )
        outs = evaluate(single, [], operands)
        return outs if eqn.primitive.multiple_results else outs[0]

    return op


def _add_slot(atom: Atom, slots: list[Var]) -> Var:
    slots.append(Var(atom.aval))
    return slots[-1]


class ScanParts(NamedTuple):
    """The number of constants and carries of a scan, and its options."""

    consts: int
    carry: int
    length: int
    kwargs: dict[str, Any]  # for lax.scan


def scan_parts(eqn: JaxprEqn) -> ScanParts:
    """Infer the parts of a scan from shapes, because JAX 0.11 changed the parameters.

    Carried results have the same rank inside and outside the body. Stacked results have
    one axis less inside. The same holds for carried and scanned operands.
    """
    (body,) = bodies(eqn)
    inner, _ = opened(body)
    carry = sum(
        len(shape(out)) == len(shape(x))
        for out, x in zip(eqn.outvars, inner.outvars, strict=True)
    )
    scanned = sum(
        len(shape(out)) != len(shape(x))
        for out, x in zip(eqn.invars, inner.invars, strict=True)
    )
    options = ("reverse", "length", "unroll", "_split_transpose")
    kwargs = {name: eqn.params[name] for name in options if name in eqn.params}
    consts = len(eqn.invars) - carry - scanned
    return ScanParts(consts, carry, eqn.params["length"], kwargs)


def rematerialized(eqn: JaxprEqn, fn: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``fn`` in the checkpoint policy of an equation."""
    options = {name: eqn.params[name] for name in ("policy", "prevent_cse")}
    return jax.checkpoint(fn, **options)


def while_parts(eqn: JaxprEqn) -> tuple[Any, Any, int, int]:
    """Return condition, body, and their numbers of constants."""
    p = eqn.params
    return p["cond_jaxpr"], p["body_jaxpr"], p["cond_nconsts"], p["body_nconsts"]


def branches(eqn: JaxprEqn) -> Sequence[Any]:
    """Return the branches of a ``cond`` or ``switch``."""
    return eqn.params["branches"]


def run_branch(eqn: JaxprEqn, index: Any, fns: Sequence[Any], *operands: Any) -> Any:
    """Run one branch of a ``cond``.

    Args:
      eqn: the equation.
      index: index of the branch, or the bool that it was made from.
      fns: the branches.
      *operands: operands of every branch.
    """
    platforms = eqn.params.get("branches_platforms")
    # Select at compile time, because other branches may not even compile here.
    if platforms:
        pairs = list(zip(platforms, fns, strict=True))
        default = next((fn for names, fn in pairs if names is None), None)
        named = {name: fn for names, fn in pairs for name in names or ()}
        return lax.platform_dependent(*operands, default=default, **named)
    if index.dtype == bool:
        return lax.cond(index, fns[1], fns[0], *operands)
    return lax.switch(index, fns, *operands)


def flag(maker: JaxprEqn) -> Var | None:
    """Return the bool that an equation converts to an index; None for other equations."""
    if maker.primitive.name != "convert_element_type":
        return None
    (atom,) = maker.invars
    aval: Any = atom.aval
    is_flag = jnp.issubdtype(aval.dtype, jnp.bool_)
    return atom if is_flag and isinstance(atom, Var) else None


class Contraction(NamedTuple):
    """Contraction and batch axes of both operands of a matrix product."""

    lhs: tuple[int, ...]
    rhs: tuple[int, ...]
    lhs_batch: tuple[int, ...]
    rhs_batch: tuple[int, ...]


def dot_axes(eqn: JaxprEqn) -> Contraction:
    """Return the axes of a ``dot_general``."""
    (lhs, rhs), (lhs_batch, rhs_batch) = eqn.params["dimension_numbers"]
    return Contraction(tuple(lhs), tuple(rhs), tuple(lhs_batch), tuple(rhs_batch))


class Convolution(NamedTuple):
    """The layout of a ``conv_general_dilated``."""

    lhs_spec: tuple[int, ...]  # axes of batch, features, space...
    rhs_spec: tuple[int, ...]  # axes of outputs, inputs, space...
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    lhs_dilation: tuple[int, ...]
    rhs_dilation: tuple[int, ...]
    groups: int
    batch_groups: int


def convolution(eqn: JaxprEqn) -> Convolution:
    """Return the layout of a convolution."""
    p = eqn.params
    numbers = p["dimension_numbers"]
    return Convolution(
        numbers.lhs_spec,
        numbers.rhs_spec,
        tuple(p["window_strides"]),
        tuple(p["padding"]),
        tuple(p["lhs_dilation"]),
        tuple(p["rhs_dilation"]),
        p["feature_group_count"],
        p["batch_group_count"],
    )


def places(eqn: JaxprEqn) -> Sequence[int | None]:
    """Return the operand axis behind each result axis of an equation that moves axes.

    New axes give None. Reshapes are not supported.
    """
    rank, p = len(shape(eqn.invars[0])), eqn.params
    if eqn.primitive.name == "transpose":
        return tuple(p["permutation"])
    if eqn.primitive.name == "squeeze":
        removed = {d % rank for d in p["dimensions"]}
        return [i for i in range(rank) if i not in removed]
    if eqn.primitive.name == "broadcast_in_dim":
        source = dict(zip(p["broadcast_dimensions"], range(rank), strict=True))
        return [source.get(i) for i in range(len(shape(eqn.outvars[0])))]
    return range(rank)


def reversed_axes(eqn: JaxprEqn) -> Sequence[int]:
    """Return the axes that a ``rev`` reverses; empty for other equations."""
    return eqn.params["dimensions"] if eqn.primitive.name == "rev" else ()


def reduced_axes(eqn: JaxprEqn) -> Sequence[int]:
    """Return the axes that a reduction removes; empty for other equations."""
    is_reduction = eqn.primitive.name.startswith("reduce_")
    return eqn.params.get("axes", ()) if is_reduction else ()


def slice_sizes(eqn: JaxprEqn) -> Sequence[int]:
    """Return the slice size of a ``gather`` along each axis of its operand."""
    return eqn.params["slice_sizes"]


class Joining(NamedTuple):
    """An operand of a ``concatenate`` or ``stack``, and its place on the joined axis."""

    operand: int
    start: int
    size: int


def joined(eqn: JaxprEqn) -> tuple[int, Sequence[Joining]]:
    """Return the axis of a ``concatenate`` or ``stack``, and its operands along it."""
    is_stack = eqn.primitive.name == "stack"
    axis = eqn.params["axis" if is_stack else "dimension"]
    places, start = [], 0
    for i, atom in enumerate(eqn.invars):
        size = 1 if is_stack else shape(atom)[axis]
        places.append(Joining(i, start, size))
        start += size
    return axis, places


def window(eqn: JaxprEqn, axis: int) -> range:
    """Return the indices that a ``slice`` takes along an axis."""
    p = eqn.params
    steps = p["strides"] or (1,) * len(p["start_indices"])
    return range(p["start_indices"][axis], p["limit_indices"][axis], steps[axis])


def mark(eqn: JaxprEqn) -> str | None:
    """Return the name that ``checkpoint_name`` set; None for other equations."""
    return eqn.params["name"] if eqn.primitive.name == "name" else None


def is_floating(aval: Any) -> bool:
    """True if a value has a floating-point dtype; False for typed PRNG keys."""
    return jnp.issubdtype(aval.dtype, jnp.floating)


def parameters(eqn: JaxprEqn) -> dict[str, Any]:
    """Return the parameters of an equation, for exporters that translate primitives."""
    return dict(eqn.params)
