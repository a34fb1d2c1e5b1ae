# SPDX-License-Identifier: Apache-2.0
"""Portable programs: StableHLO with the packed weights beside it, for any JAX.

A file is a zip archive of two members: the program, serialized by ``jax.export``, whose
arguments are the packed leaves, and the leaves themselves, as ``jaxcompress.save`` writes
them. To run it takes neither the code of the model nor its framework.
"""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from .. import pack
from .._atomic import write_bytes
from .._select import path_text
from ..leaves import dense, is_leaf
from ..program import Policy, quantize_activations, sites
from ._backend import Session
from ._errors import ExportError, Mismatch
from ._exported import Check, Exported
from ._inputs import check_inputs, check_tolerance, simulate
from ._versions import require

SUFFIX = ".stablehlo"
SERIALIZER = ("flatbuffers", "", "stablehlo")
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
_PROGRAM, _WEIGHTS = "program", "weights"


def export(
    fn: Callable[..., Any],
    params: Any,
    ranges: Mapping[str, Any] | None,
    example: Any,
    path: str | os.PathLike[str],
    policy: Policy | None,
    tolerance: float | None,
) -> Exported:
    """Export a function as StableHLO; see ``stablehlo``."""
    require(*SERIALIZER)
    check_tolerance(tolerance)
    path, example, state = check_inputs(fn, params, ranges, example, path, SUFFIX)
    content, fixed = _content(fn, params, state, example, policy)
    inputs = [np.asarray(x) for x in jax.tree.leaves(example)]
    check = _compare(
        content, inputs, simulate(fn, params, state, example, policy), tolerance
    )
    write_bytes(path, content)
    found = sites(fn, jax.eval_shape(dense, params), *example)
    why = "no ranges were given" if state is None else "integers are simulated"
    notes = ["the saving is the file's; weights are dense while it runs"]
    return Exported(
        path=path,
        bytes=len(content),
        runtime="JAX",
        integers=(),
        floats={s.name: why for s in found if s.macs},
        operators={},
        notes=(*notes, f"the batch is fixed: {fixed}") if fixed else tuple(notes),
        check=check,
        batch=len(inputs[0]) if fixed and inputs and inputs[0].ndim else None,
    )


def _content(
    fn: Callable[..., Any],
    params: Any,
    ranges: dict[str, Any] | None,
    example: tuple[Any, ...],
    policy: Policy | None,
) -> tuple[bytes, str]:
    """Return the content of a file, and why its batch is fixed ("" if it is not)."""
    pairs, tree = jax.tree_util.tree_flatten_with_path(params, is_leaf=is_leaf)
    leaves = {path_text(path) or "0": leaf for path, leaf in pairs}
    if len(leaves) < len(pairs):
        raise ExportError("two leaves of the parameters have the same path.")
    names = list(leaves)
    # Constants of the program, which may lie on many devices.
    ranges = jax.tree.map(np.asarray, ranges)
    structure = jax.tree.structure(example)

    def run(leaves: dict[str, Any], *inputs: Any) -> list[Any]:
        packed = jax.tree.unflatten(tree, [leaves[name] for name in names])
        args = jax.tree.unflatten(structure, inputs)
        if ranges is None:
            return jax.tree.leaves(fn(dense(packed), *args))
        frozen = quantize_activations(fn, policy).frozen
        return jax.tree.leaves(frozen(dense(packed), ranges, *args)[0])

    inputs = [jnp.asarray(np.asarray(x)) for x in jax.tree.leaves(example)]
    exported, fixed = _exported(run, leaves, inputs)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(_entry(_PROGRAM), bytes(exported.serialize()))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / _WEIGHTS
            pack.save(path, leaves)
            archive.writestr(_entry(_WEIGHTS), path.read_bytes())
    return buffer.getvalue(), fixed


def _entry(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(
        name
    )  # without the time, so that equal models are equal files


def _exported(
    run: Callable[..., Any], leaves: Any, inputs: list[jax.Array]
) -> tuple[Any, str]:
    """Export for any batch if the function allows it."""
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs]
    shaped = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), leaves)
    make = jax_export.export(jax.jit(run), platforms=PLATFORMS)
    fixed = "the first argument has no axes"
    if inputs and inputs[0].ndim:
        (batch,) = jax_export.symbolic_shape("batch")
        rows = len(inputs[0])
        grown = [
            jax.ShapeDtypeStruct((batch, *s.shape[1:]), s.dtype)
            if s.shape[:1] == (rows,)
            else s
            for s in shapes
        ]
        try:
            return make(shaped, *grown), ""
        except Exception as error:
            fixed = str(error).splitlines()[0][:200]
    return make(shaped, *shapes), fixed


def load(content: bytes, threads: int | None = None) -> Session:
    """Return a function that runs the program with its weights."""
    require(*SERIALIZER)
    del threads  # JAX chooses its threads when it starts
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            program, weights = archive.read(_PROGRAM), archive.read(_WEIGHTS)
        exported = jax_export.deserialize(bytearray(program))
    except Exception as error:
        raise ValueError(
            f"the file cannot be loaded: {error}. Is it damaged, or not a {SUFFIX} file?"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / _WEIGHTS
        path.write_bytes(weights)
        leaves = pack.load(path)
    called = jax.jit(exported.call)
    avals = exported.in_avals[len(jax.tree.leaves(leaves)) :]

    def run(*arrays: Any) -> list[np.ndarray]:
        if len(arrays) != len(avals):
            raise ValueError(
                f"the file has {len(avals)} inputs, got {len(arrays)} arrays."
            )
        for x, aval in zip(arrays, avals, strict=True):
            if not _fits(np.shape(x), aval.shape) or np.asarray(x).dtype != aval.dtype:
                raise ValueError(
                    f"the file takes an array of {aval.dtype} {list(aval.shape)}, got "
                    f"{np.asarray(x).dtype} {list(np.shape(x))}."
                )
        return [np.asarray(x) for x in called(leaves, *map(jnp.asarray, arrays))]

    return run


def _fits(shape: tuple[int, ...], wanted: tuple[Any, ...]) -> bool:
    """True if a shape has the lengths that do not vary."""
    return len(shape) == len(wanted) and all(
        not isinstance(n, int) or m == n for m, n in zip(shape, wanted, strict=True)
    )


def _compare(
    content: bytes, inputs: list[Any], simulated: list[Any], tolerance: float | None
) -> Check:
    """Run a file on the example, and compare; see ``_check.compare``."""
    outs, error, largest = load(content)(*inputs), 0.0, 0.0
    for a, b in zip(outs, map(np.asarray, simulated), strict=True):
        wide = np.asarray(b, np.float64)
        error = max(error, float(np.abs(a.astype(np.float64) - wide).max(initial=0)))
        largest = max(largest, float(np.abs(wide).max(initial=0)))
    allowed = 1e-4 * max(largest, 1e-6) if tolerance is None else tolerance
    if not error <= allowed:
        raise Mismatch(
            f"the exported program differs from the function by {error:.4g}, where "
            f"{allowed:.4g} is allowed. Nothing was written. To allow more, pass "
            "tolerance=."
        )
    return Check(error=error, rule=f"within {allowed:.3g}")
