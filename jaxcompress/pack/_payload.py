# SPDX-License-Identifier: Apache-2.0
"""Read and write the bytes of a payload: variable-length integers and slices."""

from __future__ import annotations

Bytes = bytes | bytearray | memoryview


class CorruptPayload(ValueError):
    """A payload does not decode; the file layer adds the names of file and tensor."""


def varint(value: int) -> bytes:
    r"""Encode a non-negative integer in 7-bit groups, lowest first; small ones take 1 byte.

    Example:
      >>> varint(5), varint(300)
      (b'\x05', b'\xac\x02')
    """
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Unsupported(ValueError):
    """An intact file needs a newer version or exceeds a limit."""


class Reader:
    """Read a payload from front to back; reading past the end raises ``CorruptPayload``."""

    def __init__(self, data: Bytes) -> None:
        self._data = memoryview(data)
        self._at = 0

    def byte(self) -> int:
        """Read the next byte."""
        return self.take(1)[0]

    def varint(self) -> int:
        """Read the next variable-length integer, of at most 64 bits."""
        value = 0
        for shift in range(0, 70, 7):
            group = self.byte()
            value |= (group & 0x7F) << shift
            if group < 0x80:
                if value >= 1 << 64:
                    break
                return value
        raise CorruptPayload("an integer has more than 64 bits")

    def take(self, count: int) -> memoryview:
        """Read the next ``count`` bytes, without a copy."""
        if count > len(self._data) - self._at:
            raise CorruptPayload("the payload ends too early")
        self._at += count
        return self._data[self._at - count : self._at]

    def sized(self) -> memoryview:
        """Read a length, and as many bytes."""
        return self.take(self.varint())

    def rest(self) -> memoryview:
        """Read all remaining bytes."""
        return self.take(len(self._data) - self._at)

    def finish(self) -> None:
        """Check that no bytes remain."""
        if self._at != len(self._data):
            raise CorruptPayload("the payload is longer than its array")
