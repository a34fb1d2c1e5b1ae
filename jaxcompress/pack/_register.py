# SPDX-License-Identifier: Apache-2.0
"""Compressed leaves in the calling convention of ``jax.export``: their static fields."""

from __future__ import annotations

import json
from typing import Any

from jax import export

from ._codecs import parse_dtype
from ._leaf_types import LEAF_TYPES, parse_format, to_json


def register() -> None:
    """Let ``jax.export`` serialize functions whose arguments hold compressed leaves."""
    for name, leaf_type in LEAF_TYPES.items():
        export.register_pytree_node_serialization(
            leaf_type.cls,
            serialized_name=f"jaxcompress.{name}",
            serialize_auxdata=_serialize,
            deserialize_auxdata=_deserialize,
        )


def _serialize(fields: Any) -> bytes:
    parts = [list(f) if isinstance(f, tuple) else to_json(f) for f in fields]
    return json.dumps(parts).encode()


def _deserialize(data: bytearray | bytes) -> Any:
    return tuple(map(_parse, json.loads(bytes(data))))


def _parse(field: Any) -> Any:
    match field:
        case [str(), *_]:
            return parse_format(field)
        case list():
            return tuple(field)
        case str():
            return parse_dtype(field)
    return field
