# SPDX-License-Identifier: Apache-2.0
"""The eleven laws of a compressor, each as a function that raises where it is broken."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ._combine import chain, masked
from ._compressor import Compressor, PyTree, split_learned
from ._idle_update import LawError
from ._penalty import penalty_and_grads
from ._select import paths_and_leaves
from ._skip import all_finite
from .leaves import dense

_TRACED_STEPS = 100


class Program:
    """A compressor's update and view, compiled together once for all laws.

    ``compiled`` and ``eager`` are ``(params, state, extras) -> (params, state, view)``.
    """

    def __init__(self, c: Compressor):
        self._c = c
        self.traces = 0
        self.compiled = jax.jit(self._traced)

    def _traced(self, params: PyTree, state: PyTree, extras: PyTree) -> Any:
        self.traces += 1
        return self.eager(params, state, extras)

    def eager(self, params: PyTree, state: PyTree, extras: PyTree) -> Any:
        params, state = self._c.update(params, state, **extras)
        return params, state, self._c.apply(params, state)


@dataclasses.dataclass(frozen=True)
class Case:
    c: Compressor
    program: Program  # of c
    params: PyTree  # after a few steps
    state: PyTree
    start: PyTree  # before them
    first: PyTree  # the state that init made
    grads: PyTree  # random, at the view
    extras: Mapping[str, Any]  # what update is given, grads among them
    rounding: float


def step(params: PyTree, grads: PyTree) -> PyTree:
    """An optimizer's step, always eager: its own rounding is not what is tested."""
    return jax.tree.map(lambda p, g: p - 0.01 * g, params, grads)


def _law1_apply_keeps_avals(case: Case) -> None:
    view = case.c.apply(case.params, case.state)
    _same_avals(1, "apply(params)", case.params, view)


def _law2_update_keeps_avals(case: Case) -> None:
    params, state, _ = case.program.compiled(case.start, case.first, case.extras)
    _same_avals(2, "params after update", case.start, params)
    _same_avals(2, "state after update", case.first, state)


def _law3_jit(case: Case) -> None:
    program = case.program
    eager = program.eager(case.params, case.state, case.extras)
    once = program.compiled(case.params, case.state, case.extras)
    _same_avals(3, "eager update and apply", once, eager)
    _close(3, "jit against eager", eager, once, case.rounding)
    traces, (params, state, _) = program.traces, once
    for _ in range(_TRACED_STEPS - 1):
        params = step(params, case.grads)
        params, state, _ = program.compiled(params, state, case.extras)
    if program.traces != traces:
        again = program.traces - traces
        raise LawError(f"law 3: {_TRACED_STEPS} steps were traced {1 + again} times.")


def _law4_ships_what_was_trained(case: Case) -> None:
    view = case.c.apply(case.params, case.state)
    shipped = dense(case.c.finalize(case.params, case.state))
    _close(4, "dense(finalize) against apply", view, shipped, 0.0)


def _law5_unselected(case: Case) -> str | None:
    """Those the compressor itself leaves alone, and those a mask keeps from it."""
    paths, leaves, _ = paths_and_leaves(case.params)
    view = jax.tree.leaves(case.c.apply(case.params, case.state))
    untouched = {p for p, x, v in zip(paths, leaves, view, strict=True) if v is x}
    if len(untouched) == len(paths):  # the view tells nothing: updates move parameters
        moved, _ = case.c.update(case.params, case.first, **case.extras)
        new = jax.tree.leaves(moved)
        untouched = {p for p, x, m in zip(paths, leaves, new, strict=True) if m is x}
    if untouched:
        _untouched(case.c, case.program, case.first, case, untouched)
    for path in paths:
        only = masked(case.c, path)
        try:
            state = only.init(case.params)
        except ValueError:
            continue  # the compressor itself does not select this leaf alone
        _untouched(only, Program(only), state, case, set(paths) - {path})
        return None
    return None if untouched else "not checked: no leaf could be selected alone"


