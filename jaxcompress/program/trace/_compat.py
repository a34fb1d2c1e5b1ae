# SPDX-License-Identifier: Apache-2.0
"""All contact with how JAX represents a traced program; the only file a release can break.

``jax.extend.core`` and the parameters of equations carry no promise of compatibility.
Tested against the oldest and the newest JAX that is supported.
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

# Higher-order primitives by their names, which have outlived their classes.
INLINED = {"jit", "pjit", "closed_call", "core_call"}
REMATERIALIZED = {"remat2", "checkpoint", "remat"}
CUSTOM_RULES = {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}
# What computes behind JAX's back: nothing is known of it, not even that it multiplies.
KERNELS = {
    "pallas_call",
    "ffi_call",
    "tpu_custom_call",
    "mosaic_gpu",
    "ragged_dot_general",
}


class Traced(NamedTuple):
    """A program, as its equations."""

    jaxpr: Jaxpr
    consts: list[Any]  # values of jaxpr.constvars: what the function closed over
    out_tree: Any


def trace(fn: Callable[..., Any], *args: Any) -> Traced:
    """The equations of ``fn(*args)``; the arguments may be arrays, tracers or shapes."""
    closed, shapes = jax.make_jaxpr(fn, return_shape=True)(*args)
    jaxpr, consts = opened(closed)
    return Traced(jaxpr, consts, jax.tree.structure(shapes))


def opened(jaxpr: Any) -> tuple[Jaxpr, list[Any]]:
    """A jaxpr and the values of its constants; from JAX 0.11 on one class is both."""
    if isinstance(jaxpr, ClosedJaxpr):
        return jaxpr.jaxpr, list(jaxpr.consts)
    return jaxpr, []


def bodies(eqn: JaxprEqn) -> list[Any]:
    """Every jaxpr among the parameters of an equation, in no particular order."""
    found = []
    for value in eqn.params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, ClosedJaxpr | Jaxpr):
                found.append(part)
    return found


def shape(atom: Any) -> tuple[int, ...]:
    """The shape of a variable or literal."""
    return atom.aval.shape


def scope(eqn: JaxprEqn) -> str:
    """The name stack of an equation, relative to the jaxpr that holds it."""
    return str(eqn.source_info.name_stack)


def in_scope(eqn: JaxprEqn) -> Any:
    """The name scope of an equation, for what is traced in its place."""
    name = scope(eqn)
    return jax.named_scope(name) if name else contextlib.nullcontext()


def shardings(eqn: JaxprEqn) -> tuple[Sequence[Any], Sequence[Any]]:
    """The shardings that a jitted call asks of its arguments and results."""
    ins = eqn.params.get("in_shardings", (None,) * len(eqn.invars))
    return ins, eqn.params.get("out_shardings", (None,) * len(eqn.outvars))


def placed(values: Sequence[Any], wanted: Sequence[Any]) -> list[Any]:
    """Values with the shardings that are asked for; most are left to the compiler."""
    return [
        lax.with_sharding_constraint(x, s)
        if isinstance(s, jax.sharding.Sharding)
        else x
        for x, s in zip(values, wanted, strict=True)
    ]


def evaluate(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    """Run a jaxpr as it is."""
    return eval_jaxpr(jaxpr, consts, *args)


def piece(
    jaxpr: Jaxpr, eqns: Sequence[JaxprEqn], needed: Callable[[Var], bool]
) -> tuple[list[Var], list[Var], Jaxpr]:
    """Some consecutive equations of a jaxpr as one of its own, for ``evaluate``.

    Args:
      jaxpr: where they come from.
      eqns: in order.
      needed: whether a variable is read by anyone else.

    Returns:
      What the equations read, what others need of what they write, and the jaxpr.
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
    """One equation as a function of its operands, all its parameters kept."""
    names = jaxpr.debug_info.with_unknown_names()

    def op(*operands: Any) -> Any:
        # Literals become operands too, so that all of them can be replaced.
        slots: list[Var] = []
        invars: list[Atom] = [_fresh(atom, slots) for atom in eqn.invars]
        single = Jaxpr(
            [], slots, eqn.outvars, [eqn.replace(invars=invars)], frozenset(), names
        )
        outs = evaluate(single, [], operands)
        return outs if eqn.primitive.multiple_results else outs[0]

    return op


def _fresh(atom: Atom, slots: list[Var]) -> Var:
    slots.append(Var(atom.aval))
    return slots[-1]


class ScanParts(NamedTuple):
    """How the operands and results of a scan divide."""

    consts: int
    carry: int
    length: int
    kwargs: dict[str, Any]  # for lax.scan


