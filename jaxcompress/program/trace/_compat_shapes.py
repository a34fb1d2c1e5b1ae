# SPDX-License-Identifier: Apache-2.0
"""The parameters of equations that depend on the shapes of their operands.

Together with ``_compat``, this is all that a JAX release can break.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ._compat import JaxprEqn, shape

Mask = np.ndarray


class Indexing(NamedTuple):
    """How the axes of an operand meet those of slices and of indices.

    Attributes:
      window: for each axis of the operand, the axis of the slices, or None.
      indices: for each axis of the slices (or updates), the axis of the indices, or None.
      batch: pairs of axes of the operand and of the indices.
      indexed: axes of the operand that the indices select from.
      vector: the axis of the indices that holds a position.
    """

    window: tuple[int | None, ...]
    indices: tuple[int | None, ...]
    batch: tuple[tuple[int, int], ...]
    indexed: frozenset[int]
    vector: int


def gathering(eqn: JaxprEqn) -> Indexing:
    """Return how a ``gather`` selects slices."""
    numbers = eqn.params["dimension_numbers"]
    return _indexing(
        shape(eqn.invars[0]),
        len(shape(eqn.invars[1])),
        len(shape(eqn.outvars[0])),
        numbers.offset_dims,
        (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims),
        numbers.start_index_map,
        zip(
            numbers.operand_batching_dims,
            numbers.start_indices_batching_dims,
            strict=True,
        ),
    )


def scattering(eqn: JaxprEqn) -> Indexing:
    """Return how a ``scatter`` places updates."""
    numbers = eqn.params["dimension_numbers"]
    return _indexing(
        shape(eqn.invars[0]),
        len(shape(eqn.invars[1])),
        len(shape(eqn.invars[2])),
        numbers.update_window_dims,
        (*numbers.inserted_window_dims, *numbers.operand_batching_dims),
        numbers.scatter_dims_to_operand_dims,
        zip(
            numbers.operand_batching_dims,
            numbers.scatter_indices_batching_dims,
            strict=True,
        ),
    )


def _indexing(
    operand: Sequence[int],
    indices_rank: int,
    slices_rank: int,
    offset: Sequence[int],
    absent: Sequence[int],
    indexed: Sequence[int],
    batch: Any,
) -> Indexing:
    places = iter(offset)
    window = tuple(None if i in absent else next(places) for i in range(len(operand)))
    rows = iter(range(indices_rank - 1))
    indices = tuple(None if i in offset else next(rows) for i in range(slices_rank))
    return Indexing(window, indices, tuple(batch), frozenset(indexed), indices_rank - 1)


class Padding(NamedTuple):
    """Low, high and interior padding of one axis."""

    low: int
    high: int
    interior: int


def padding(eqn: JaxprEqn) -> list[Padding]:
    """Return the padding of every axis of a ``pad``."""
    return [Padding(*map(int, config)) for config in eqn.params["padding_config"]]


def split_sizes(eqn: JaxprEqn) -> tuple[int, Sequence[int]]:
    """Return the axis of a ``split`` and the sizes of its parts."""
    return eqn.params["axis"], eqn.params["sizes"]


def result_axes(eqn: JaxprEqn) -> tuple[int, ...]:
    """Return the axes of a convolution's result: batch, features, space..."""
    return eqn.params["dimension_numbers"].out_spec


def window_axes(eqn: JaxprEqn) -> list[bool]:
    """Return whether a window operation moves along each axis."""
    p = eqn.params
    rank = len(p["window_dimensions"])
    pads = p.get("padding") or ((0, 0),) * rank
    ones = (1,) * rank
    keys = ("window_dimensions", "window_strides", "base_dilation", "window_dilation")
    options = [p.get(key) or ones for key in keys]
    return [
        any(option[i] != 1 for option in options) or tuple(pads[i]) != (0, 0)
        for i in range(rank)
    ]