def _untouched(
    c: Compressor, program: Program, state: PyTree, case: Case, paths: set[str]
) -> None:
    params, state, view = program.compiled(case.params, state, case.extras)
    for name, tree in (
        ("update", params),
        ("apply", view),
        ("finalize", dense(c.finalize(params, state))),
    ):
        before, after = (
            {p: x for p, x in zip(*paths_and_leaves(t)[:2], strict=True) if p in paths}
            for t in (case.params, tree)
        )
        _close(5, f"{name} of what was not selected", before, after, 0.0)


def _law6_idempotent(case: Case) -> None:
    view = case.c.apply(case.params, case.state)
    again = case.c.apply(view, case.state)
    eps = max(float(jnp.finfo(x.dtype).eps) for x in jax.tree.leaves(view))
    _close(6, "apply twice against once", view, again, max(8 * eps, case.rounding))


def _law7_gradient(case: Case) -> None:
    def inner(params: PyTree) -> jax.Array:
        view = case.c.apply(params, case.state)
        parts = jax.tree.map(
            lambda v, g: jnp.sum(v.astype(jnp.float32) * g), view, case.grads
        )
        return sum(jax.tree.leaves(parts), jnp.zeros(()))

    grads = jax.jit(jax.grad(inner))(case.params)
    for path, grad in zip(*paths_and_leaves(grads)[:2], strict=True):
        if not np.isfinite(np.asarray(grad, np.float32)).all():
            raise LawError(f"law 7: the gradient at {path!r} is not finite.")
    if case.c.penalty is not None:
        _penalty_has_a_gradient(case)


def _penalty_has_a_gradient(case: Case) -> None:
    def both(params: PyTree, state: PyTree) -> Any:
        learned, rebuild = split_learned(state)
        return penalty_and_grads(case.c, params, learned, rebuild)

    compiled = jax.jit(both)(case.params, case.state)
    if not all_finite(compiled):
        raise LawError("law 7: the penalty or its gradient is not finite.")
    eager = both(case.params, case.state)[0]
    _close(3, "the penalty, jit against eager", eager, compiled[0], case.rounding)


def _law8_file_round_trip(case: Case) -> None:
    from .pack import load, save

    shipped = case.c.finalize(case.params, case.state)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "law8.safetensors")
        save(path, shipped)
        loaded = load(path, like=shipped)
    _close(8, "load(save) against the tree", shipped, loaded, 0.0)


def _law9_chain_is_associative(case: Case) -> None:
    def halve() -> Compressor:
        return Compressor(
            init=lambda params: (),
            apply=lambda params, state: jax.tree.map(lambda p: p / 2, params),
        )

    left = chain(chain(halve(), halve()), case.c)
    right = chain(halve(), chain(halve(), case.c))

    def results(c: Compressor) -> list[PyTree]:
        state = c.init(case.start)
        view = c.apply(case.start, state)
        with warnings.catch_warnings():
            # Solvers warn here that no update was given statistics.
            warnings.simplefilter("ignore", UserWarning)
            return [view, dense(c.finalize(case.start, state))]

    _close(9, "a(bc) against (ab)c", results(left), results(right), 0.0)


def _law10_reported_bytes(case: Case) -> None:
    from .pack import save
    from .report import size

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "law10.safetensors")
        save(path, case.c.finalize(case.params, case.state))
        reported, actual = size(path).file_bytes, os.stat(path).st_size
    if reported != actual:
        raise LawError(f"law 10: {reported} bytes reported, the file has {actual}.")


def _law11_sharded_and_resumed(case: Case) -> str | None:
    _resumed(case)
    number = jax.device_count()
    if number == 1:
        return "held for resuming; sharding not checked: there is one device"
    single = case.program.compiled(case.start, case.first, dict(case.extras))[1:]
    why_not = None
    try:
        jax.eval_shape(case.c.init, case.start)
    except TypeError as error:  # its shapes depend on values, such as a rank by energy
        why_not = f"held but for init, which is not traced: {error}"
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((number,), ("x",), axis_types=(kind,))
        how = f"sharded over {kind.name.lower()} axes"
        _sharded(case, mesh, how, single, init=why_not is None)
    return why_not


