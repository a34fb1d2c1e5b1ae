# SPDX-License-Identifier: Apache-2.0
"""What holds where compressors, dtypes, containers, meshes and transforms meet.

Combinations are drawn with a seed. In each, the view keeps structure, shapes, dtypes and
shardings; the transform computes what eager execution does; what ships is the view; and
the file holds what ships. Parameters without names are refused by `init`, with the text
that says so. Any other outcome is a failure, and the command ends with status 1.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import random
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import jaxcompress as jc
from jaxcompress import formats, prune, quantize

from . import _harness
from ._containers import CONTAINERS

FAILURES = ("broken", "another error")
# Sums over weights are ordered by the compiler as it likes.
_ROUNDING = 1e-5


@dataclasses.dataclass(frozen=True)
class Leaves:
    """Which leaves of a container are weights, and how their axes lie."""

    where: Any = jc.is_weight
    axes: jc.Axes | None = None


# Tuples name nothing, so a caller has to say which leaves are weights.
LEAVES = {"tuples": Leaves("*/0", jc.Axes(outputs=1, contraction=0))}
REFUSED = {"unnamed": "is_weight selected none of 4 leaves"}

COMPRESSORS: dict[str, Callable[[Leaves], jc.Compressor]] = {
    "magnitude": lambda of: jc.magnitude_pruning(
        0.6, budget=prune.budgets.global_, where=of.where
    ),
    "2 of 4": lambda of: jc.magnitude_pruning(
        0.5, pattern=prune.patterns.NOfM(2, 4, axes=of.axes), where=of.where
    ),
    "movement": lambda of: jc.movement_pruning(0.5, every=1, where=of.where),
    "top-KAST": lambda of: prune.top_kast(0.8, 0.5, where=of.where),
    "rigl": lambda of: jc.rigl(
        0.5, key=jax.random.key(0), until=9, every=1, where=of.where
    ),
    "lottery": lambda of: jc.lottery_ticket(0.9, rounds=3, every=1, where=of.where),
    "int8": lambda of: _by_channel(of, bits=8),
    "int4": lambda of: jc.weight_quantization(
        bits=4, granularity=jc.PerGroup(4, axes=of.axes), where=of.where
    ),
    "asymmetric": lambda of: _by_channel(of, bits=3, symmetric=False),
    "NF4": lambda of: _by_channel(of, fmt=formats.NF4),
    "E4M3": lambda of: _by_channel(of, fmt=formats.E4M3),
    "learned scales": lambda of: _by_channel(of, bits=4, scale=quantize.scales.lsq()),
    "ternary": lambda of: quantize.trained_ternary(0.05, where=of.where),
    "sharing": lambda of: jc.weight_sharing(5, where=of.where),
    "low rank": lambda of: jc.low_rank(rank=2, where=of.where),
    "prune and quantize": lambda of: jc.chain(
        jc.magnitude_pruning(0.5, where=of.where), _by_channel(of, bits=4)
    ),
}
DTYPES = ("float32", "bfloat16", "float16")
MESHES = ("none", "auto", "explicit")
# The basis of half floats is orthonormal to their rounding only.
_FULL = ("low rank",)


@dataclasses.dataclass(frozen=True)
class Draw:
    """One combination."""

    compressor: str
    dtype: str
    container: str
    mesh: str
    transform: str


def drawn(number: int, seed: int) -> list[Draw]:
    """Draw combinations; every value of every factor comes early and equally often.

    A longer list begins with the shorter one of the same seed.
    """

    def column(factor: int, values: Sequence[str]) -> list[str]:
        draw = random.Random(f"{seed} {factor}")
        rounds = [draw.sample(values, len(values)) for _ in range(number)]
        return [value for values in rounds for value in values][:number]

    factors = (COMPRESSORS, DTYPES, CONTAINERS, MESHES, TRANSFORMS)
    columns = (column(i, tuple(values)) for i, values in enumerate(factors))
    rows = zip(*columns, strict=True)
    return [
        dataclasses.replace(each, dtype="float32") if each.compressor in _FULL else each
        for each in (Draw(*row) for row in rows)
    ]


def check(each: Draw) -> str:
    """Return ``"held"`` or ``"refused"``.

    Raises:
      AssertionError: if something does not hold, naming it; or if what ``REFUSED`` lists
        is not refused.
      ValueError: if ``init`` refuses anything else, or with another text.
    """
    c = COMPRESSORS[each.compressor](LEAVES.get(each.container, Leaves()))
    mesh, refused = _mesh(each.mesh), REFUSED.get(each.container)
    params = _placed(CONTAINERS[each.container](each.dtype), mesh)
    with contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh):
        try:
            state = c.init(params)
        except ValueError as error:
            if refused is None or refused not in str(error):
                raise
            return "refused"
        assert refused is None, "init did not refuse what it cannot know"
        grads = jax.tree.map(lambda p: jnp.ones_like(p) * p, params)
        params, state = c.update(params, state, grads=grads)
        view = c.apply(params, state)
        _same_places(params, view)
        TRANSFORMS[each.transform](c, params, state, view)
        shipped = c.finalize(params, state)
        _same("dense(finalize) and apply", view, jc.dense(shipped), 0.0)
        with tempfile.TemporaryDirectory() as folder:
            jc.save(Path(folder) / "net", shipped)
            loaded = jc.load(Path(folder) / "net", like=shipped)
        _same("load(save) and the tree", shipped, loaded, 0.0)
    return "held"


def _by_channel(of: Leaves, **options: Any) -> jc.Compressor:
    granularity = jc.PerChannel(axes=of.axes)
    return jc.weight_quantization(granularity=granularity, where=of.where, **options)


def _eager(c: jc.Compressor, params: Any, state: Any, view: Any) -> None:
    _same("apply again", view, c.apply(params, state), 0.0)


def _jit(c: jc.Compressor, params: Any, state: Any, view: Any) -> None:
    compiled = jax.jit(c.apply)(params, state)
    _same_places(params, compiled)
    _same("jit and eager", view, compiled, _ROUNDING)


def _vmap(c: jc.Compressor, params: Any, state: Any, view: Any) -> None:
    twice = jax.tree.map(lambda p: jnp.stack([p, p]), params)
    views = jax.vmap(lambda p: c.apply(p, state))(twice)
    _same("vmap and eager", view, jax.tree.map(lambda v: v[1], views), _ROUNDING)


def _scan(c: jc.Compressor, params: Any, state: Any, view: Any) -> None:
    del view

    def step(carry: Any, _: None) -> tuple[Any, Any]:
        params, state = carry
        params, state = c.update(params, state, grads=params)
        return (params, state), c.apply(params, state)

    one_by_one = carry = (params, state)
    views = []
    for _ in range(2):
        one_by_one, view = jax.jit(step)(one_by_one, None)
        views.append(view)
    _, scanned = jax.lax.scan(step, carry, length=2)
    for i, view in enumerate(views):
        part = jax.tree.map(lambda v, i=i: v[i], scanned)
        _same(f"step {i} of scan and the step by itself", view, part, _ROUNDING)


def _grad(c: jc.Compressor, params: Any, state: Any, view: Any) -> None:
    del view

    def loss(params: Any) -> jax.Array:
        leaves = jax.tree.leaves(c.apply(params, state))
        return sum((jnp.sum(x.astype(jnp.float32) ** 2) for x in leaves), jnp.zeros(()))

    params = jax.tree.map(jnp.asarray, params)
    eager, compiled = jax.grad(loss)(params), jax.jit(jax.grad(loss))(params)
    _same_places(params, compiled)
    _same("gradients in jit and eager", eager, compiled, _ROUNDING)
    for leaf in jax.tree.leaves(eager):
        assert np.isfinite(_float(leaf)).all(), "a gradient is not finite"


TRANSFORMS: dict[str, Callable[[jc.Compressor, Any, Any, Any], None]] = {
    "eager": _eager, "jit": _jit, "vmap": _vmap, "scan": _scan, "grad": _grad
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = _harness.parser("combinations", __doc__, rounds=300)
    made.add_argument("--seed", type=int, default=0)
    settings = _harness.parse(made, argv)
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(
        collections.Counter
    )
    for each in drawn(settings.rounds, settings.seed):
        outcome = _outcome(each)
        for value in dataclasses.astuple(each):
            counts[value][outcome] += 1
        counts["all"][outcome] += 1
    for name, outcomes in counts.items():
        print(f"{name:20}", json.dumps(outcomes))
    rows = [{"name": name, "outcomes": dict(x)} for name, x in counts.items()]
    _harness.record(rows, settings)
    if any(counts["all"][failure] for failure in FAILURES):
        raise SystemExit(1)


def _outcome(each: Draw) -> str:
    try:
        return check(each)
    except AssertionError as error:
        print(f"{each}: {error}", file=sys.stderr)
        return "broken"
    except Exception as error:  # counted as a failure
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {str(error)[:300]} ({where.name})"
        print(f"{each}: {text}", file=sys.stderr)
        return "another error"


def _mesh(kind: str) -> Mesh | None:
    if kind == "none":
        return None
    axis_type = AxisType.Auto if kind == "auto" else AxisType.Explicit
    return jax.make_mesh((jax.device_count(),), ("x",), axis_types=(axis_type,))


def _placed(params: Any, mesh: Mesh | None) -> Any:
    """Shard each leaf over its first axis, if that divides."""
    if mesh is None:
        return params

    def place(leaf: Any) -> jax.Array:
        axis = "x" if leaf.shape[0] % mesh.size == 0 else None
        return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(axis)))

    return jax.tree.map(place, params)


def _same_places(params: Any, view: Any) -> None:
    assert jax.tree.structure(params) == jax.tree.structure(view), "another structure"
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(view), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), f"{a.dtype} became {b.dtype}"
        if isinstance(a, jax.Array):
            same = b.sharding.is_equivalent_to(a.sharding, a.ndim)
            assert same, f"{a.sharding} became {b.sharding}"


def _same(what: str, old: Any, new: Any, rounding: float) -> None:
    assert jax.tree.structure(old) == jax.tree.structure(new), f"{what}: structures"
    for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), f"{what}: {a.dtype}, {b.dtype}"
        if np.asarray(a).tobytes() == np.asarray(b).tobytes():
            continue
        x, y = _float(a), _float(b)
        far = np.abs(x - y).max()
        assert far <= rounding * np.abs(x).max(), f"{what} differ by up to {far:.3g}"


def _float(leaf: Any) -> np.ndarray:
    return np.asarray(leaf).astype(np.float64)


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 4)
    # Several programs in flight can starve virtual devices of threads.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    main()