def ordered_axes(eqn: JaxprEqn) -> set[int]:
    """Return the axes along which the order of the indices matters."""
    p, name = eqn.params, eqn.primitive.name
    if name in ("sort", "iota"):
        return {p["dimension"]}
    if name == "rev":
        return set(p["dimensions"])
    if name in ("argmax", "argmin"):
        return set(p["axes"])
    if name == "top_k":
        return {p.get("axis", -1) % len(shape(eqn.invars[0]))}
    return {p["axis"]}


def power(eqn: JaxprEqn) -> int:
    """Return the exponent of an ``integer_pow``."""
    return eqn.params["y"]


def resized(
    eqn: JaxprEqn,
    ins: Sequence[Sequence[int]],
    outs: Sequence[Sequence[int]],
    mask: Callable[[int], Mask],
    out_mask: Callable[[int], Mask],
) -> JaxprEqn:
    """Return an equation for operands whose axes lost some of their indices.

    Args:
      eqn: the equation.
      ins: new shapes of its operands.
      outs: new shapes of its results.
      mask: ``axis -> bool [n]``, the kept indices of the first operand.
      out_mask: the same of the first result.
    """
    change = _CHANGES.get(eqn.primitive.name)
    if change is None:
        return eqn
    changed = change(_Sizes(eqn, ins, outs, mask, out_mask))
    return eqn.replace(params={**eqn.params, **changed})


class _Sizes(NamedTuple):
    eqn: JaxprEqn
    ins: Sequence[Sequence[int]]
    outs: Sequence[Sequence[int]]
    mask: Callable[[int], Mask]
    out_mask: Callable[[int], Mask]


def _result_shape(key: str) -> Callable[[_Sizes], dict[str, Any]]:
    return lambda new: {key: tuple(new.outs[0])}


def _slice(new: _Sizes) -> dict[str, Any]:
    p = new.eqn.params
    starts = [int(new.mask(i)[:n].sum()) for i, n in enumerate(p["start_indices"])]
    steps = p["strides"] or (1,) * len(starts)
    limits = [
        start + max(size - 1, 0) * step + (size > 0)
        for start, size, step in zip(starts, new.outs[0], steps, strict=True)
    ]
    return {"start_indices": tuple(starts), "limit_indices": tuple(limits)}


def _pad(new: _Sizes) -> dict[str, Any]:
    config = []
    for i, (low, high, interior) in enumerate(padding(new.eqn)):
        # Only axes with padding that adds positions at the ends can have been pruned.
        if low > 0 and not interior:
            low = int(new.out_mask(i)[:low].sum())
        if high > 0 and not interior:
            high = int(new.out_mask(i)[-high:].sum())
        config.append((low, high, interior))
    return {"padding_config": tuple(config)}


def _gather(new: _Sizes) -> dict[str, Any]:
    old = shape(new.eqn.invars[0])
    sizes = [
        after if size == before else size
        for size, before, after in zip(
            new.eqn.params["slice_sizes"], old, new.ins[0], strict=True
        )
    ]
    return {"slice_sizes": tuple(sizes)}


def _conv(new: _Sizes) -> dict[str, Any]:
    if new.eqn.params["feature_group_count"] == 1:
        return {}
    numbers = new.eqn.params["dimension_numbers"]
    groups = new.ins[0][numbers.lhs_spec[1]] // new.ins[1][numbers.rhs_spec[1]]
    return {"feature_group_count": groups}


def _split(new: _Sizes) -> dict[str, Any]:
    return {"sizes": tuple(out[new.eqn.params["axis"]] for out in new.outs)}


_CHANGES: dict[str, Callable[[_Sizes], dict[str, Any]]] = {
    "broadcast_in_dim": _result_shape("shape"),
    "conv_general_dilated": _conv,
    "dynamic_slice": _result_shape("slice_sizes"),
    "gather": _gather,
    "iota": _result_shape("shape"),
    "pad": _pad,
    "random_bits": _result_shape("shape"),
    "reshape": _result_shape("new_sizes"),
    "slice": _slice,
    "split": _split,
}
