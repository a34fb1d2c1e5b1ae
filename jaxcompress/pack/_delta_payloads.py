# SPDX-License-Identifier: Apache-2.0
"""The payloads of a new file as references to an old one, and back.

After its head (see `_delta_file`), a delta lists the payloads of the new file in order:

    number of payloads              varint
    n > 0, i                        n payloads of the old file, from number i on
    0, 0, size, bytes               a new payload
    0, 1, i, size, bytes            a payload coded against that of number i
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import _delta_file, _delta_leaf, _nodes
from ._opened import Opened
from ._payload import CorruptPayload, Reader, Unsupported, varint
from ._reader import default_max_bytes


class Diff:
    """The payloads of a new file, found in or coded against those of an old one."""

    def __init__(
        self, old_path: Path, old: Opened, new_path: Path, new: Opened
    ) -> None:
        self._heads = _head(old_path, old), _head(new_path, new)
        self._old, self._new = old.tensors, new.tensors
        self._old_nodes, self._new_nodes = (
            {node.name: node for node in _nodes.leaves(file.tree)}
            for file in (old, new)
        )
        self._index = {name: i for i, name in enumerate(old.tensors)}
        self._names = list(old.tensors)
        self._alike: dict[tuple[int, Any], list[str]] = {}
        for name, tensor in old.tensors.items():
            self._alike.setdefault((tensor.size, tensor.checksum), []).append(name)
        self._max_bytes = default_max_bytes(old_path)

    def chunks(self, head: bytes, step: Callable[[int], None]) -> Iterator[bytes]:
        """Yield the bytes of the delta."""
        old_head, new_head = self._heads
        yield head + _delta_file.deflate(new_head, old_head) + varint(len(self._new))
        step(len(new_head))
        first, count = 0, 0
        for name, tensor in self._new.items():
            payload = tensor.read()
            index = self._find(name, payload)
            if count and index != first + count:
                yield varint(count) + varint(first)
                count = 0
            if index is None:
                yield self._coded(name, payload)
            else:
                first, count = (first, count + 1) if count else (index, 1)
            step(tensor.size)
        if count:
            yield varint(count) + varint(first)

    def _find(self, name: str, payload: Any) -> int | None:
        """Return the number of an old payload that equals this one."""
        tensor = self._new[name]
        same = self._alike.get((tensor.size, tensor.checksum), [])
        for other in sorted(same, key=lambda x: x != name):
            if self._old[other].read() == payload:
                return self._index[other]
        return None

    def _coded(self, name: str, payload: Any) -> bytes:
        old, new = self._old_nodes.get(name), self._new_nodes.get(name)
        if old is not None and new is not None and name in self._old:
            try:
                _nodes.check_claims([old, new], self._max_bytes)
                coded = _delta_leaf.encode(
                    new.leaf, payload, old.leaf, self._old[name].read()
                )
            except Unsupported:
                coded = None  # too large to be decoded, but not to be copied
            except ValueError as error:
                raise CorruptPayload(f"tensor {name!r}: {error}") from error
            if coded is not None:
                place = varint(self._index[name]) + varint(len(coded))
                return b"\0\1" + place + coded
        return b"\0\0" + varint(len(payload)) + bytes(payload)


def patched(
    path: Path, old: Opened, reader: Reader, step: Callable[[int], None]
) -> Iterator[bytes]:
    """Yield the bytes of the new file."""
    head = _delta_file.inflate(reader, _head(path, old))
    yield head
    step(len(head))
    names = list(old.tensors)
    nodes = {node.name: node for node in _nodes.leaves(old.tree)}
    left, max_bytes = reader.varint(), default_max_bytes(path)

    def name_at(index: int) -> str:
        if index >= len(names):
            raise CorruptPayload(f"there is no payload {index} in the old file")
        return names[index]

    while left > 0:
        if count := reader.varint():
            first = reader.varint()
            left -= count
            payloads = (old.tensors[name_at(first + i)].read() for i in range(count))
        else:
            left -= 1
            payloads = [_new_payload(reader, old, nodes, name_at, max_bytes)]
        for payload in payloads:
            yield bytes(payload)
            step(len(payload))
    reader.finish()


def _new_payload(
    reader: Reader,
    old: Opened,
    nodes: dict[str, Any],
    name_at: Callable[[int], str],
    max_bytes: int,
) -> Any:
    match reader.byte():
        case 0:
            return reader.sized()
        case 1:
            name = name_at(reader.varint())
            if name not in nodes:
                raise CorruptPayload(f"tensor {name!r} does not belong to a leaf")
            _nodes.check_claims([nodes[name]], max_bytes)
            node, payload = nodes[name].leaf, old.tensors[name].read()
            try:
                return _delta_leaf.decode(reader.sized(), node, payload)
            except ValueError as error:
                raise CorruptPayload(f"tensor {name!r}: {error}") from error
    raise CorruptPayload("a payload is coded in an unknown way")


def _head(path: Path, file: Opened) -> bytes:
    with open(path, "rb") as opened_file:
        return opened_file.read(file.head)