def _sharded(case: Case, mesh: Mesh, how: str, single: PyTree, *, init: bool) -> None:
    (number,) = mesh.axis_sizes

    def shard(leaf: jax.Array) -> jax.Array:
        axes = [i for i, n in enumerate(leaf.shape) if n and n % number == 0][:1]
        spec = [("x" if i in axes else None) for i in range(leaf.ndim)]
        return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*spec)))

    # One program at a time: several in flight can starve virtual devices of threads.
    params, extras = jax.tree.map(shard, (case.start, dict(case.extras)))
    state = case.first
    if init:
        with jax.set_mesh(mesh):  # for a state that does not depend on values
            state = jax.block_until_ready(jax.jit(case.c.init)(params))
        _close(11, f"init, {how}, against unsharded", case.first, state, case.rounding)
    _, state, view = jax.block_until_ready(case.program.compiled(params, state, extras))
    _close(11, f"{how}, against unsharded", single, (state, view), case.rounding)
    for path, before, after in zip(
        *paths_and_leaves(params)[:2], jax.tree.leaves(view), strict=True
    ):
        if not after.sharding.is_equivalent_to(before.sharding, before.ndim):
            raise LawError(
                f"law 1: apply changed the sharding of {path!r} from {before.sharding} "
                f"to {after.sharding}."
            )


def _resumed(case: Case) -> None:
    from .checkpoint import restore_checkpoint, save_checkpoint

    run, extras = case.program.compiled, case.extras
    params = step(case.params, case.grads)
    straight = run(params, case.state, extras)
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(folder, 0, (params, case.state))
        params, state = restore_checkpoint(folder, (params, case.state))
    resumed = run(params, state, extras)
    _close(11, "resumed against uninterrupted", straight, resumed, 0.0)


LAWS: dict[int, Callable[[Case], str | None]] = {
    1: _law1_apply_keeps_avals,
    2: _law2_update_keeps_avals,
    3: _law3_jit,
    4: _law4_ships_what_was_trained,
    5: _law5_unselected,
    6: _law6_idempotent,
    7: _law7_gradient,
    8: _law8_file_round_trip,
    9: _law9_chain_is_associative,
    10: _law10_reported_bytes,
    11: _law11_sharded_and_resumed,
}


def _same_structure(law: int, what: str, old: PyTree, new: PyTree) -> None:
    before, after = jax.tree.structure(old), jax.tree.structure(new)
    if before != after:
        raise LawError(f"law {law}: {what} changed its structure: {before} -> {after}")


def _same_avals(law: int, what: str, old: PyTree, new: PyTree) -> None:
    _same_structure(law, what, old, new)
    for path, a, b in zip(
        *paths_and_leaves(old)[:2], jax.tree.leaves(new), strict=True
    ):
        before, after = jax.typeof(a), jax.typeof(b)
        same = (before.shape, before.dtype, before.weak_type) == (
            after.shape,
            after.dtype,
            after.weak_type,
        )
        if not same:
            raise LawError(
                f"law {law}: {what} turned {path!r} from {before} to {after}."
            )


def _close(law: int, what: str, old: PyTree, new: PyTree, rounding: float) -> None:
    _same_structure(law, what, old, new)
    for path, a, b in zip(
        *paths_and_leaves(old)[:2], jax.tree.leaves(new), strict=True
    ):
        x, y = np.asarray(a), np.asarray(b)
        if (x.shape, x.dtype) != (y.shape, y.dtype):
            raise LawError(
                f"law {law}: {what}: {path!r} is {y.dtype}{list(y.shape)}, not "
                f"{x.dtype}{list(x.shape)}."
            )
        if x.tobytes() == y.tobytes():
            continue
        far = np.abs(x.astype(np.float64) - y.astype(np.float64)).max(initial=0)
        if not far <= rounding * np.abs(x.astype(np.float64)).max(initial=0):
            raise LawError(f"law {law}: {what}: {path!r} differs by up to {far:.3g}.")
