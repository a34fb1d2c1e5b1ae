# SPDX-License-Identifier: Apache-2.0
"""The compressed leaves a file can hold: the one table that a new leaf type is added to."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ..formats import Float, Format, Int, Levels
from ..leaves import Codebook, Leaf, LowRank, PackedCodes, QArray, SparseArray
from ._codecs import parse_dtype


class LeafType(NamedTuple):
    """How a leaf class becomes fields, and fields the leaf."""

    cls: type[Leaf]
    # Its children (arrays, leaves or None), and its static fields as JSON values.
    open: Callable[[Any], tuple[list[Any], list[Any]]]
    # Back again, from NumPy children and JSON values; ValueError if they do not fit.
    close: Callable[[list[Any], list[Any]], Leaf]


def _fields(
    cls: type[Leaf], children: tuple[str, ...], **static: Callable[[Any], Any]
) -> LeafType:
    """A leaf that is stored field by field, in the order given here.

    Args:
      cls: a dataclass.
      children: the names of its children.
      **static: for each static field, what turns its JSON value into the value.
    """

    def open_leaf(leaf: Any) -> tuple[list[Any], list[Any]]:
        values = [getattr(leaf, name) for name in static]
        return [getattr(leaf, name) for name in children], list(map(_to_json, values))

    def close_leaf(arrays: list[Any], values: list[Any]) -> Leaf:
        fields = dict(zip(children, map(_to_jax, arrays), strict=True))
        parsed = zip(static.items(), values, strict=True)
        return cls(**fields, **{name: parse(value) for (name, parse), value in parsed})

    return LeafType(cls, open_leaf, close_leaf)


def _open_sparse(leaf: SparseArray) -> tuple[list[Any], list[Any]]:
    """Values and mask; as an array of bools the mask has rows that a codec can use."""
    packed = np.asarray(leaf.bitmask)
    if packed.shape == (-(-leaf.size // 8),):
        mask = np.unpackbits(packed, count=leaf.size).astype(bool)
        if np.array_equal(np.packbits(mask), packed):
            return [leaf.values, mask.reshape(leaf.dense_shape)], []
    raise ValueError(
        "the bitmask of a SparseArray must hold one bit an element, padded with zeros; "
        "make it with SparseArray.from_dense."
    )


def _close_sparse(arrays: list[Any], values: list[Any]) -> SparseArray:
    kept, mask = arrays
    if values or not isinstance(mask, np.ndarray) or mask.dtype != bool:
        raise ValueError("a SparseArray is made of values and a mask of bools")
    return SparseArray(
        values=_to_jax(kept),
        bitmask=jnp.asarray(np.packbits(mask)),
        dense_shape=mask.shape,
    )


def _to_jax(child: Any) -> Any:
    return jnp.asarray(child) if isinstance(child, np.ndarray) else child


def _to_json(value: Any) -> Any:
    if isinstance(value, int):
        return value
    if type(value) in FORMATS.values():
        return [type(value).__name__, *dataclasses.astuple(value)]
    if dataclasses.is_dataclass(value):
        raise TypeError(
            f"the format {value} cannot be saved (known: {', '.join(FORMATS)}); save "
            "`dense(tree)` instead."
        )
    return np.dtype(value).name


def _parse_format(value: Any) -> Format:
    """A format from its name and fields; their own checks refuse what does not fit."""
    match value:
        case [str(name), *fields] if name in FORMATS:
            cls = FORMATS[name]
            hashable = [tuple(f) if isinstance(f, list) else f for f in fields]
            try:
                return cls(*hashable)
            except TypeError as error:
                raise ValueError(
                    f"{fields} are no fields of {name}: {error}"
                ) from error
    raise ValueError(f"{value!r} is no format (known: {', '.join(FORMATS)})")


def _parse_bits(value: Any) -> int:
    if type(value) is not int or value not in (1, 2, 4):
        raise ValueError(f"{value!r} is no number of bits that codes are packed to")
    return value


def _parse_size(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no size of an axis")
    return value


# The formats a file can name.
FORMATS: dict[str, type] = {"Int": Int, "Float": Float, "Levels": Levels}

LEAF_TYPES = {
    "QArray": _fields(
        QArray,
        ("codes", "scale", "zero_point"),
        format=_parse_format,
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
    """The name of a leaf's type in a file.

    Raises:
      TypeError: if the type is not in the table.
    """
    for name, leaf_type in LEAF_TYPES.items():
        if type(leaf) is leaf_type.cls:
            return name
    raise TypeError(
        f"leaves of type {type(leaf).__name__} cannot be saved (known: "
        f"{', '.join(LEAF_TYPES)}); save `dense(tree)` instead."
    )
