# SPDX-License-Identifier: Apache-2.0
"""The leaf types that a file can hold; add a new leaf type to this table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ..formats import Float, Format, Int, Levels
from ..leaves import Codebook, Leaf, LowRank, PackedCodes, QArray, SparseArray
from ._check import check
from ._codecs import parse_dtype


class LeafType(NamedTuple):
    """Convert a leaf class to fields and back."""

    cls: type[Leaf]
    # leaf -> (children, static): arrays, leaves or None; static fields as JSON values.
    open: Callable[[Any], tuple[list[Any], list[Any]]]
    # (NumPy children, JSON values) -> leaf; raises ValueError if they do not fit.
    close: Callable[[list[Any], list[Any]], Leaf]


def _fields(
    cls: type[Leaf], children: tuple[str, ...], **static: Callable[[Any], Any]
) -> LeafType:
    """Make the ``LeafType`` of a dataclass that is stored field by field, in this order.

    Args:
      cls: the dataclass.
      children: names of its children.
      **static: for each static field, a function that parses its JSON value.
    """

    def open_leaf(leaf: Any) -> tuple[list[Any], list[Any]]:
        values = [getattr(leaf, name) for name in static]
        return [getattr(leaf, name) for name in children], list(map(to_json, values))

    def close_leaf(arrays: list[Any], values: list[Any]) -> Leaf:
        fields = dict(zip(children, arrays, strict=True))
        pairs = zip(static.items(), values, strict=True)
        parsed = {name: parse(value) for (name, parse), value in pairs}
        check(cls(**fields, **parsed))  # before JAX copies, which would be waited for
        return cls(**{k: _to_jax(x) for k, x in fields.items()}, **parsed)

    return LeafType(cls, open_leaf, close_leaf)


def _open_sparse(leaf: SparseArray) -> tuple[list[Any], list[Any]]:
    """Return values and mask; as a bool array, the mask has rows that a codec can use."""
    packed = np.asarray(leaf.bitmask)
    if packed.shape == (-(-leaf.size // 8),):
        mask = np.unpackbits(packed, count=leaf.size).astype(bool)
        if np.array_equal(np.packbits(mask), packed):
            return [leaf.values, mask.reshape(leaf.dense_shape)], []
    raise ValueError(
        "the bitmask of a SparseArray must hold one bit per element, padded with zeros; "
        "make the leaf with SparseArray.from_dense."
    )


def _close_sparse(arrays: list[Any], values: list[Any]) -> SparseArray:
    nonzeros, mask = arrays
    if values or not isinstance(mask, np.ndarray) or mask.dtype != bool:
        raise ValueError("a SparseArray must consist of values and a mask of bools")
    leaf = SparseArray(
        values=_to_jax(nonzeros),
        bitmask=jnp.asarray(np.packbits(mask)),
        dense_shape=mask.shape,
    )
    check(leaf)
    return leaf


def _to_jax(child: Any) -> Any:
    return jnp.asarray(child) if isinstance(child, np.ndarray) else child


def to_json(value: Any) -> Any:
    """Return a static field as a JSON value."""
    if isinstance(value, int):
        return value
    if type(value) in FORMATS.values():
        return [type(value).__name__, *dataclasses.astuple(value)]
    if dataclasses.is_dataclass(value):
        raise TypeError(
            f"the format {value} cannot be saved (supported: {', '.join(FORMATS)}); save "
            "`dense(tree)` instead."
        )
    return np.dtype(value).name


def parse_format(value: Any) -> Format:
    """Parse a format from its name and fields; the format checks its own fields."""
    match value:
        case [str(name), *fields] if name in FORMATS:
            cls = FORMATS[name]
            hashable = [tuple(f) if isinstance(f, list) else f for f in fields]
            try:
                return cls(*hashable)
            except TypeError as error:
                raise ValueError(
                    f"{name} cannot have the fields {fields}: {error}"
                ) from error
    raise ValueError(f"unknown format {value!r} (known: {', '.join(FORMATS)})")


def _parse_bits(value: Any) -> int:
    if type(value) is not int or value not in (1, 2, 4):
        raise ValueError(f"packed codes must have 1, 2 or 4 bits, got {value!r}")
    return value


def _parse_size(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(
            f"the size of an axis must be an integer of at least 0, got {value!r}"
        )
    return value


# The formats that a file can name.
FORMATS: dict[str, type] = {"Int": Int, "Float": Float, "Levels": Levels}

LEAF_TYPES = {
    "QArray": _fields(
        QArray,
        ("codes", "scale", "zero_point"),
        format=parse_format,
        value_dtype=parse_dtype,
    ),
    "Codebook": _fields(Codebook, ("codes", "centroids")),
    "PackedCodes": _fields(
        PackedCodes,
        ("data",),
        size_of_row=_parse_size,
        bits=_parse_bits,
        code_dtype=parse_dtype,
    ),
    "LowRank": _fields(LowRank, ("left", "right")),
    "SparseArray": LeafType(SparseArray, _open_sparse, _close_sparse),
}


def name_of(leaf: Leaf) -> str:
    """Return the name that a leaf's type has in a file.

    Raises:
      TypeError: if the type is not in the table.
    """
    for name, leaf_type in LEAF_TYPES.items():
        if type(leaf) is leaf_type.cls:
            return name
    raise TypeError(
        f"leaves of type {type(leaf).__name__} cannot be saved (supported: "
        f"{', '.join(LEAF_TYPES)}); save `dense(tree)` instead."
    )