def scan_parts(eqn: JaxprEqn) -> ScanParts:
    """Read from the shapes, since the parameters that say it changed in JAX 0.11.

    Results that are carried have in the body the rank they have outside; stacked ones
    have one axis less there. The same tells constants and carries from what is scanned.
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
    known = ("reverse", "length", "unroll", "_split_transpose")
    kwargs = {name: eqn.params[name] for name in known if name in eqn.params}
    consts = len(eqn.invars) - carry - scanned
    return ScanParts(consts, carry, eqn.params["length"], kwargs)


def rematerialized(eqn: JaxprEqn, fn: Callable[..., Any]) -> Callable[..., Any]:
    """``fn`` under the checkpoint policy of an equation."""
    options = {name: eqn.params[name] for name in ("policy", "prevent_cse")}
    return jax.checkpoint(fn, **options)


def while_parts(eqn: JaxprEqn) -> tuple[Any, Any, int, int]:
    """Condition, body, and how many constants each of them takes."""
    p = eqn.params
    return p["cond_jaxpr"], p["body_jaxpr"], p["cond_nconsts"], p["body_nconsts"]


def branches(eqn: JaxprEqn) -> Sequence[Any]:
    """The branches of a ``cond`` or ``switch``."""
    return eqn.params["branches"]


def chosen(eqn: JaxprEqn, index: Any, fns: Sequence[Any], *operands: Any) -> Any:
    """Run one of the branches of a ``cond``.

    Args:
      eqn: the equation.
      index: of the branch, or the flag that it was made of.
      fns: the branches.
      *operands: of each.
    """
    platforms = eqn.params.get("branches_platforms")
    if platforms:  # chosen when compiled: the others may not even compile here
        pairs = list(zip(platforms, fns, strict=True))
        default = next((fn for names, fn in pairs if names is None), None)
        named = {name: fn for names, fn in pairs for name in names or ()}
        return lax.platform_dependent(*operands, default=default, **named)
    if index.dtype == bool:
        return lax.cond(index, fns[1], fns[0], *operands)
    return lax.switch(index, fns, *operands)


def flag(maker: JaxprEqn) -> Var | None:
    """The bool that an equation makes an index of; None if it does something else."""
    if maker.primitive.name != "convert_element_type":
        return None
    (atom,) = maker.invars
    aval: Any = atom.aval
    is_flag = jnp.issubdtype(aval.dtype, jnp.bool_)
    return atom if is_flag and isinstance(atom, Var) else None


class Contraction(NamedTuple):
    """What a matrix product or a convolution sums over, as axes of its operands."""

    lhs: tuple[int, ...]
    rhs: tuple[int, ...]
    lhs_batch: tuple[int, ...]
    rhs_batch: tuple[int, ...]


def dot_axes(eqn: JaxprEqn) -> Contraction:
    """The axes of a ``dot_general``."""
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
    """The layout of a convolution."""
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
    """Of an equation that moves axes: which one of its operand lies along each axis.

    None along one that is new. (A reshape has no such places.)
    """
    rank, p = len(shape(eqn.invars[0])), eqn.params
    if eqn.primitive.name == "transpose":
        return tuple(p["permutation"])
    if eqn.primitive.name == "squeeze":
        gone = {d % rank for d in p["dimensions"]}
        return [i for i in range(rank) if i not in gone]
    if eqn.primitive.name == "broadcast_in_dim":
        to = dict(zip(p["broadcast_dimensions"], range(rank), strict=True))
        return [to.get(i) for i in range(len(shape(eqn.outvars[0])))]
    return range(rank)


def reversed_axes(eqn: JaxprEqn) -> Sequence[int]:
    """The axes that a ``rev`` turns around; none of any other equation."""
    return eqn.params["dimensions"] if eqn.primitive.name == "rev" else ()


def reduced_axes(eqn: JaxprEqn) -> Sequence[int]:
    """The axes that a reduction takes away; none of any other equation."""
    is_reduction = eqn.primitive.name.startswith("reduce_")
    return eqn.params.get("axes", ()) if is_reduction else ()


def slice_sizes(eqn: JaxprEqn) -> Sequence[int]:
    """How much of each axis of its operand a ``gather`` takes at a time."""
    return eqn.params["slice_sizes"]


def mark(eqn: JaxprEqn) -> str | None:
    """The name that ``checkpoint_name`` gave; None of any other equation."""
    return eqn.params["name"] if eqn.primitive.name == "name" else None


def is_floating(aval: Any) -> bool:
    """Whether a value's dtype is a float; typed random keys have dtypes of their own."""
    return jnp.issubdtype(aval.dtype, jnp.floating)
